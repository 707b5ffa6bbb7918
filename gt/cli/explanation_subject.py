"""The subject of an explanation: one of many graphs or texts, or a node of a large graph with its neighbourhood."""

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
from gt.train.extremes import format_prediction
from gt.train.task import Task

MAX_NODES = 400  # of a graph
MAX_NEIGHBOURHOOD = 200  # nodes around one of a large graph
MAX_NAME = 60  # characters of a node name in a file name, which file systems limit
TOLERANCE = 1e-3  # relative to the answer or to the scale of the targets; invisible in a picture
Speller = Callable[[Tensor], list[str] | None]


@dataclass(frozen=True)
class Subject:
    """A graph, or part of one, whose answer is to be explained.

    Attributes:
        name: stem of the page's file name; title: for the reader.
        copies: returns a batch of that many copies of it.
        node: the index of the node that the answer is for; None if it is for the graph.
        prediction: (outputs * positions,) the answer; target: (positions or outputs,) the true one, None if unknown.
        labels: a label for each node; smiles: of a molecule, else None.
        spell: names of classes, see `gt.prediction.asking.speller`.
        note: a note for the reader, or empty.
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
    """The subject that a command asks for.

    Args:
        task: a trained task in eval mode; data: opened data.
        sample: its number in the split.
        node: which node, if the answers are for nodes: its name if the data name the nodes of one large graph, else its
            number; None for the last.

    Raises:
        UserError: there is no such split, sample or node; the answers are for links; a graph is too large.
    """
    if node is not None and task.schema.level == "graph":
        raise UserError(f"--node {node}: this model answers for whole graphs: leave it out")
    if task.schema.level == "link":
        raise UserError("only graphs, texts and nodes can be explained: this model answers for pairs of nodes")
    if isinstance(data, NodeData):
        check_number("--sample", sample, 1)
        return _of_large(task, data, node)
    if not isinstance(data, GraphData | LanguageData):
        raise UserError(f"only graphs, texts and nodes can be explained: {type(data).__name__} has none of them")
    return _of_many(task, data, split, sample, node)


def check_number(option: str, number: int, count: int) -> None:
    """Check that an option is a number from 0 to ``count`` - 1.

    Raises:
        UserError: it is not.
    """
    if not 0 <= number < count:
        raise UserError(f"{option} must be {'0' if count == 1 else f'0 to {count - 1:,}'}, not {number}")


def _node_index(node: str, count: int, names: np.ndarray | None = None) -> int:
    if names is not None:
        node_names = list(map(str, names))
        if node not in node_names:
            raise UserError(f"--node {node}: there is no node of that name; the first is {node_names[0]}")
        return node_names.index(node)
    try:
        index = int(node)
    except ValueError:
        raise UserError(f"--node must be the number of a node, not {node!r}") from None
    check_number("--node", index, count)
    return index


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
    if one.num_nodes > MAX_NODES:
        raise UserError(f"sample {sample} has {one.num_nodes:,} nodes: choose one of at most {MAX_NODES}")
    node_index = None
    if task.schema.level == "node":
        node_index = one.num_nodes - 1 if node is None else _node_index(node, one.num_nodes)
    labels, smiles = labels_of(data, dataset, sample, one)
    return Subject(
        name=f"{split}-{sample}",
        title=f"sample {sample} of {split}" + ("" if node_index is None else f", node {node_index}"),
        copies=copies,
        node=node_index,
        prediction=task.net(one)[node_index or 0].float().cpu(),
        target=None if one.y is None else one.y[node_index or 0].cpu().reshape(-1),
        labels=labels,
        smiles=smiles,
        spell=speller(data, dataset, np.array([sample]), one),
    )


@torch.no_grad()
def _of_large(task: Task, data: NodeData, node: str | None) -> Subject:
    """A node of one large graph with its neighbourhood, up to the receptive field or `MAX_NEIGHBOURHOOD` nodes."""
    whole = data.whole.batch(data.chunk).to(next(task.net.parameters()).device)
    names = next(reversed(data.source.names(data.graphs).values()), None)
    node_index = whole.num_nodes - 1 if node is None else _node_index(node, whole.num_nodes, names)
    part = neighbourhood(whole, node_index, hops_read(task.net), MAX_NEIGHBOURHOOD)
    prediction = partial = task.net(part.copies(1))[part.centre].float().cpu()
    nodes = part.nodes.tolist()
    labels = [str(n) for n in nodes] if names is None else [str(names[n]) for n in nodes]
    note = f"{len(nodes):,} of the graph's {whole.num_nodes:,} nodes are included, the nearest along edges"
    if data.evaluate == "sampled":  # the network may not be able to read a whole graph of this size
        note += ": the answer is for these nodes alone."
    else:
        prediction = predict(task.net, whole)[node_index].float().cpu()
        absolute = TOLERANCE * min(task.schema.scale or (1.0,))
        if torch.allclose(partial, prediction, rtol=TOLERANCE, atol=absolute):
            note += ": the answer for these alone is the same."
        else:
            text = format_prediction(task.schema, partial)
            note += f". Nodes beyond them matter too: for these alone the answer is {text}, which is explained here."
    label = labels[part.centre]
    return Subject(
        name=f"node-{label if label.isalnum() and len(label) <= MAX_NAME else node_index}",
        title=f"node {label}",
        copies=part.copies,
        node=part.centre,
        prediction=prediction,
        target=torch.from_numpy(np.asarray(data.graphs.nodes["y"][node_index])).reshape(-1),
        labels=labels,
        smiles=None,
        spell=lambda answers: None,
        note=note,
    )
