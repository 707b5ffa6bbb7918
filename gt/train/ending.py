"""What a run says last: what computed it, what it scored, and where everything is."""

from collections.abc import Iterable
from itertools import groupby
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import Logger, WandbLogger
from torch import nn

from gt.layers import attention_layers
from gt.train.baseline import beaten, loses, score_table
from gt.train.logging import sync_line


def backends_used(net: nn.Module) -> list[str]:
    """Which backend computed attention, for each run of layers that were alike, by the share of their batches."""
    shares = []
    for _, layer in attention_layers(net):
        ranked = layer.used.most_common()
        shares.append(", ".join(f"{name} {count / layer.used.total():.0%}" for name, count in ranked))
    lines, first = [], 0
    for share, alike in groupby(shares):
        last = first + len(list(alike)) - 1
        lines.append(f"attention in layer{f's {first} to {last}' if last > first else f' {first}'}: {share}")
        first = last + 1
    return lines


def summary(
    folder: Path,
    result: dict[str, Any],
    report: Path,
    loggers: Iterable[Logger],
    backends: Iterable[str] = (),
    why: Iterable[str] = (),
) -> str:
    """What a run says last: where everything is, and what it scored beside its baselines.

    Args:
        why: reasons for which it may be no better than the trivial one.
    """
    lines = ["", *score_table(result)]
    scored, there = result["batches"]
    if scored < there:
        lines.append(f"both on the first {scored} of {there} batches")
    if name := beaten(result, result["baseline"]):
        lines.append(f"no better than the trivial baseline by {name}{':' if (likely := list(why)) else ''}")
        lines += [f"  {reason}" for reason in likely]
    lines += [lost] if (lost := loses(result)) else []
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
