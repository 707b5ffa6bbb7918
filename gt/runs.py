"""``python -m gt.runs``: list the runs below a folder with their scores, filter them, and delete them on request."""

import argparse
import math
import shutil
from pathlib import Path

from gt.cli.program import importing, quick_exit
from gt.errors import Parser, UserError, one_line

SORTS = ("begun", "score", "folder")


def arguments() -> argparse.Namespace:
    parser = Parser(prog="python -m gt.runs", description=__doc__)
    filters = "filters such as data=text, 'model=g*', optim.lr=1e-3, state=stopped"
    parser.add_argument(
        "words", nargs="*", metavar="FOLDER | KEY=PATTERN", help=f"a folder (default: runs), and {filters}"
    )
    parser.add_argument("--sort", choices=SORTS, default="begun", help="begun: latest run first; score: best first")
    parser.add_argument("--show", nargs="+", default=[], metavar="KEY", help="further settings, one column each")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="also write the table to this file")
    delete = "delete the folders of the runs that are listed; needs a KEY=PATTERN"
    parser.add_argument("--delete", action="store_true", help=delete)
    return parser.parse_intermixed_args()


def main() -> None:
    options = arguments()
    with importing():  # late, so that --help and typos are answered at once
        import pandas as pd
        from rich.console import Console
        from rich.table import Table

        from gt.cli.run_list import available_values, check_key, matching, runs_below
        from gt.data.files import atomic_file
        from gt.schema import format_number

    folders = [Path(word) for word in options.words if "=" not in word]
    filters = [word for word in options.words if "=" in word]
    if len(folders) > 1:
        raise UserError(f"give one folder at a time, not {', '.join(map(str, folders))}")
    top = folders[0] if folders else Path("runs")
    if options.delete and not filters:
        raise UserError("--delete needs a KEY=PATTERN such as state=stopped: without one it would delete every run")
    all_runs = list(runs_below(top)) if folders or top.is_dir() else []
    for key in options.show:
        check_key(all_runs, key)
    runs = matching(all_runs, filters)
    if options.sort == "folder":
        runs.sort(key=lambda run: run.folder)
    elif options.sort == "score":
        descending = any(run.result.get("mode") == "max" for run in runs)
        scores = {run.folder: math.nan if run.score is None else run.score for run in runs}  # NaN sorts last
        runs.sort(
            key=lambda run: (
                math.isnan(score := scores[run.folder]),
                0.0 if math.isnan(score) else -score if descending else score,
            )
        )
    rows = []
    for run in runs:
        best, criterion = run.result.get("best_valid"), run.result.get("criterion")
        trivial = run.result.get("baseline", {}).get(criterion)
        rows.append(
            {
                "run": str(run.folder.relative_to(top)),
                "state": run.state,
                "data": run.settings.get("data", ""),
                "model": run.settings.get("model", ""),
                "seed": run.settings.get("seed", ""),
                **{key: run.settings.get(key, "") for key in options.show},
                "metric": criterion or "",
                "valid": "" if best is None else format_number(best),
                "test": "" if run.score is None or run.result.get("split") != "test" else format_number(run.score),
                "trivial": "" if trivial is None else format_number(trivial),
                "begun": f"{run.begun:%Y-%m-%d %H:%M}",
            }
        )
    if not rows:
        unmatched = f" matches {' '.join(filters)}{available_values(all_runs, filters)}" if filters else ""
        print(f"no run below {top}{unmatched}")
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
        with atomic_file(options.csv) as file:
            pd.DataFrame(rows).to_csv(file, index=False)
        print(f"table  {options.csv}")
    if options.delete:
        deleted = [run.folder for run in runs if run.state != "running"]
        for folder in deleted:
            shutil.rmtree(folder)
        print(f"deleted {len(deleted)}" + ("; runs in progress were left" if len(deleted) < len(runs) else ""))


if __name__ == "__main__":
    with quick_exit(), one_line():
        main()
