"""Encodings are hints: right, absent and wrong ones for the same complete Transformer."""

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
from gt.cli.composing import composed
from gt.cli.demo.runs import begin, opened, settings, trained
from gt.data.picture import write_picture
from gt.encodings import Shuffled
from gt.errors import UserError
from gt.prediction.asking import predict
from gt.prediction.models import Models
from gt.prediction.table import write
from gt.schema import number
from gt.train.network import encodings_of

USUAL = ("data=core_periphery", "data.batch_size=64", "model.width=32", "model.depth=2", "model.block.dropout=0.0",
         "optim.lr=0.002", "trainer.max_epochs=4")  # fmt: skip
RIGHT, ABSENT, WRONG, MISLED = "right", "absent", "wrong", "right, then wrong"
ABOUT = {
    RIGHT: "each node's own",
    ABSENT: "none",
    WRONG: "each graph's, dealt out at random among its nodes",
    MISLED: "trained with the right ones, tested with the wrong ones",
}


def variants(encoding: str, overrides: Sequence[str]) -> dict[str, list[str]]:
    """For each kind of hint the overrides that give it.

    Raises:
        UserError: an encoding that cannot be shuffled.
    """
    entries = composed(check_command([*overrides, f"encoding=[{encoding}]"])).encoding
    if len(entries) != 1:
        raise UserError(f"--encoding {encoding}: choose one encoding that is computed beforehand, such as rwse")
    Shuffled(*encodings_of({"encoding": entries}))  # it may refuse
    (entry,) = entries.values()
    inner = [f"encoding.shuffled.encoding.{key}={_word(value)}" for key, value in entry.items()]
    return {RIGHT: [f"encoding=[{encoding}]"], ABSENT: ["encoding=none"], WRONG: ["encoding=[shuffled]", *inner]}


def _word(value: Any) -> Any:
    """A value of YAML as an override spells it."""
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else value


def misled(folder: Path, seed: int) -> dict[str, float]:
    """The test scores of a model that was trained with the right hints, told wrong ones."""
    task, data = opened(folder)
    (encoding,) = encodings_of(task.hparams["config"])
    task, data = opened(folder, [Shuffled(encoding, seed)])
    return predict(Models([task]), data, data.measures()[0], data.last_split(), torch.device("cpu")).scores


def measured(
    folder: Path, overrides: Sequence[str], kinds: Mapping[str, Sequence[str]], seeds: int
) -> Iterator[tuple[str, int, Any, float]]:
    """For each hint and seed as it is finished: the hint, the seed, the run's result and its test score."""
    for seed in range(seeds):
        for hint, more in kinds.items():
            with redirect_stdout(io.StringIO()):  # each run keeps what it says in its folder
                result = trained(folder / f"{hint}-{seed}", [*overrides, *more, f"seed={seed}"])
            yield hint, seed, result, result["scores"][result["criterion"]]
            if hint == RIGHT:
                yield MISLED, seed, result, misled(folder / f"{hint}-{seed}", seed)[result["criterion"]]


def deviation(values: Sequence[float]) -> float:
    """That of a sample; NaN of one value."""
    return stdev(values) if len(values) > 1 else float("nan")


def table(scores: pd.DataFrame, criterion: str) -> Table:
    """Mean and deviation of each hint, and the differences from no hint, seed by seed."""
    shown = Table("hint", "", title=f"test {criterion}, {scores['seed'].nunique()} seeds")
    for heading in ("mean", "deviation", "less that of no hint"):
        shown.add_column(heading, justify="right")
    by_hint = {hint: scores[scores["hint"] == hint].set_index("seed")["score"] for hint in ABOUT}
    for hint, values in by_hint.items():
        apart = (values - by_hint[ABSENT]).tolist()
        against = "" if hint == ABSENT else f"{fmean(apart):+.4f} ± {deviation(apart):.4f}"
        shown.add_row(hint, ABOUT[hint], number(fmean(values)), f"{deviation(values.tolist()):.4f}", against)
    return shown


def draw(scores: pd.DataFrame, criterion: str, trivial: float, path: Path) -> None:
    """A dot for each run, a bar for each mean."""
    figure = Figure(figsize=(7.5, 3.6), layout="constrained")
    axes = figure.subplots()
    for place, hint in enumerate(ABOUT):
        values = scores.loc[scores["hint"] == hint, "score"]
        axes.barh(place, values.mean(), color="#4477aa" if hint == RIGHT else "#bbbbbb", height=0.6)
        axes.plot(values, [place] * len(values), "k.", ms=5)
        axes.text(values.max(), place, f"  {number(values.mean())}", va="center", fontsize=9)
    axes.axvline(trivial, color="grey", ls="--", lw=1)
    axes.text(trivial, -0.5, " trivial baseline", va="center", fontsize=8, color="grey")
    axes.set_yticks(range(len(ABOUT)), [f"{hint}\n{_folded(about)}" for hint, about in ABOUT.items()], fontsize=8)
    axes.set_xlim(right=1.12 * max(scores["score"].max(), trivial))
    axes.set_ylim(len(ABOUT) - 0.4, -0.75)
    axes.set_xlabel(f"test {criterion}, a dot for each seed")
    axes.set_title("an encoding is a hint: a model trusts it as it has learned to", fontsize=10)
    write_picture(path, figure)


def _folded(text: str, width: int = 34) -> str:
    return "\n".join(textwrap.wrap(text, width))


def demonstrate(encoding: str, words: Sequence[str], seeds: int, folder: Path, console: Console) -> None:
    """Train with each hint, with several seeds, and say what it was worth."""
    overrides = settings(words, USUAL)
    kinds = variants(encoding, overrides)
    begin(folder, [*overrides, *kinds[RIGHT]])
    rows: list[dict[str, Any]] = []
    result: dict[str, Any] = {}
    for hint, seed, result, score in measured(folder, overrides, kinds, seeds):
        console.print(f"hint {hint}, seed {seed}: {result['criterion']} {number(score)}")
        rows.append({"hint": hint, "seed": seed, "score": score})
    scores, criterion = pd.DataFrame(rows), result["criterion"]
    console.print(table(scores, criterion))
    write(scores, folder / "hints.csv")
    draw(scores, criterion, result["baseline"].get(criterion, float("nan")), folder / "hints.png")
    console.print(f"table    {folder / 'hints.csv'}\npicture  {folder / 'hints.png'}", soft_wrap=True)
