"""Why a network says what it says of one sample: what each node, edge and head has to do with it."""

from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from gt.data.batch_sampler import Request
from gt.data.datamodule import DataModule
from gt.data.graphs import GraphData
from gt.data.text.language import LanguageData
from gt.errors import UserError
from gt.graph import GraphBatch
from gt.inference import attribution
from gt.prediction.asking import speller
from gt.prediction.labels import labels_of
from gt.train.extremes import answer as said
from gt.train.extremes import truth
from gt.train.task import Task

RANDOM = 20  # random rankings that a method is held against
MOST = 400  # nodes of a graph
METHODS = {
    "integrated gradients": "what each node adds, on the way from hidden nodes to what they are",
    "occlusion": "by how much the answer falls where a node is hidden",
    "attention rollout": "the share of each node in what attention carries to the last layer; always positive",
}


@dataclass(frozen=True)
class Explanation:
    """Why one answer.

    Attributes:
        title: the sample; prediction, target: as a person reads them; of: the number that is explained.
        batch: the one graph; labels: a word for each node; smiles: of a molecule, else None; is_text: nodes are pieces
            of text in their order.
        scores: by method (n,) what each node contributes.
        curves: by method the answer as the nodes that it ranks highest are hidden, from none to all; ``random`` the
            same by random rankings (R, points).
        faithful: by method, see `gt.inference.attribution.faithfulness`.
        edges, edge_scores: pairs of nodes (2, K) and by how much the answer falls without their edges.
        attention: for each layer its name and weights (H, n, n).
    """

    title: str
    prediction: str
    target: str
    of: str
    batch: GraphBatch
    labels: list[str]
    smiles: str | None
    is_text: bool
    scores: dict[str, Tensor]
    curves: dict[str, Tensor]
    random: Tensor
    faithful: dict[str, float]
    edges: Tensor
    edge_scores: Tensor
    attention: list[tuple[str, Tensor]]


def check_number(option: str, number: int, count: int) -> None:
    """Whether an option is the number of one of so many, from 0.

    Raises:
        UserError: it is not.
    """
    if not 0 <= number < count:
        raise UserError(f"{option} must be {'0' if count == 1 else f'0 to {count - 1:,}'}, not {number}")


def explain(
    task: Task,
    data: DataModule,
    split: str,
    sample: int,
    output: int | None = None,
    node: int | None = None,
    position: int = 0,
) -> Explanation:
    """Explain the answer to one sample of a split.

    Args:
        task: a trained one, in eval mode; data: open.
        output: the class, task or number that is explained; None is the predicted class, or the first.
        node: where nodes have answers, which one; None is the last.
        position: of an answer that is a sequence of classes, which of them.

    Raises:
        UserError: the data are one large graph, or there is no such sample, node, output or position.
    """
    if not isinstance(data, GraphData | LanguageData):
        raise UserError("explains one graph or text among many: these data are a single graph")
    if task.schema.level == "link":
        raise UserError("explains the answer for a graph, a text or a node: this model answers for pairs of nodes")
    data.check_split(split)
    schema, dataset = task.schema, data.dataset(split)
    check_number("--sample", sample, len(dataset))
    device = next(task.net.parameters()).device

    def copies(count: int) -> GraphBatch:
        batch: GraphBatch = dataset[Request((sample,) * count)]
        return batch.to(device)

    one = copies(1)
    if one.num_nodes > MOST:
        raise UserError(f"sample {sample} has {one.num_nodes:,} nodes: choose one of {MOST} at most")
    by_node = schema.level == "node"
    place = one.num_nodes - 1 if node is None else node
    check_number("--node", place, one.num_nodes)
    check_number("--position", position, schema.positions)

    def rows(predictions: Tensor) -> Tensor:
        """(C, outputs) of the row that is explained, for each copy."""
        if by_node:
            predictions = predictions.view(-1, one.num_nodes, predictions.shape[1])[:, place]
        return predictions.view(len(predictions), schema.positions, -1)[:, position]

    with torch.no_grad():
        prediction = rows(task.net(one))[0].float().cpu()
    which = output if output is not None else int(prediction.argmax()) if schema.kind == "multiclass" else 0
    check_number("--output", which, len(prediction))

    def answer(predictions: Tensor) -> Tensor:
        chosen = rows(predictions)
        return (chosen.log_softmax(1) if schema.kind == "multiclass" else chosen)[:, which]

    net, nodes = task.net, one.num_nodes
    attention = attribution.attention_weights(net, one)
    scores = {
        "integrated gradients": attribution.integrated_gradients(net, copies, answer),
        "occlusion": attribution.occlusion(net, copies, answer),
    }
    flow = attribution.rollout(attention, nodes, place if by_node else None)
    scores |= {} if flow is None else {"attention rollout": flow}
    delete = partial(attribution.deletion, net, copies, answer)
    curves = {name: delete(values.argsort(descending=True)) for name, values in scores.items()}
    draw = torch.Generator().manual_seed(0)
    random = torch.stack([delete(torch.randperm(nodes, generator=draw)) for _ in range(RANDOM)])
    edges, edge_scores = attribution.edge_occlusion(net, copies, answer)
    target = "unknown" if one.y is None else truth(schema, one.y[place if by_node else 0].cpu().reshape(-1)[position:])
    told, name = said(schema, prediction), schema.names[which] if schema.names else str(which)
    if schema.pointer:  # classes are nodes, which the source knows by name
        spell = speller(data, dataset, np.array([sample]), one)

        def word(n: int, otherwise: str) -> str:
            words = spell(torch.tensor([[n]]))
            return otherwise if words is None else words[0]

        told, name = word(int(prediction.argmax()), told), word(which, name)
        target = target if target == "unknown" else word(int(target), target)
    labels, smiles = labels_of(data, dataset, sample, one)
    kind = {"multiclass": "log-probability of class", "binary": "logit of task", "regression": "prediction of output"}[
        schema.kind
    ]
    return Explanation(
        title=f"sample {sample} of {split}"
        + (f", node {place}" if by_node else "")
        + (f", position {position}" if schema.positions > 1 else ""),
        prediction=told,
        target=target,
        of=f"{kind} {name}",
        batch=one.to("cpu"),
        labels=labels,
        smiles=smiles,
        is_text=bool(schema.tokenizer),
        scores=scores,
        curves=curves,
        random=random,
        faithful={name: attribution.faithfulness(curve, random) for name, curve in curves.items()},
        edges=edges,
        edge_scores=edge_scores,
        attention=[(name, weights[:, :nodes, :nodes]) for name, weights in attention],
    )
