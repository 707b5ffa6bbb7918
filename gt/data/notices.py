"""What is worth a line before a run begins: splits that cannot be scored, targets that a logarithm would suit."""

from collections.abc import Mapping

import numpy as np
from torch import Tensor

from gt.data.datamodule import DataModule
from gt.data.numbers import DECADES, decades
from gt.losses import both_answers, undefined
from gt.schema import UNLABELLED, Schema, several

SPLITS = ("train", "valid", "test")


def notices(data: DataModule) -> list[str]:
    """A line for whatever is odd in the targets of open data."""
    schema = data.schema
    if (
        schema.level == "link"
        or schema.positions > 1
        or schema.pointer
        or (schema.tokenizer and schema.level == "node")
    ):
        return []  # pairs drawn to be told from links; choices, not classes; words, of which most are rare
    targets = {split: data.targets(split) for split in SPLITS if data.has(split)}
    if schema.kind == "regression":
        # only where there is something to be done about it
        span = (
            decades(targets["train"].view(len(targets["train"]), -1).numpy())
            if hasattr(data.source, "numbers")
            else 0.0
        )
        if span < DECADES or schema.log:
            return []
        return [f"the targets span {span:.1f} decades: data.log=true would learn their logarithms"]
    return one_sided(schema, targets) if schema.kind == "binary" else one_split(schema, targets)


def one_sided(schema: Schema, targets: Mapping[str, Tensor]) -> list[str]:
    """A line for each split some of whose yes/no tasks have one answer only."""
    lines = []
    for split, target in targets.items():
        target = target.view(len(target), -1)
        tasks = (~both_answers(target)).nonzero().flatten().tolist()
        if schema.outputs == 1 and tasks:
            lines.append(f"the {split} split has {undefined(schema, target)}: auroc and ap are undefined there")
        elif tasks:
            names = [schema.names[task] if schema.names else str(task) for task in tasks]
            lines.append(
                f"in the {split} split {len(tasks)} of {schema.outputs} tasks have one class or no label, and do not "
                f"count in auroc and ap: {several(names, 4)}"
            )
    return lines


def one_split(schema: Schema, targets: Mapping[str, Tensor]) -> list[str]:
    """A line for a split of one class, and one for the classes that are in one split only."""
    counts = {
        split: np.bincount(target[target != UNLABELLED].flatten().numpy(), minlength=schema.outputs)
        for split, target in targets.items()
    }
    names = schema.names or tuple(map(str, range(schema.outputs)))
    lines = [
        f"the {split} split has one class: {names[int(count.argmax())]}"
        for split, count in counts.items()
        if (count > 0).sum() == 1
    ]
    where = {split: count > 0 for split, count in counts.items()}
    alone = [n for n in range(schema.outputs) if sum(bool(has[n]) for has in where.values()) == 1]
    if alone and len(counts) > 1:
        told = [f"{names[n]} ({next(split for split, has in where.items() if has[n])})" for n in alone]
        lines.append(f"{len(alone)} of {schema.outputs} classes are in one split only: {several(told, 4)}")
    return lines
