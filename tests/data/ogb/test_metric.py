"""OGBMetric, against OGB's own Evaluator."""

import sys
import threading

import pytest
import torch
from torchmetrics import MetricCollection

from gt.data.ogb.metric import OGBMetric

sys.modules.setdefault("outdated", None)  # type: ignore[arg-type]
from ogb.graphproppred import Evaluator  # noqa: E402


def random_samples(tasks: int, rows: int = 60, regression: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(tasks)
    preds = torch.randn(rows, tasks, generator=generator)
    target = torch.randn(rows, tasks, generator=generator)
    return preds, target if regression else (target > 0.5).float()


@pytest.mark.parametrize(
    ("name", "tasks", "measure"),
    [
        ("ogbg-molhiv", 1, "rocauc"),
        ("ogbg-moltox21", 12, "rocauc"),
        ("ogbg-molmuv", 17, "ap"),
        ("ogbg-mollipo", 1, "rmse"),
    ],
)
def test_metric_matches_evaluator(name: str, tasks: int, measure: str) -> None:
    preds, target = random_samples(tasks, regression=measure == "rmse")
    target[5:9, 0] = torch.nan
    target[:, 1:2] = torch.nan
    whole, batched = OGBMetric(name), OGBMetric(name)
    assert (whole.measure, whole.higher_is_better) == (measure, measure != "rmse")
    whole.update(preds, target)
    for rows in torch.arange(len(preds)).split([1, 20, 39]):
        batched.update(preds[rows], target[rows])
    expected = Evaluator(name).eval({"y_true": target.numpy(), "y_pred": preds.numpy()})[measure]
    assert whole.compute().shape == ()
    assert float(whole.compute()) == pytest.approx(expected, rel=1e-6)
    assert float(batched.compute()) == float(whole.compute())


def test_bfloat16_scores_and_integer_labels() -> None:
    preds, target = random_samples(1)
    metric = OGBMetric("ogbg-molhiv")
    metric.update(preds.bfloat16().requires_grad_(), target.long())
    y_pred = preds.bfloat16().float().numpy()
    expected = Evaluator("ogbg-molhiv").eval({"y_true": target.numpy(), "y_pred": y_pred})["rocauc"]
    assert float(metric.compute()) == pytest.approx(expected, rel=1e-6)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("name", "preds", "target"),
    [
        ("ogbg-molhiv", [0.1, 0.2], [0.0, 0.0]),
        ("ogbg-molhiv", [0.1, 0.2], [1.0, torch.nan]),
        ("ogbg-molhiv", [0.1, torch.nan], [1.0, 0.0]),
        ("ogbg-molhiv", [0.1, torch.inf], [1.0, 0.0]),
        ("ogbg-mollipo", [0.1, 0.2], [torch.nan, torch.nan]),
    ],
)
def test_undefined_metric_is_nan(name: str, preds: list[float], target: list[float]) -> None:
    metric = OGBMetric(name)
    metric.update(torch.tensor(preds)[:, None], torch.tensor(target)[:, None])
    assert metric.compute().isnan()


@pytest.mark.filterwarnings("ignore:The ``compute`` method")
def test_empty_metric_is_nan() -> None:
    metric = OGBMetric("ogbg-molhiv")
    assert metric.compute().isnan()
    metric.update(*random_samples(1))
    assert not metric.compute().isnan()
    metric.reset()
    assert metric.compute().isnan()


@pytest.mark.parametrize(("preds", "target"), [((4,), (4,)), ((4, 1), (4,)), ((4, 2), (4, 2)), ((3, 1), (4, 1))])
def test_wrong_shapes_are_rejected(preds: tuple[int, ...], target: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"expected \(B, 1\)"):
        OGBMetric("ogbg-molhiv").update(torch.zeros(preds), torch.zeros(target))


def test_auc_of_constant_prediction_is_half() -> None:
    _, target = random_samples(12)
    target[5:9, 0] = torch.nan
    metric = OGBMetric("ogbg-moltox21")
    metric.update(torch.linspace(-3, 3, 12).expand(len(target), -1), target)
    assert float(metric.compute()) == 0.5


def test_clones_in_collections_are_independent() -> None:
    original = MetricCollection({"rocauc": OGBMetric("ogbg-molhiv")})
    valid, test = (original.clone(prefix=f"{stage}/") for stage in ("valid", "test"))
    preds, target = random_samples(1)
    valid.update(preds, target)
    expected = Evaluator("ogbg-molhiv").eval({"y_true": target.numpy(), "y_pred": preds.numpy()})["rocauc"]
    assert float(valid.compute()["valid/rocauc"]) == pytest.approx(expected, rel=1e-6)
    test.update(-preds, target)
    assert float(test.compute()["test/rocauc"]) == pytest.approx(1 - expected, rel=1e-6)


@pytest.mark.filterwarnings("ignore:The ``compute`` method")
@pytest.mark.parametrize("name", ["ogbg-molhiv", "ogbg-moltox21"])
@pytest.mark.parametrize("shares", [[20, 40], [60, 0], [0, 0]])
def test_metric_gathers_over_processes(name: str, shares: list[int]) -> None:
    """Threads stand in for processes; a real gather needs tensors of the same dtype and number of dimensions."""
    preds, target = random_samples(12 if name == "ogbg-moltox21" else 1, rows=sum(shares))
    barrier, sent, values = threading.Barrier(2, timeout=5), [torch.empty(0)] * 2, [torch.empty(0)] * 2

    def run(rank: int, rows: torch.Tensor) -> None:
        def gather(tensor: torch.Tensor, group: object) -> list[torch.Tensor]:
            sent[rank] = tensor
            barrier.wait()
            gathered = list(sent)
            barrier.wait()
            assert len({(shared.ndim, shared.dtype) for shared in gathered}) == 1
            return gathered

        metric = OGBMetric(name)
        metric.dist_sync_fn, metric.distributed_available_fn = gather, lambda: True
        if len(rows):
            metric.update(preds[rows], target[rows])
        values[rank] = metric.compute()

    parts = torch.arange(sum(shares)).split(shares)
    threads = [threading.Thread(target=run, args=pair) for pair in enumerate(parts)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if not sum(shares):
        assert all(value.isnan() for value in values)
    else:
        expected = Evaluator(name).eval({"y_true": target.numpy(), "y_pred": preds.numpy()})["rocauc"]
        assert [float(value) for value in values] == pytest.approx([expected] * 2, rel=1e-6)
