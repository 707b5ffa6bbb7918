"""The samples that a trained network answers worst and best, to be looked at: molecules drawn, texts whole."""

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
from gt.losses import aligned, learned
from gt.schema import UNLABELLED, Schema, number
from gt.train.page import table
from gt.train.task import Task

MOST = 20_000  # samples that are looked at
LONGEST = 300  # characters of a text that are shown
FEW = 4  # tasks or numbers of a sample that are shown
SIDE = 220  # pixels of a drawn molecule


@dataclass(frozen=True)
class Sample:
    """One graph with its answer.

    Attributes:
        name: its number in the split, with what the source calls it.
        text: what it was made of, empty where that is not known.
        picture: of a molecule, a PNG file.
        prediction, target: as a person reads them.
        loss: of this sample alone.
    """

    name: str
    text: str
    picture: bytes | None
    prediction: str
    target: str
    loss: float


def losses(schema: Schema, prediction: Tensor, target: Tensor) -> Tensor:
    """The loss of each sample (rows,), NaN where it has no label: in nats, or the absolute error in the data's unit.

    Of several tasks or numbers it is the mean over those with a label; numbers, whose units may differ, then count as
    the network learns them, in units of the schema's scale. Of several positions (rows * positions,): each counts by
    itself.
    """
    prediction, target = aligned(schema, prediction, target)
    if schema.kind == "multiclass":
        each = F.cross_entropy(prediction, target, ignore_index=UNLABELLED, reduction="none")
        return each.where(target != UNLABELLED, torch.nan)
    if schema.kind == "regression":
        if schema.outputs > 1:
            prediction, target = learned(schema, prediction), learned(schema, target)
        return (prediction - target).abs().nanmean(1)
    each = F.binary_cross_entropy_with_logits(prediction, target.nan_to_num(), reduction="none")
    return each.where(~target.isnan(), torch.nan).nanmean(1)


@torch.inference_mode()
def extremes(
    task: Task, data: DataModule, split: str, batches: int, count: int = 8
) -> tuple[list[Sample], list[Sample]] | None:
    """The samples with the largest and with the smallest loss; None where samples are not graphs with one answer.

    Args:
        task: a trained one, in eval mode.
        batches: of the split that are looked at.
        count: of each.
    """
    schema = task.schema
    if not isinstance(data, GraphData) or schema.level != "graph" or schema.positions > 1 or schema.pointer:
        return None
    dataset, device = data.dataset(split), next(task.net.parameters()).device
    rows: list[np.ndarray] = []
    predictions, targets, seen = [], [], 0
    for request in islice(data.batches(split), batches):
        batch = dataset[request]
        if batch.y is None or seen > MOST:
            break
        real = slice(batch.num_graphs - batch.padding[0])
        rows.append(np.array(request.samples))
        predictions.append(predict(task.net, batch.to(device)).float().cpu()[real])
        targets.append(batch.y[real])
        seen += len(request.samples)
    if not rows:
        return None
    sample, prediction, target = np.concatenate(rows), torch.cat(predictions), torch.cat(targets)
    loss = losses(schema, prediction, target)
    known = (~loss.isnan()).nonzero()[:, 0]
    ranked = known[loss[known].argsort(descending=True, stable=True)]
    if len(ranked) < 2 * count:
        count = len(ranked) // 2
    graphs = data.graphs
    smiles, texts = data.source.smiles_of(graphs), data.source.texts_of(graphs)
    names = next(iter(data.source.names(graphs).values()), None)
    ids = graphs.splits[split]

    def shown(row: int) -> Sample:
        graph = int(ids[sample[row]])
        text = (smiles or texts or {graph: ""})[graph]
        return Sample(
            name=_name(int(sample[row]), None if names is None or names[graph] == text else names[graph]),
            text=text if len(text) <= LONGEST else text[:LONGEST] + " ...",
            picture=drawn(text) if smiles else None,
            prediction=answer(schema, prediction[row]),
            target=truth(schema, target[row]),
            loss=float(loss[row]),
        )

    order = ranked.tolist()
    return [shown(row) for row in order[:count]], [shown(row) for row in order[len(order) - count :][::-1]]


def _name(place: int, known: object) -> str:
    return str(place) if known is None else f"{place} ({known})"


def answer(schema: Schema, prediction: Tensor) -> str:
    """A row (outputs,) of predictions: the class with its probability, the probability of yes, or numbers."""
    if schema.kind == "multiclass":
        best = prediction.softmax(0).max(0)
        return f"{_class(schema, int(best.indices))} ({float(best.values):.2f})"
    values = (prediction.sigmoid() if schema.kind == "binary" else prediction).tolist()
    return _several(schema, [f"{v:.2f}" if schema.kind == "binary" else number(v) for v in values])


def truth(schema: Schema, target: Tensor) -> str:
    """A row of targets; that of a sample without a class is ``unknown``."""
    if schema.kind == "multiclass":
        place = int(target.reshape(-1)[0])
        return "unknown" if place == UNLABELLED else _class(schema, place)
    words = schema.answers or (("no", "yes"),) * schema.outputs
    return _several(
        schema,
        [
            "-" if np.isnan(v) else words[n][int(v)] if schema.kind == "binary" else number(v)
            for n, v in enumerate(target.reshape(-1).tolist())
        ],
    )


def _class(schema: Schema, place: int) -> str:
    return str(schema.names[place]) if schema.names else str(place)


def _several(schema: Schema, values: Sequence[str]) -> str:
    """Values of a few outputs, each with its name where there are several."""
    if len(values) == 1:
        return values[0]
    names = schema.names or [str(n) for n in range(len(values))]
    known = [f"{name} {value}" for name, value in zip(names, values, strict=True) if value != "-"]
    return ", ".join(known[:FEW]) + (", ..." if len(known) > FEW else "")


def drawn(smiles: str) -> bytes | None:
    """A molecule as a PNG file; None without RDKit, or where it cannot read the molecule."""
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
    """HTML: a card for each molecule, a row for each of other samples."""
    if all(each.picture for each in samples):
        return f'<div class="cards">{"".join(map(_card, samples))}</div>'
    rows = ((each.name, each.text, each.prediction, each.target, number(each.loss)) for each in samples)
    return table(("sample", "text", "prediction", "target", "loss"), rows, words=("sample", "text"))


def _card(sample: Sample) -> str:
    assert sample.picture is not None
    source = b64encode(sample.picture).decode()
    lines = (f"sample {sample.name}, loss {number(sample.loss)}", f"said {sample.prediction}", f"true {sample.target}")
    return (
        f'<figure><img alt="{html.escape(sample.text, quote=True)}" src="data:image/png;base64,{source}">'
        f"<figcaption>{'<br>'.join(map(html.escape, lines))}</figcaption></figure>"
    )
