"""Link prediction on one graph: evaluation questions, validation links as input, masks, baseline and learning."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from gt.attention import Reading
from gt.data.large.link_questions import RankedTargets, SharedNegatives
from gt.data.large.links import LinkData
from gt.encodings import Degree, RandomWalk
from gt.errors import UserError
from gt.inference.whole_graph import predict
from gt.masks import Hops
from gt.train.baseline import baseline
from tests.data.large.small_links import (
    TEST,
    TRAIN,
    VALID,
    edges_of,
    epoch_batches,
    link_data,
    network,
    open_data,
    pairs,
)


@pytest.fixture
def data(tmp_path: Path) -> LinkData:
    return open_data(link_data(tmp_path))


def test_evaluation_graph_excludes_its_links(tmp_path: Path) -> None:
    for valid_as_input in (False, True):
        data = open_data(link_data(tmp_path, valid_as_input=valid_as_input))
        for split, links in (("valid", VALID), ("test", TEST)):
            (batch,) = data.loader(split)
            visible = {frozenset(edge[:2]) for edge in edges_of(batch)}
            assert not visible & {frozenset(pair) for pair in links.tolist()}


def test_validation_links_as_input_only_for_test(tmp_path: Path) -> None:
    data = open_data(link_data(tmp_path, valid_as_input=True))
    added = [(a, b, -1.0, -1.0) for a, b in [*VALID.tolist(), *VALID[:, ::-1].tolist()]]
    (test,) = data.loader("test")
    (valid,) = data.loader("valid")
    assert edges_of(test) == sorted([*edges_of(data.graph.batch), *added])
    assert edges_of(valid) == edges_of(data.graph.batch)
    assert not {frozenset(p) for p in VALID.tolist()} & {
        frozenset(e[:2]) for b in epoch_batches(data) for e in edges_of(b)
    }


def test_questions_with_shared_negatives() -> None:
    positive, negative = np.arange(20).reshape(10, 2), np.arange(100, 160).reshape(30, 2)
    questions = SharedNegatives(positive, negative)
    endpoints, linked = questions.rows(0, len(questions))
    assert endpoints.T[linked].tolist() == positive.tolist()
    assert endpoints.T[~linked].tolist() == negative.tolist()
    assert questions.rows(0, 20)[1].sum() == questions.rows(20, 40)[1].sum() == 5  # each part has its share of links
    for empty in (SharedNegatives(positive[:0], negative), SharedNegatives(positive, negative[:0])):
        assert len(empty) == len(empty.rows(0, 99)[1]) in (10, 30)


def test_questions_with_ranked_targets() -> None:
    questions = RankedTargets(np.array([[3, 1], [5, 2]], dtype=np.uint8), np.array([[7, 300], [9, 8]], dtype=np.int16))
    endpoints, linked = questions.rows(0, 2)
    assert endpoints.T.tolist() == [[3, 1], [3, 7], [3, 300], [5, 2], [5, 9], [5, 8]]
    assert linked.tolist() == [True, False, False] * 2
    assert questions.rows(1, 2)[0].T.tolist() == endpoints.T.tolist()[3:]


def trainer_of(rank: int = 0, world: int = 1, device: str = "cpu") -> Any:
    strategy = SimpleNamespace(root_device=torch.device(device))
    return SimpleNamespace(global_rank=rank, world_size=world, strategy=strategy)


@pytest.mark.parametrize(("device", "pinned"), [(None, False), ("cpu", False), ("cuda", True)])
def test_memory_is_pinned_only_on_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: str | None, pinned: bool
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)  # as with trainer=cpu on a machine with a GPU
    data = open_data(link_data(tmp_path))
    data.trainer = None if device is None else trainer_of(device=device)
    assert data.loader("valid").pin_memory is pinned


@pytest.mark.parametrize("ranked", [False, True])
@pytest.mark.parametrize(("world", "largest"), [(1, None), (2, None), (3, None), (2, 3), (1, 1), (7, None)])
def test_ranks_cover_each_question_once(tmp_path: Path, ranked: bool, world: int, largest: int | None) -> None:
    answered: list[Any] = []
    for rank in range(world):
        data = open_data(link_data(tmp_path, ranked=ranked))
        data.eval_batch_size = largest or data.eval_batch_size
        data.trainer = trainer_of(rank, world)
        for batch in data.loader("valid"):
            assert batch.links is not None
            if batch.y is None:  # a rank without questions
                assert world == 7
                continue
            assert len(batch.y) == batch.links.shape[1] <= max(largest or 99, 5 if ranked else 1)
            assert not ranked or (batch.y[::5].all() and batch.y.sum() == len(batch.y) / 5)  # groups are not split
            answered += zip(pairs(batch.links), batch.y.flatten().tolist(), strict=True)
    expected, linked = data.questions("valid").rows(0, len(data.questions("valid")))
    assert sorted(answered) == sorted(zip(map(tuple, expected.T.tolist()), linked.astype(float), strict=True))


def test_masks_are_precomputed_and_graph_is_shared(data: LinkData) -> None:
    readings: set[Reading] = network().readings()
    data.readings, data.eval_batch_size = lambda: readings, 3
    (mask, _), *_ = readings
    for batch in epoch_batches(data):
        assert mask in batch.memo
    first, second, _ = data.loader("valid")
    assert first.edge_index is second.edge_index is data.graph.batch.edge_index
    assert first.links is not second.links
    assert not data.graph.batch.memo


@pytest.mark.parametrize("ranked", [False, True])
def test_chunked_evaluation_is_exact(tmp_path: Path, ranked: bool) -> None:
    predictions = []
    for chunk in (3, 10, 1 << 20):
        data = open_data(link_data(tmp_path, ranked=ranked, chunk=chunk))
        (batch,) = data.loader("test")
        predictions.append(predict(network(), batch))
        assert predictions[-1].shape == batch.y.shape
        torch.testing.assert_close(predictions[-1], network()(batch), rtol=1e-5, atol=1e-6)
    assert predictions[0].std() > 1e-3
    with pytest.raises(ValueError, match="chunk"):
        link_data(tmp_path, chunk=0)


def test_encodings_that_leak_links_are_rejected(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="RandomWalk is precomputed from all edges"):
        link_data(tmp_path).open([RandomWalk(steps=2)])
    link_data(tmp_path).open([Degree()])


def test_mask_that_exceeds_memory_is_rejected(data: LinkData, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sysconf", lambda name: 16)  # a machine with 256 bytes of memory
    data.readings = lambda: {(Hops(None), demand) for _, demand in network().readings()}
    with pytest.raises(UserError, match="mask=one_hop"):
        epoch_batches(data)


def test_baseline_scores_at_chance(data: LinkData) -> None:
    assert len(data.dataset("train")) == len(TRAIN)
    assert data.targets("test").sum() == len(TEST)
    scores = baseline(data, data.targets("valid"))
    assert scores["loss"] == pytest.approx(np.log(2))
    assert scores["auroc"] == 0.5


def test_training_loss_decreases(data: LinkData) -> None:
    net = network().train()
    optimiser = torch.optim.Adam(net.parameters(), lr=0.02)
    losses = []
    for number in range(25):
        for batch in epoch_batches(data, number):
            assert batch.y is not None
            loss = torch.nn.functional.binary_cross_entropy_with_logits(net(batch), batch.y)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses.append(loss.item())
    assert np.mean(losses[-9:]) < 0.8 * np.mean(losses[:9])
