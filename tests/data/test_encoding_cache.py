"""Encodings are computed once, kept whole, and told apart by their options."""

import multiprocessing
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from gt.data import encodings as cache
from gt.data.arrays import Rows
from gt.data.batching import gather
from gt.data.encodings import attach, compute
from gt.encodings import Degree, Encoding, Laplacian, RandomWalk
from gt.errors import UserError
from tests.encodings.samples import AWKWARD, pack


@dataclass(frozen=True)
class Counted(Encoding):
    """Notes each computation as a file, so that those of other processes show too."""

    notes: Path
    factor: int = 1
    fails: bool = False
    name: str = "counted"

    arrays = ("first", "second")

    def key(self):
        return {"name": self.name, "factor": self.factor}

    def compute(self, graphs, progress=iter):
        (self.notes / str(len(list(self.notes.iterdir())))).touch()
        time.sleep(0.1)  # long enough for others to ask meanwhile
        if self.fails:
            raise RuntimeError("out of memory")
        rows = np.arange(graphs.node_ptr[-1], dtype=np.float32)[:, None]
        return {"first": rows * self.factor, "second": -rows}

    def module(self, width, schema):
        raise NotImplementedError

    @property
    def count(self):
        return len(list(self.notes.iterdir()))


def every(graphs, name):
    """An encoding's rows of all nodes."""
    return graphs.encodings[name].take(np.arange(graphs.node_ptr[-1]))


@pytest.fixture
def counted(tmp_path):
    (tmp_path / "notes").mkdir()
    return lambda **options: Counted(tmp_path / "notes", **options)


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "store"


def test_computed_once(folder, counted):
    graphs, encoding = pack(AWKWARD), counted()
    for _ in range(3):
        found = attach(graphs, folder, [encoding])
        assert set(found.encodings) == {"first", "second"}
        assert isinstance(found.encodings["first"].values.base, np.memmap)
        np.testing.assert_array_equal(every(found, "second")[:, 0], -np.arange(graphs.node_ptr[-1]))
    assert encoding.count == 1
    assert graphs.encodings == {}
    assert not list(folder.glob("*.part"))


def test_other_options_are_another_array(folder, counted):
    graphs = pack(AWKWARD)
    attach(graphs, folder, [counted()])
    found = attach(graphs, folder, [counted(factor=3)])
    assert every(found, "first")[2, 0] == 6
    assert every(attach(graphs, folder, [counted()]), "first")[2, 0] == 2
    assert counted().count == 2


def test_a_missing_array_is_computed_again(folder, counted):
    attach(pack(AWKWARD), folder, [counted()])
    next(folder.glob("second-*.npy")).unlink()
    assert "second" in attach(pack(AWKWARD), folder, [counted()]).encodings
    assert counted().count == 2


def test_a_failure_leaves_nothing_behind(folder, counted):
    with pytest.raises(RuntimeError):
        attach(pack(AWKWARD), folder, [counted(fails=True)])
    assert not list(folder.glob("*.npy"))
    attach(pack(AWKWARD), folder, [counted()])
    assert counted().count == 2


def test_many_at_once_compute_once(folder, counted):
    graphs, encoding = pack(AWKWARD), counted()
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: attach(graphs, folder, [encoding]), range(8)))
    assert encoding.count == 1
    assert all("first" in each.encodings for each in found)


def test_processes_at_once_compute_once(folder, counted):
    graphs, encoding = pack(AWKWARD), counted()
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=attach, args=(graphs, folder, [encoding])) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    assert encoding.count == 1


def test_keeps_what_the_nodes_have_and_passes_over_what_needs_nothing(folder):
    graphs = pack(AWKWARD)
    graphs.nodes["x"] = np.ones((int(graphs.node_ptr[-1]), 1))
    assert attach(graphs, folder, [Degree()]).encodings == {}
    assert not folder.exists()
    found = attach(graphs, folder, [RandomWalk(4), Laplacian(3), Degree()])
    assert set(found.nodes) == {"x"}
    assert set(found.encodings) == {"random_walk", "laplacian_vectors", "laplacian_values"}
    exact = RandomWalk(4).compute(graphs)["random_walk"]
    np.testing.assert_array_equal(every(found, "random_walk"), exact.astype(np.float16))


def test_two_that_share_a_name_are_reported(folder):
    with pytest.raises(UserError, match="both store 'random_walk'"):
        attach(pack(AWKWARD), folder, [RandomWalk(4), RandomWalk(5)])
    with pytest.raises(UserError, match="both store 'random_walk'"):
        compute(pack(AWKWARD), [RandomWalk(4), RandomWalk(5)])
    same = attach(pack(AWKWARD), folder, [RandomWalk(4, dim=2), RandomWalk(4, dim=3)])
    assert same.encodings["random_walk"].values.shape[1] == 4


def test_progress_is_shown_only_while_computing(folder):
    seen = []

    def progress(parts):
        seen.append(len(parts))
        return iter(parts)

    for _ in range(2):
        attach(pack(AWKWARD), folder, [RandomWalk(4)], progress)
    assert seen == [1]


@pytest.mark.parametrize("seed", range(5))
def test_equal_rows_are_kept_once(seed):
    draw = np.random.default_rng(seed)
    few = draw.standard_normal((int(draw.integers(1, 6)), 3)).astype(np.float32)
    few[0, 0] = np.nan
    chunks = [
        {
            "repeated": few[draw.integers(len(few), size=count)],
            "different": draw.standard_normal((count, 2)).astype(np.float32),
            "large": np.where(draw.random((count, 1)) < 0.5, np.float32(1e6), np.float32(0.1)),
        }
        for count in (200, 1, 37)
    ]
    packed = list(cache._compressed(chunks))
    joined = {name: np.concatenate([part[name] for part in packed]) for name in packed[0]}
    assert set(joined) == {"repeated", "repeated_of", "different", "large", "large_of"}
    assert len(joined["repeated"]) <= len(chunks) * len(few)
    for name in chunks[0]:
        rows = Rows(joined[name], joined.get(f"{name}_of"))
        exact = np.concatenate([part[name] for part in chunks])
        assert len(rows) == len(exact)
        np.testing.assert_allclose(rows.take(np.arange(len(exact))), exact, rtol=2**-11, atol=1e-7)
    assert joined["different"].dtype == np.float16
    assert (joined["large"] == 1e6).any()  # more than 16 bits hold


def test_a_batch_has_the_rows_of_its_nodes(folder):
    graphs = attach(pack(AWKWARD), folder, [RandomWalk(4), Laplacian(3)])
    ids = [3, 0, 5, 3]
    nodes = np.concatenate([np.arange(graphs.node_ptr[g], graphs.node_ptr[g + 1]) for g in ids])
    extras = gather(graphs, ids).extras
    assert set(extras) == set(graphs.encodings)
    for encoding in (RandomWalk(4), Laplacian(3)):
        for name, exact in encoding.compute(graphs).items():
            assert extras[name].dtype == torch.float32
            np.testing.assert_allclose(extras[name].numpy(), exact[nodes], rtol=2**-11, atol=1e-7)


def test_megabytes_are_counted():
    rows = Rows(np.zeros((10, 4), np.float16), np.zeros(100, np.uint8))
    assert (len(rows), rows.nbytes, Rows(rows.values).nbytes) == (100, 180, 80)
