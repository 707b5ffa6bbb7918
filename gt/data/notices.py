"""Notices before a run: splits that cannot be scored, targets that would benefit from logarithms, and the like."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from gt.data.datamodule import DataModule
from gt.data.numbers import DECADES, decades
from gt.errors import UserError
from gt.losses import both_answers, undefined_reason
from gt.schema import UNLABELLED, Schema, format_list

SPLITS = ("train", "valid", "test")


def targets_of(data: DataModule) -> dict[str, Tensor]:
    """The targets of each split of open data; empty if their distribution means little.

    That is so for links (negatives are sampled), for pointers and sequences (not fixed classes), and for words (most
    are rare).
    """
    schema = data.schema
    words = schema.tokenizer and schema.level == "node"
    if schema.level == "link" or schema.positions > 1 or schema.pointer or words:
        return {}
    return {split: data.targets(split) for split in SPLITS if data.has(split)}


def decades_of(data: DataModule) -> float:
    """The powers of ten that the numeric targets of open data span over all splits; 0 if ``data.log=true`` is already
    set, would be refused or is hardly worth it."""
    targets = [target.view(len(target), -1) for target in targets_of(data).values()]
    if not targets or data.schema.log or not hasattr(data.source, "numbers"):
        return 0.0
    span = decades(torch.cat(targets).numpy())
    return span if span >= DECADES else 0.0


def check_varied(data: DataModule) -> None:
    """Check that the targets of open data are not constant over all splits.

    Raises:
        UserError: all labelled targets have the same value, in every column.
    """
    schema, targets = data.schema, targets_of(data)
    if not targets:
        return
    first, *_ = targets.values()
    columns = first.view(len(first), -1).shape[1]
    for number in range(columns):  # stops at the first column that varies: there may be many columns and rows
        column = torch.cat([target.view(len(target), columns)[:, number] for target in targets.values()])
        labelled = column[column != UNLABELLED if schema.kind == "multiclass" else ~column.isnan()]
        if not len(labelled) or labelled.min() < labelled.max():
            return
    name, only = format_list([f"'{name}'" for name in schema.target or ("y",)], 4), labelled[0].item()
    if columns > 1:
        raise UserError(f"{name}: each has only one value: there is nothing to learn")
    if schema.kind == "regression":
        raise UserError(f"{name} is always {only:g}: there is nothing to learn")
    words = schema.answers[0] if schema.answers else schema.names if schema.kind == "multiclass" else ()
    label = repr(words[int(only)]) if words else f"{only:g}"
    raise UserError(f"{name} has only one class, {label}: there is nothing to learn")


def notices(data: DataModule) -> list[str]:
    """A line for each oddity in the targets of open data."""
    schema, targets = data.schema, targets_of(data)
    if not targets:
        return []
    if schema.kind == "regression":
        span = decades_of(data)
        return [f"the targets span {span:.1f} decades: data.log=true would learn their logarithms"] if span else []
    if schema.kind == "binary":
        return one_sided(schema, targets)
    adjustable = hasattr(data.source, "numbers")  # whether the user could have set data.kind=regression
    return one_split(schema, targets) + (in_no_split(schema, targets) if adjustable else [])


def one_sided(schema: Schema, targets: Mapping[str, Tensor]) -> list[str]:
    """A line for each split in which some yes/no tasks have only one class."""
    lines = []
    for split, target in targets.items():
        target = target.view(len(target), -1)
        tasks = (~both_answers(target)).nonzero().flatten().tolist()
        if schema.outputs == 1 and tasks:
            lines.append(f"the {split} split has {undefined_reason(schema, target)}: auroc and ap are undefined there")
        elif tasks:
            names = [schema.names[task] if schema.names else str(task) for task in tasks]
            lines.append(
                f"in the {split} split {len(tasks)} of {schema.outputs} tasks have one class or no label, and are left "
                f"out of auroc and ap: {format_list(names, 4)}"
            )
    return lines


def one_split(schema: Schema, targets: Mapping[str, Tensor]) -> list[str]:
    """A line for each split with a single class, and one for the classes that occur in a single split."""
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
    present = {split: count > 0 for split, count in counts.items()}
    exclusive = [n for n in range(schema.outputs) if sum(bool(has[n]) for has in present.values()) == 1]
    if exclusive and len(counts) > 1:
        listed = [f"{names[n]} ({next(split for split, has in present.items() if has[n])})" for n in exclusive]
        lines.append(f"{len(exclusive)} of {schema.outputs} classes are in only one split: {format_list(listed, 4)}")
    return lines


def in_no_split(schema: Schema, targets: Mapping[str, Tensor]) -> list[str]:
    """A line for numbered classes that no sample has: the numbers may not be classes."""
    absent = sorted({*range(schema.outputs)} - {*torch.cat([target.flatten() for target in targets.values()]).tolist()})
    if not absent or schema.names:
        return []
    listed = format_list([str(n) for n in absent], 4)
    return [
        f"{len(absent)} of {schema.outputs} classes are in no split: {listed}; if the target measures something, "
        "data.kind=regression learns it as a number"
    ]
