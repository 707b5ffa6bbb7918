"""The samples with the worst and the best predictions, for inspection: molecules as drawings, texts in full."""

import html
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from gt.data.datamodule import DataModule
from gt.data.graphs import GraphData
from gt.inference.whole_graph import predict
from gt.losses import align, to_network_units
from gt.schema import UNLABELLED, Schema, format_number
from gt.train.page import table
from gt.train.task import Task

MAX_SAMPLES = 20_000  # considered
MAX_TEXT = 300  # characters of a text shown
MAX_VALUES = 4  # tasks or numbers shown for a sample
SIDE = 220  # side of a molecule's drawing in pixels


@dataclass(frozen=True)
class Sample:
    """A graph with its prediction.

    Attributes:
        name: its index in the split, with its name in the source.
        text: the SMILES or text it was made from; empty if unknown.
        picture: drawing of a molecule as PNG.
        prediction, target: human-readable.
        loss: of this sample alone.
    """

    name: str
    text: str
    picture: bytes | None
    prediction: str
    target: str
    loss: float


def sample_losses(schema: Schema, prediction: Tensor, target: Tensor) -> Tensor:
    """The loss of each sample (rows,) in nats, or its absolute error in the unit of the data; NaN without a label.

    With several tasks or numbers this is the mean over the labelled ones, with numbers in units of the schema's scale,
    as the network learns them. With several positions there is a value for each: (rows * positions,).
    """
    prediction, target = align(schema, prediction, target)
    if schema.kind == "multiclass":
        loss = F.cross_entropy(prediction, target, ignore_index=UNLABELLED, reduction="none")
        return loss.where(target != UNLABELLED, torch.nan)
    if schema.kind == "regression":
        if schema.outputs > 1:
            prediction, target = to_network_units(schema, prediction), to_network_units(schema, target)
        return (prediction - target).abs().nanmean(1)
    loss = F.binary_cross_entropy_with_logits(prediction, target.nan_to_num(), reduction="none")
    return loss.where(~target.isnan(), torch.nan).nanmean(1)


@torch.inference_mode()
def extremes(
    task: Task, data: DataModule, split: str, batches: int, count: int = 8
) -> tuple[list[Sample], list[Sample]] | None:
    """The samples with the largest and the smallest loss; None unless samples are graphs with a single answer.

    Args:
        task: a trained task in eval mode.
        batches: number of batches of the split to consider.
        count: number of samples of each kind.
    """
    schema = task.schema
    if not isinstance(data, GraphData) or schema.level != "graph" or schema.positions > 1 or schema.pointer:
        return None
    dataset, device = data.dataset(split), next(task.net.parameters()).device
    rows: list[np.ndarray] = []
    predictions, targets, num_samples = [], [], 0
    for request in islice(data.batches(split), batches):
        batch = dataset[request]
        if batch.y is None or num_samples > MAX_SAMPLES:
            break
        real = slice(batch.num_graphs - batch.padding[0])
        rows.append(np.array(request.samples))
        predictions.append(predict(task.net, batch.to(device)).float().cpu()[real])
        targets.append(batch.y[real])
        num_samples += len(request.samples)
    if not rows:
        return None
    sample, prediction, target = np.concatenate(rows), torch.cat(predictions), torch.cat(targets)
    loss = sample_losses(schema, prediction, target)
    labelled = (~loss.isnan()).nonzero()[:, 0]
    ranked = labelled[loss[labelled].argsort(descending=True, stable=True)]
    if len(ranked) < 2 * count:
        count = len(ranked) // 2
    graphs = data.graphs
    smiles, texts = data.source.smiles_of(graphs), data.source.texts_of(graphs)
    names = next(iter(data.source.names(graphs).values()), None)
    ids = graphs.splits[split]

    def sample_at(row: int) -> Sample:
        graph = int(ids[sample[row]])
        text = (smiles or texts or {graph: ""})[graph]
        return Sample(
            name=_name(int(sample[row]), None if names is None or names[graph] == text else names[graph]),
            text=text if len(text) <= MAX_TEXT else text[:MAX_TEXT] + " ...",
            picture=draw_molecule(text) if smiles else None,
            prediction=format_prediction(schema, prediction[row]),
            target=format_target(schema, target[row]),
            loss=float(loss[row]),
        )

    order = ranked.tolist()
    return [sample_at(row) for row in order[:count]], [sample_at(row) for row in order[len(order) - count :][::-1]]


