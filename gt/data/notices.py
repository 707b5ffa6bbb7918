"""What is worth a line before a run begins: splits that cannot be scored, targets that a logarithm would suit."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from gt.data.datamodule import DataModule
from gt.data.numbers import DECADES, decades
from gt.errors import UserError
from gt.losses import both_answers, undefined
from gt.schema import UNLABELLED, Schema, several

SPLITS = ("train", "valid", "test")


def targets_of(data: DataModule) -> dict[str, Tensor]:
    """The targets of each split of open data; of none where what they hold says nothing.

    Pairs are drawn to be told from links; choices are no classes; of words most are rare.
    """
    schema = data.schema
    words = schema.tokenizer and schema.level == "node"
    if schema.level == "link" or schema.positions > 1 or schema.pointer or words:
        return {}
    return {split: data.targets(split) for split in SPLITS if data.has(split)}


def decades_of(data: DataModule) -> float:
    """Powers of ten that the numbers to predict of open data span, all splits together; 0 where ``data.log=true`` is
    set, would be refused or is hardly worth it."""
    targets = [target.view(len(target), -1) for target in targets_of(data).values()]
    if not targets or data.schema.log or not hasattr(data.source, "numbers"):
        return 0.0
    span = decades(torch.cat(targets).numpy())
    return span if span >= DECADES else 0.0


def check_varied(data: DataModule) -> None:
    """Whether the targets of open data, all splits together, have two values at least.

    Raises:
        UserError: all that are labelled have the same; of several, in each column.
    """
    schema, targets = data.schema, targets_of(data)
    if not targets:
        return
    first, *_ = targets.values()
    columns = first.view(len(first), -1).shape[1]
    for number in range(columns):  # the first that varies ends the search: there may be many, of many rows
        column = torch.cat([target.view(len(target), columns)[:, number] for target in targets.values()])
        known = column[column != UNLABELLED if schema.kind == "multiclass" else ~column.isnan()]
        if not len(known) or known.min() < known.max():
            return
    name, only = several([f"'{name}'" for name in schema.target or ("y",)], 4), known[0].item()
    if columns > 1:
        raise UserError(f"{name}: each has one value only: there is nothing to learn")
    if schema.kind == "regression":
        raise UserError(f"{name} is {only:g} throughout: there is nothing to learn")
    words = schema.answers[0] if schema.answers else schema.names if schema.kind == "multiclass" else ()
    said = repr(words[int(only)]) if words else f"{only:g}"
    raise UserError(f"{name} has one class only, {said}: there is nothing to tell apart")


def notices(data: DataModule) -> list[str]:
    """A line for whatever is odd in the targets of open data."""
    schema, targets = data.schema, targets_of(data)
    if not targets:
        return []
    if schema.kind == "regression":
        span = decades_of(data)
        return [f"the targets span {span:.1f} decades: data.log=true would learn their logarithms"] if span else []
    if schema.kind == "binary":
        return one_sided(schema, targets)
    chosen = hasattr(data.source, "numbers")  # whether somebody could have said that they are no classes
    return one_split(schema, targets) + (in_no_split(schema, targets) if chosen else [])


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


def in_no_split(schema: Schema, targets: Mapping[str, Tensor]) -> list[str]:
    """A line for classes that no sample has, which keep the numbers of the data: these may be no classes."""
    absent = sorted({*range(schema.outputs)} - {*torch.cat([each.flatten() for each in targets.values()]).tolist()})
    if not absent or schema.names:
        return []
    told = several([str(n) for n in absent], 4)
    return [
        f"{len(absent)} of {schema.outputs} classes are in no split: {told}; where the target measures something, "
        "data.kind=regression learns it as a number"
    ]
