"""The summary that a run prints at the end: backends, scores, and paths of its outputs."""

from collections.abc import Iterable
from itertools import groupby
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import Logger, WandbLogger
from torch import nn

from gt.layers import attention_layers
from gt.train.baseline import classical_verdict, losing_metric, score_table
from gt.train.logging import sync_line


def backends_used(net: nn.Module) -> list[str]:
    """A line for each group of consecutive layers with the same shares of attention backends, by batches."""
    shares = []
    for _, layer in attention_layers(net):
        ranked = layer.used.most_common()
        shares.append(", ".join(f"{name} {count / layer.used.total():.0%}" for name, count in ranked))
    lines, first = [], 0
    for share, group in groupby(shares):
        last = first + len(list(group)) - 1
        lines.append(f"attention in layer{f's {first} to {last}' if last > first else f' {first}'}: {share}")
        first = last + 1
    return lines


def summary(
    folder: Path,
    result: dict[str, Any],
    report: Path,
    loggers: Iterable[Logger],
    backends: Iterable[str] = (),
    reasons: Iterable[str] = (),
) -> str:
    """The final summary: scores beside those of the baselines, and paths of the outputs.

    Args:
        reasons: likely reasons if the run is no better than the trivial baseline.
    """
    lines = ["", *score_table(result)]
    scored, total = result["batches"]
    if scored < total:
        lines.append(f"both on the first {scored} of {total} batches")
    if name := losing_metric(result, result["baseline"]):
        lines.append(f"no better than the trivial baseline by {name}{':' if (listed := list(reasons)) else ''}")
        lines += [f"  {reason}" for reason in listed]
    lines += [verdict] if (verdict := classical_verdict(result)) else []
    lines += [
        "",
        *backends,
        f"run folder  {folder}",
        f"checkpoint  {folder / result['checkpoint'] if result['checkpoint'] else 'none'}",
        f"report      {report}",
    ]
    for logger in loggers:
        if isinstance(logger, WandbLogger) and (line := sync_line(logger)):
            lines.append(f"upload with {line}")
    return "\n".join(lines)