def _name(index: int, name: object) -> str:
    return str(index) if name is None else f"{index} ({name})"


def format_prediction(schema: Schema, prediction: Tensor) -> str:
    """Format a row (outputs,) of predictions: the class with its probability, the probability of yes, or numbers."""
    if schema.kind == "multiclass":
        best = prediction.softmax(0).max(0)
        return f"{_class_name(schema, int(best.indices))} ({float(best.values):.2f})"
    values = (prediction.sigmoid() if schema.kind == "binary" else prediction).tolist()
    return _format_values(schema, [f"{v:.2f}" if schema.kind == "binary" else format_number(v) for v in values])


def format_target(schema: Schema, target: Tensor) -> str:
    """Format a row of targets; a missing class is ``unknown``."""
    if schema.kind == "multiclass":
        index = int(target.reshape(-1)[0])
        return "unknown" if index == UNLABELLED else _class_name(schema, index)
    answers = schema.answers or (("no", "yes"),) * schema.outputs
    return _format_values(
        schema,
        [
            "-" if np.isnan(v) else answers[n][int(v)] if schema.kind == "binary" else format_number(v)
            for n, v in enumerate(target.reshape(-1).tolist())
        ],
    )


def _class_name(schema: Schema, index: int) -> str:
    return str(schema.names[index]) if schema.names else str(index)


def _format_values(schema: Schema, values: Sequence[str]) -> str:
    """The first few values, each with the name of its output if there are several."""
    if len(values) == 1:
        return values[0]
    names = schema.names or [str(n) for n in range(len(values))]
    present = [f"{name} {value}" for name, value in zip(names, values, strict=True) if value != "-"]
    return ", ".join(present[:MAX_VALUES]) + (", ..." if len(present) > MAX_VALUES else "")


def draw_molecule(smiles: str) -> bytes | None:
    """Draw a molecule as PNG; None without RDKit, or if it cannot parse the SMILES."""
    try:
        from rdkit import Chem, rdBase
        from rdkit.Chem.Draw import rdMolDraw2D
    except ImportError:
        return None
    with rdBase.BlockLogs():
        molecule = Chem.MolFromSmiles(smiles)
    if molecule is None:
        return None
    canvas = rdMolDraw2D.MolDraw2DCairo(SIDE, SIDE)
    rdMolDraw2D.PrepareAndDrawMolecule(canvas, molecule)
    canvas.FinishDrawing()
    return canvas.GetDrawingText()


def page(samples: Sequence[Sample]) -> str:
    """The samples as HTML: a card for each molecule, or else a table."""
    if all(sample.picture for sample in samples):
        return f'<div class="cards">{"".join(map(_card, samples))}</div>'
    rows = ((s.name, s.text, s.prediction, s.target, format_number(s.loss)) for s in samples)
    return table(("sample", "text", "prediction", "target", "loss"), rows, words=("sample", "text"))


def _card(sample: Sample) -> str:
    assert sample.picture is not None
    source = b64encode(sample.picture).decode()
    lines = (
        f"sample {sample.name}, loss {format_number(sample.loss)}",
        f"predicted {sample.prediction}",
        f"true {sample.target}",
    )
    return (
        f'<figure><img alt="{html.escape(sample.text, quote=True)}" src="data:image/png;base64,{source}">'
        f"<figcaption>{'<br>'.join(map(html.escape, lines))}</figcaption></figure>"
    )
