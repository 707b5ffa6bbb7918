"""Encodings as hints: the same Transformer with right, absent and wrong encodings."""

import io
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import pandas as pd
import torch
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from gt.cli.command import check_command
from gt.cli.composing import compose_config
from gt.cli.demo.runs import begin, open_run, settings, train_once
from gt.data.picture import write_picture
from gt.encodings import Shuffled
from gt.errors import UserError
from gt.prediction.asking import predict
from gt.prediction.models import Models
from gt.prediction.table import write
from gt.schema import format_number
from gt.train.network import encodings_of

USUAL = ("data=core_periphery", "data.batch_size=64", "model.width=32", "model.depth=2", "model.block.dropout=0.0",
         "optim.lr=0.002", "trainer.max_epochs=4")  # fmt: skip
RIGHT, ABSENT, WRONG, MISLED = "right", "absent", "wrong", "right, then wrong"
DESCRIPTIONS = {
    RIGHT: "each node's own",
    ABSENT: "none",
    WRONG: "each graph's, shuffled among its nodes",
    MISLED: "trained with the right ones, tested with the wrong ones",
}


def variants(encoding: str, overrides: Sequence[str]) -> dict[str, list[str]]:
    """The overrides for each kind of hint.

    Raises:
        UserError: the encoding cannot be shuffled.
    """
    entries = compose_config(check_command([*overrides, f"encoding=[{encoding}]"])).encoding
    if len(entries) != 1:
        raise UserError(f"--encoding {encoding}: choose one precomputed encoding, such as rwse")
    Shuffled(*encodings_of({"encoding": entries}))  # raises if it cannot be shuffled
    (entry,) = entries.values()
    inner = [f"encoding.shuffled.encoding.{key}={_spell(value)}" for key, value in entry.items()]
    return {
        RIGHT: [f"encoding=[{encoding}]"],
        ABSENT: ["encoding=none"],
        WRONG: ["encoding=[shuffled]", *inner],
    }


def _spell(value: Any) -> Any:
    """Spell a YAML value in an override."""
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else value


def scores_when_misled(folder: Path, seed: int) -> dict[str, float]:
    """The test scores with wrong hints of a model trained with right ones."""
    task, data = open_run(folder)
    (encoding,) = encodings_of(task.hparams["config"])
    task, data = open_run(folder, [Shuffled(encoding, seed)])
    return predict(Models([task]), data, data.measures()[0], data.last_split(), torch.device("cpu")).scores


def measure(
    folder: Path, overrides: Sequence[str], kinds: Mapping[str, Sequence[str]], seeds: int
) -> Iterator[tuple[str, int, Any, float]]:
    """Train with each hint and seed; yields the hint, the seed, the result of the run and its test score."""
    for seed in range(seeds):
        for hint, hint_overrides in kinds.items():
            with redirect_stdout(io.StringIO()):  # each run keeps a log in its folder
                result = train_once(folder / f"{hint}-{seed}", [*overrides, *hint_overrides, f"seed={seed}"])
            yield hint, seed, result, result["scores"][result["criterion"]]
            if hint == RIGHT:
                yield MISLED, seed, result, scores_when_misled(folder / f"{hint}-{seed}", seed)[result["criterion"]]


def deviation(values: Sequence[float]) -> float:
    """Sample standard deviation; NaN for one value."""
    return stdev(values) if len(values) > 1 else float("nan")


def table(scores: pd.DataFrame, criterion: str) -> Table:
    """Mean and deviation for each hint, and differences from no hint, paired by seed."""
    out = Table("hint", "", title=f"test {criterion}, {scores['seed'].nunique()} seeds")
    for heading in ("mean", "deviation", "minus no hint"):
        out.add_column(heading, justify="right")
    by_hint = {hint: scores[scores["hint"] == hint].set_index("seed")["score"] for hint in DESCRIPTIONS}
    for hint, values in by_hint.items():
        differences = (values - by_hint[ABSENT]).tolist()
        difference = "" if hint == ABSENT else f"{fmean(differences):+.4f} ± {deviation(differences):.4f}"
        out.add_row(
            hint, DESCRIPTIONS[hint], format_number(fmean(values)), f"{deviation(values.tolist()):.4f}", difference
        )
    return out


def draw(scores: pd.DataFrame, criterion: str, trivial: float, path: Path) -> None:
    """Plot a dot for each run and a bar for each mean."""
    figure = Figure(figsize=(7.5, 3.6), layout="constrained")
    axes = figure.subplots()
    for row, hint in enumerate(DESCRIPTIONS):
        values = scores.loc[scores["hint"] == hint, "score"]
        axes.barh(row, values.mean(), color="#4477aa" if hint == RIGHT else "#bbbbbb", height=0.6)
        axes.plot(values, [row] * len(values), "k.", ms=5)
        axes.text(values.max(), row, f"  {format_number(values.mean())}", va="center", fontsize=9)
    axes.axvline(trivial, color="grey", ls="--", lw=1)
    axes.text(trivial, -0.5, " trivial baseline", va="center", fontsize=8, color="grey")
    axes.set_yticks(
        range(len(DESCRIPTIONS)),
        [f"{hint}\n{_wrap(text)}" for hint, text in DESCRIPTIONS.items()],
        fontsize=8,
    )
    axes.set_xlim(right=1.12 * max(scores["score"].max(), trivial))
    axes.set_ylim(len(DESCRIPTIONS) - 0.4, -0.75)
    axes.set_xlabel(f"test {criterion}, a dot for each seed")
    axes.set_title("an encoding is a hint, which a model learns to trust", fontsize=10)
    write_picture(path, figure)


def _wrap(text: str, width: int = 34) -> str:
    return "\n".join(textwrap.wrap(text, width))


def demonstrate(encoding: str, arguments: Sequence[str], seeds: int, folder: Path, console: Console) -> None:
    """Train with each hint and several seeds, and compare the test scores."""
    overrides = settings(arguments, USUAL)
    kinds = variants(encoding, overrides)
    begin(folder, [*overrides, *kinds[RIGHT]])
    rows: list[dict[str, Any]] = []
    result: dict[str, Any] = {}
    for hint, seed, result, score in measure(folder, overrides, kinds, seeds):
        console.print(f"hint {hint}, seed {seed}: {result['criterion']} {format_number(score)}")
        rows.append({"hint": hint, "seed": seed, "score": score})
    scores, criterion = pd.DataFrame(rows), result["criterion"]
    console.print(table(scores, criterion))
    write(scores, folder / "hints.csv")
    draw(scores, criterion, result["baseline"].get(criterion, float("nan")), folder / "hints.png")
    console.print(f"table    {folder / 'hints.csv'}\npicture  {folder / 'hints.png'}", soft_wrap=True)
