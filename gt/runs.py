"""``python -m gt.runs``: the runs below a folder with their scores, those that fit; deleted, if that is asked for."""

import argparse
import math
import shutil
from pathlib import Path

from gt.cli.program import importing, quick_exit
from gt.errors import Parser, UserError, one_line

SORTS = ("begun", "score", "folder")


def arguments() -> argparse.Namespace:
    parser = Parser(prog="python -m gt.runs", description=__doc__)
    fit = "what runs must fit, such as data=text, 'model=g*', optim.lr=1e-3, state=stopped"
    parser.add_argument("words", nargs="*", metavar="FOLDER | KEY=PATTERN", help=f"runs/ unless told, and {fit}")
    parser.add_argument("--sort", choices=SORTS, default="begun", help="the last run, or the best one, first")
    parser.add_argument("--show", nargs="+", default=[], metavar="KEY", help="further settings, a column each")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write the table there too")
    deleted = "delete the folders of the runs that the same command without it lists; takes a KEY=PATTERN"
    parser.add_argument("--delete", action="store_true", help=deleted)
    return parser.parse_intermixed_args()


def main() -> None:
    options = arguments()
    with importing():  # late: --help and a typo answer at once
        import pandas as pd
        from rich.console import Console
        from rich.table import Table

        from gt.cli.run_list import check_key, chosen, instead, runs_below
        from gt.data.files import whole
        from gt.schema import number

    folders = [Path(word) for word in options.words if "=" not in word]
    filters = [word for word in options.words if "=" in word]
    if len(folders) > 1:
        raise UserError(f"one folder at a time, not {', '.join(map(str, folders))}")
    top = folders[0] if folders else Path("runs")
    if options.delete and not filters:
        raise UserError("--delete takes KEY=PATTERN too, such as state=stopped: it would delete every run")
    every = list(runs_below(top)) if folders or top.is_dir() else []
    for key in options.show:
        check_key(every, key)
    runs = chosen(every, filters)
    if options.sort == "folder":
        runs.sort(key=lambda run: run.folder)
    elif options.sort == "score":
        down = any(run.result.get("mode") == "max" for run in runs)
        scores = {run.folder: math.nan if run.score is None else run.score for run in runs}  # those without come last
        runs.sort(key=lambda run: (math.isnan(s := scores[run.folder]), 0.0 if math.isnan(s) else -s if down else s))
    rows = []
    for run in runs:
        best, criterion = run.result.get("best_valid"), run.result.get("criterion")
        trivial = run.result.get("baseline", {}).get(criterion)
        rows.append(
            {
                "run": str(run.folder.relative_to(top)),
                "state": run.state,
                "data": run.about.get("data", ""),
                "model": run.about.get("model", ""),
                "seed": run.about.get("seed", ""),
                **{key: run.about.get(key, "") for key in options.show},
                "metric": criterion or "",
                "valid": "" if best is None else number(best),
                "test": "" if run.score is None or run.result.get("split") != "test" else number(run.score),
                "trivial": "" if trivial is None else number(trivial),
                "begun": f"{run.begun:%Y-%m-%d %H:%M}",
            }
        )
    if not rows:
        print(f"no run below {top}" + (f" fits {' '.join(filters)}{instead(every, filters)}" if filters else ""))
        return
    table = Table(box=None, pad_edge=False)
    for name in rows[0]:
        table.add_column(name, justify="right" if name in ("valid", "test", "trivial") else "left", overflow="fold")
    for row in rows:
        table.add_row(*row.values())
    console = Console()
    console.print(table) if console.is_terminal else Console(width=200).print(table)
    print(f"{len(rows)} runs below {top}" if len(rows) > 1 else f"1 run below {top}")
    if options.csv:
        with whole(options.csv) as file:
            pd.DataFrame(rows).to_csv(file, index=False)
        print(f"table  {options.csv}")
    if options.delete:
        gone = [run.folder for run in runs if run.state != "running"]
        for folder in gone:
            shutil.rmtree(folder)
        print(f"deleted {len(gone)}" + ("; those that run are left" if len(gone) < len(runs) else ""))


if __name__ == "__main__":
    with quick_exit(), one_line():
        main()
