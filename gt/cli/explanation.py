"""Explain the prediction for one sample: the contributions of nodes and edges, and attention by head."""

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from gt.cli.explanation_subject import check_number, subject
from gt.data.datamodule import DataModule
from gt.graph import GraphBatch
from gt.inference import attribution
from gt.train.extremes import format_prediction, format_target
from gt.train.task import Task

RANDOM = 20  # random rankings that a method is compared with
METHODS = {
    "integrated gradients": "the contribution of each node along the path from hidden nodes to the input",
    "occlusion": "the drop in the answer when a node is hidden",
    "attention rollout": "the share of each node in what attention carries to the last layer; always positive",
}


@dataclass(frozen=True)
class Explanation:
    """The explanation of one answer.

    Attributes:
        name: stem of the page's file name.
        title: name of the sample; prediction, target: in words; explained: the number that is explained, in words.
        node: the index of the node that the answer is for; None if it is for the graph.
        batch: the one graph; labels: a label for each node; smiles: of a molecule, else None; is_text: nodes are
            consecutive pieces of text.
        scores: by method, the contribution of each node (n,).
        curves: by method, the answer as the highest-ranked nodes are hidden, from none to all; ``random`` the same for
            random rankings (R, points).
        faithfulness: by method, see `gt.inference.attribution.faithfulness`.
        edges, edge_scores: pairs of nodes (2, K) and the drop in the answer without their edges.
        attention: for each layer its name and weights (H, n, n).
        note: a note for the reader on which nodes were included, or empty.
    """

    name: str
    title: str
    prediction: str
    target: str
    explained: str
    node: int | None
    batch: GraphBatch
    labels: list[str]
    smiles: str | None
    is_text: bool
    scores: dict[str, Tensor]
    curves: dict[str, Tensor]
    random: Tensor
    faithfulness: dict[str, float]
    edges: Tensor
    edge_scores: Tensor
    attention: list[tuple[str, Tensor]]
    note: str = ""

    def node_name(self, n: int) -> str:
        """The label of a node, with its number unless all labels are unique."""
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
        task: a trained task in eval mode; data: opened data.
        output: the class, task or number to explain; None for the predicted class, or else the first.
        sample, node: see `gt.cli.explanation_subject.subject`.
        position: which one of an answer that is a sequence of classes.

    Raises:
        UserError: there is no such sample, node, output or position; the answers are for links; a graph is too large.
    """
    schema, net = task.schema, task.net
    check_number("--position", position, schema.positions)
    source = subject(task, data, split, sample, node)
    copies, node_index = source.copies, source.node
    one = copies(1)
    nodes = one.num_nodes

    def rows(predictions: Tensor) -> Tensor:
        """The explained row of each copy, (C, outputs)."""
        if node_index is not None:
            predictions = predictions.view(-1, nodes, predictions.shape[1])[:, node_index]
        return predictions.view(len(predictions), schema.positions, -1)[:, position]

    prediction = source.prediction.view(schema.positions, -1)[position]
    index = output if output is not None else int(prediction.argmax()) if schema.kind == "multiclass" else 0
    check_number("--output", index, len(prediction))

    def answer(predictions: Tensor) -> Tensor:
        selected = rows(predictions)
        return (selected.log_softmax(1) if schema.kind == "multiclass" else selected)[:, index]

    attention = attribution.attention_weights(net, one)
    scores = {
        "integrated gradients": attribution.integrated_gradients(net, copies, answer),
        "occlusion": attribution.occlusion(net, copies, answer),
    }
    flow = attribution.rollout(attention, nodes, node_index)
    scores |= {} if flow is None else {"attention rollout": flow}
    delete = partial(attribution.deletion, net, copies, answer)
    curves = {name: delete(values.argsort(descending=True)) for name, values in scores.items()}
    generator = torch.Generator().manual_seed(0)
    random = torch.stack([delete(torch.randperm(nodes, generator=generator)) for _ in range(RANDOM)])
    edges, edge_scores = attribution.edge_occlusion(net, copies, answer)
    target = "unknown" if source.target is None else format_target(schema, source.target[position:])
    predicted, name = format_prediction(schema, prediction), schema.names[index] if schema.names else str(index)
    if schema.pointer:  # classes are nodes, which the source may name

        def spell(n: int, default: str) -> str:
            spelled = source.spell(torch.tensor([[n]]))
            return default if spelled is None else spelled[0]

        predicted, name = spell(int(prediction.argmax()), predicted), spell(index, name)
        target = target if target == "unknown" else spell(int(target), target)
    kind = {"multiclass": "log-probability of class", "binary": "logit of task", "regression": "prediction of output"}[
        schema.kind
    ]
    return Explanation(
        name=source.name,
        title=source.title + (f", position {position}" if schema.positions > 1 else ""),
        prediction=predicted,
        target=target,
        explained=f"{kind} {name}",
        node=node_index,
        batch=one.to("cpu"),
        labels=source.labels,
        smiles=source.smiles,
        is_text=bool(schema.tokenizer),
        scores=scores,
        curves=curves,
        random=random,
        faithfulness={name: attribution.faithfulness(curve, random) for name, curve in curves.items()},
        edges=edges,
        edge_scores=edge_scores,
        attention=[(name, weights[:, :nodes, :nodes]) for name, weights in attention],
        note=source.note,
    )
