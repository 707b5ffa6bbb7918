"""Why a network says what it says of one sample: what each node, edge and head has to do with it."""

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from gt.cli.explanation_subject import check_number, subject
from gt.data.datamodule import DataModule
from gt.graph import GraphBatch
from gt.inference import attribution
from gt.train.extremes import answer as said
from gt.train.extremes import truth
from gt.train.task import Task

RANDOM = 20  # random rankings that a method is held against
METHODS = {
    "integrated gradients": "what each node adds, on the way from hidden nodes to what they are",
    "occlusion": "by how much the answer falls where a node is hidden",
    "attention rollout": "the share of each node in what attention carries to the last layer; always positive",
}


@dataclass(frozen=True)
class Explanation:
    """Why one answer.

    Attributes:
        name: of its page's file.
        title: the sample; prediction, target: as a person reads them; of: the number that is explained.
        node: the place of the node whose answer it is, None where it is the graph's.
        batch: the one graph; labels: a word for each node; smiles: of a molecule, else None; is_text: nodes are pieces
            of text in their order.
        scores: by method (n,) what each node contributes.
        curves: by method the answer as the nodes that it ranks highest are hidden, from none to all; ``random`` the
            same by random rankings (R, points).
        faithful: by method, see `gt.inference.attribution.faithfulness`.
        edges, edge_scores: pairs of nodes (2, K) and by how much the answer falls without their edges.
        attention: for each layer its name and weights (H, n, n).
        note: what a reader has to know of what was looked at, or nothing.
    """

    name: str
    title: str
    prediction: str
    target: str
    of: str
    node: int | None
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
    note: str = ""

    def called(self, n: int) -> str:
        """A node by its label, with its number where several have that label."""
        label = self.labels[n]
        return label if len(set(self.labels)) == len(self.labels) else f"{label} ({n})"


def explain(
    task: Task,
    data: DataModule,
    split: str,
    sample: int,
    output: int | None = None,
    node: str | None = None,
    position: int = 0,
) -> Explanation:
    """Explain the answer to one sample of a split, or for one node of a large graph.

    Args:
        task: a trained one, in eval mode; data: open.
        output: the class, task or number that is explained; None is the predicted class, or the first.
        sample, node: see `gt.cli.explanation_subject.subject`.
        position: of an answer that is a sequence of classes, which of them.

    Raises:
        UserError: there is no such sample, node, output or position; links have the answers; a graph is too large.
    """
    schema, net = task.schema, task.net
    check_number("--position", position, schema.positions)
    of = subject(task, data, split, sample, node)
    copies, place = of.copies, of.node
    one = copies(1)
    nodes = one.num_nodes

    def rows(predictions: Tensor) -> Tensor:
        """(C, outputs) of the row that is explained, for each copy."""
        if place is not None:
            predictions = predictions.view(-1, nodes, predictions.shape[1])[:, place]
        return predictions.view(len(predictions), schema.positions, -1)[:, position]

    prediction = of.prediction.view(schema.positions, -1)[position]
    which = output if output is not None else int(prediction.argmax()) if schema.kind == "multiclass" else 0
    check_number("--output", which, len(prediction))

    def answer(predictions: Tensor) -> Tensor:
        chosen = rows(predictions)
        return (chosen.log_softmax(1) if schema.kind == "multiclass" else chosen)[:, which]

    attention = attribution.attention_weights(net, one)
    scores = {
        "integrated gradients": attribution.integrated_gradients(net, copies, answer),
        "occlusion": attribution.occlusion(net, copies, answer),
    }
    flow = attribution.rollout(attention, nodes, place)
    scores |= {} if flow is None else {"attention rollout": flow}
    delete = partial(attribution.deletion, net, copies, answer)
    curves = {name: delete(values.argsort(descending=True)) for name, values in scores.items()}
    draw = torch.Generator().manual_seed(0)
    random = torch.stack([delete(torch.randperm(nodes, generator=draw)) for _ in range(RANDOM)])
    edges, edge_scores = attribution.edge_occlusion(net, copies, answer)
    target = "unknown" if of.target is None else truth(schema, of.target[position:])
    told, name = said(schema, prediction), schema.names[which] if schema.names else str(which)
    if schema.pointer:  # classes are nodes, which the source knows by name

        def word(n: int, otherwise: str) -> str:
            words = of.spell(torch.tensor([[n]]))
            return otherwise if words is None else words[0]

        told, name = word(int(prediction.argmax()), told), word(which, name)
        target = target if target == "unknown" else word(int(target), target)
    kind = {"multiclass": "log-probability of class", "binary": "logit of task", "regression": "prediction of output"}[
        schema.kind
    ]
    return Explanation(
        name=of.name,
        title=of.title + (f", position {position}" if schema.positions > 1 else ""),
        prediction=told,
        target=target,
        of=f"{kind} {name}",
        node=place,
        batch=one.to("cpu"),
        labels=of.labels,
        smiles=of.smiles,
        is_text=bool(schema.tokenizer),
        scores=scores,
        curves=curves,
        random=random,
        faithful={name: attribution.faithfulness(curve, random) for name, curve in curves.items()},
        edges=edges,
        edge_scores=edge_scores,
        attention=[(name, weights[:, :nodes, :nodes]) for name, weights in attention],
        note=of.note,
    )
