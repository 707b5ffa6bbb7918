"""A sweep's last word: its jobs, ranked."""

import json
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table

from gt.run import RESULT


def ranked(folder: Path) -> list[dict[str, Any]]:
    """The results of every finished job of a sweep folder, best first."""
    results = [json.loads(path.read_text()) | {"job": path.parent.name} for path in folder.glob(f"*/{RESULT}")]
    sign = -1 if results and results[0]["mode"] == "max" else 1
    return sorted(results, key=lambda result: sign * (result["best_valid"] or result["scores"][result["criterion"]]))


def table(results: list[dict[str, Any]]) -> Table:
    """One row a job: rank, what was overridden, its best validation value and its final scores."""
    criterion, split = results[0]["criterion"], results[0]["split"]
    out = Table(title="jobs, best first")
    for name in ("rank", "job", "overrides", f"valid {criterion}", f"{split} {criterion}", "trivial baseline"):
        out.add_column(name, overflow="fold", justify="left" if name == "overrides" else "right")
    for rank, result in enumerate(results, 1):
        numbers = (result["best_valid"], result["scores"][criterion], result["baseline"][criterion])
        shown = ["-" if n is None else f"{n:.4f}" for n in numbers]
        out.add_row(str(rank), result["job"], " ".join(result["overrides"]), *shown)
    return out


class Ranking(Callback):
    """Prints the ranked table when a multirun ends, and keeps it as ``ranking.txt`` in the sweep's folder."""

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        folder = Path(config.hydra.sweep.dir)
        results = ranked(folder)
        if not results:
            return
        Console().print(table(results))
        with open(folder / "ranking.txt", "w") as handle:
            Console(file=handle, width=160).print(table(results))
        print(f"sweep folder  {folder}\nranking       {folder / 'ranking.txt'}", flush=True)
