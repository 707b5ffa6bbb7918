"""What is explained: one graph or text of many, or a node of one large graph with what lies around it."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gt.data.batch_sampler import Request
from gt.data.datamodule import DataModule
from gt.data.graphs import GraphData
from gt.data.large.nodes import NodeData
from gt.data.text.language import LanguageData
from gt.errors import UserError
from gt.graph import GraphBatch
from gt.inference.attribution import Copies
from gt.inference.neighbourhood import hops_read, neighbourhood
from gt.inference.whole_graph import predict
from gt.prediction.asking import speller
from gt.prediction.labels import labels_of
from gt.train.extremes import answer as said
from gt.train.task import Task

MOST = 400  # nodes of a graph
AROUND = 200  # nodes that are looked at around one of a large graph
LONGEST = 60  # name of a node that its page's file is called by: file systems set a limit
SAME = 1e-3  # of an answer, or of the unit in which answers are learned: what does not show in a picture
Speller = Callable[[Tensor], list[str] | None]


@dataclass(frozen=True)
class Subject:
    """One graph, or the part of one, whose answer is to be explained.

    Attributes:
        name: of its page's file; title: for a person.
        copies: a batch of so many of it.
        node: the place of the node whose answer it is; None: the answer is the graph's.
        prediction: (outputs * positions,) the answer; target: (positions or outputs,) the right one, None where it is
            unknown.
        labels: a word for each node; smiles: of a molecule, else None.
        spell: words for classes, see `gt.prediction.asking.speller`.
        note: what a reader has to know of it, or nothing.
    """

    name: str
    title: str
    copies: Copies
    node: int | None
    prediction: Tensor
    target: Tensor | None
    labels: list[str]
    smiles: str | None
    spell: Speller
    note: str = ""


def subject(task: Task, data: DataModule, split: str, sample: int, node: str | None) -> Subject:
    """What the words of a command ask about.

    Args:
        task: a trained one, in eval mode; data: open.
        sample: its number in the split.
        node: where nodes have answers, which one: its name where the data name the nodes of one large graph, else its
            number; None is the last.

    Raises:
        UserError: there is no such split, sample or node; links have the answers; a graph is too large.
    """
    if node is not None and task.schema.level == "graph":
        raise UserError(f"--node {node}: the answer is for the graph as a whole: leave it out")
    if task.schema.level == "link":
        raise UserError("explains the answer for a graph, a text or a node: this model answers for pairs of nodes")
    if isinstance(data, NodeData):
        check_number("--sample", sample, 1)
        return _of_large(task, data, node)
    if not isinstance(data, GraphData | LanguageData):
        raise UserError(f"explains graphs, texts and nodes: {type(data).__name__} has none of them one by one")
    return _of_many(task, data, split, sample, node)


def check_number(option: str, number: int, count: int) -> None:
    """Whether an option is the number of one of so many, from 0.

    Raises:
        UserError: it is not.
    """
    if not 0 <= number < count:
        raise UserError(f"{option} must be {'0' if count == 1 else f'0 to {count - 1:,}'}, not {number}")


def _place(node: str, count: int, names: np.ndarray | None = None) -> int:
    if names is not None:
        known = list(map(str, names))
        if node not in known:
            raise UserError(f"--node {node}: no node is called that; the first is called {known[0]}")
        return known.index(node)
    try:
        place = int(node)
    except ValueError:
        raise UserError(f"--node must be the number of a node, not {node!r}") from None
    check_number("--node", place, count)
    return place


@torch.no_grad()
def _of_many(task: Task, data: GraphData | LanguageData, split: str, sample: int, node: str | None) -> Subject:
    data.check_split(split)
    dataset = data.dataset(split)
    check_number("--sample", sample, len(dataset))
    device = next(task.net.parameters()).device

    def copies(count: int) -> GraphBatch:
        batch: GraphBatch = dataset[Request((sample,) * count)]
        return batch.to(device)

    one = copies(1)
    if one.num_nodes > MOST:
        raise UserError(f"sample {sample} has {one.num_nodes:,} nodes: choose one of {MOST} at most")
    place = None
    if task.schema.level == "node":
        place = one.num_nodes - 1 if node is None else _place(node, one.num_nodes)
    labels, smiles = labels_of(data, dataset, sample, one)
    return Subject(
        name=f"{split}-{sample}",
        title=f"sample {sample} of {split}" + ("" if place is None else f", node {place}"),
        copies=copies,
        node=place,
        prediction=task.net(one)[place or 0].float().cpu(),
        target=None if one.y is None else one.y[place or 0].cpu().reshape(-1),
        labels=labels,
        smiles=smiles,
        spell=speller(data, dataset, np.array([sample]), one),
    )


@torch.no_grad()
def _of_large(task: Task, data: NodeData, node: str | None) -> Subject:
    """A node of one graph, explained by its neighbourhood: as far as the network reads, or as far as there is room."""
    whole = data.whole.batch(data.chunk).to(next(task.net.parameters()).device)
    names = next(reversed(data.source.names(data.graphs).values()), None)
    place = whole.num_nodes - 1 if node is None else _place(node, whole.num_nodes, names)
    around = neighbourhood(whole, place, hops_read(task.net), AROUND)
    prediction = of_part = task.net(around.copies(1))[around.centre].float().cpu()
    near = around.nodes.tolist()
    labels = [str(n) for n in near] if names is None else [str(names[n]) for n in near]
    note = f"{len(near):,} of the graph's {whole.num_nodes:,} nodes are looked at, the nearest by its edges"
    if data.evaluate == "sampled":  # the network may be one that reads no whole graph of this size
        note += ": the answer is that to them alone."
    else:
        prediction = predict(task.net, whole)[place].float().cpu()
        least = SAME * min(task.schema.scale or (1.0,))
        if torch.allclose(of_part, prediction, rtol=SAME, atol=least):
            note += ": by them alone the answer is the same."
        else:
            answer = said(task.schema, of_part)
            note += f". What lies beyond has a say too: by them alone it is {answer}, which is explained here."
    called = labels[around.centre]
    return Subject(
        name=f"node-{called if called.isalnum() and len(called) <= LONGEST else place}",
        title=f"node {called}",
        copies=around.copies,
        node=around.centre,
        prediction=prediction,
        target=torch.from_numpy(np.asarray(data.graphs.nodes["y"][place])).reshape(-1),
        labels=labels,
        smiles=None,
        spell=lambda answers: None,
        note=note,
    )
