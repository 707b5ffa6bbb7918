"""The encoding cache: computed once, stored atomically, keyed by options."""

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
    """Records each computation as a file, so that those of other processes count too."""

    notes: Path
    factor: int = 1
    fails: bool = False
    name: str = "counted"

    arrays = ("first", "second")

    def key(self):
        return {"name": self.name, "factor": self.factor}

    def compute(self, graphs, progress=iter):
        (self.notes / str(len(list(self.notes.iterdir())))).touch()
        time.sleep(0.1)  # long enough for concurrent requests
        if self.fails:
            raise RuntimeError("out of memory")
        rows = np.arange(graphs.node_ptr[-1], dtype=np.float32)[:, None]
        return {"first": rows * self.factor, "second": -rows}

    def module(self, width, schema):
        raise NotImplementedError

    @property
    def count(self):
        return len(list(self.notes.iterdir()))


def all_rows(graphs, name):
    """The rows of an encoding for all nodes."""
    return graphs.encodings[name].take(np.arange(graphs.node_ptr[-1]))


@pytest.fixture
def make_counted(tmp_path):
    (tmp_path / "notes").mkdir()
    return lambda **options: Counted(tmp_path / "notes", **options)


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "store"


def test_encoding_is_computed_once(folder, make_counted):
    graphs, encoding = pack(AWKWARD), make_counted()
    for _ in range(3):
        found = attach(graphs, folder, [encoding])
        assert set(found.encodings) == {"first", "second"}
        assert isinstance(found.encodings["first"].values.base, np.memmap)
        np.testing.assert_array_equal(all_rows(found, "second")[:, 0], -np.arange(graphs.node_ptr[-1]))
    assert encoding.count == 1
    assert graphs.encodings == {}
    assert not list(folder.glob("*.part"))


def test_options_are_cached_separately(folder, make_counted):
    graphs = pack(AWKWARD)
    attach(graphs, folder, [make_counted()])
    found = attach(graphs, folder, [make_counted(factor=3)])
    assert all_rows(found, "first")[2, 0] == 6
    assert all_rows(attach(graphs, folder, [make_counted()]), "first")[2, 0] == 2
    assert make_counted().count == 2


def test_missing_array_is_recomputed(folder, make_counted):
    attach(pack(AWKWARD), folder, [make_counted()])
    next(folder.glob("second-*.npy")).unlink()
    assert "second" in attach(pack(AWKWARD), folder, [make_counted()]).encodings
    assert make_counted().count == 2


def test_failure_leaves_no_arrays(folder, make_counted):
    with pytest.raises(RuntimeError):
        attach(pack(AWKWARD), folder, [make_counted(fails=True)])
    assert not list(folder.glob("*.npy"))
    attach(pack(AWKWARD), folder, [make_counted()])
    assert make_counted().count == 2


def test_concurrent_threads_compute_once(folder, make_counted):
    graphs, encoding = pack(AWKWARD), make_counted()
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: attach(graphs, folder, [encoding]), range(8)))
    assert encoding.count == 1
    assert all("first" in each.encodings for each in found)


def test_concurrent_processes_compute_once(folder, make_counted):
    graphs, encoding = pack(AWKWARD), make_counted()
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=attach, args=(graphs, folder, [encoding])) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    assert encoding.count == 1


def test_attach_keeps_features_and_skips_encodings_without_arrays(folder):
    graphs = pack(AWKWARD)
    graphs.nodes["x"] = np.ones((int(graphs.node_ptr[-1]), 1))
    assert attach(graphs, folder, [Degree()]).encodings == {}
    assert not folder.exists()
    found = attach(graphs, folder, [RandomWalk(4), Laplacian(3), Degree()])
    assert set(found.nodes) == {"x"}
    assert set(found.encodings) == {"random_walk", "laplacian_vectors", "laplacian_values"}
    exact = RandomWalk(4).compute(graphs)["random_walk"]
    np.testing.assert_array_equal(all_rows(found, "random_walk"), exact.astype(np.float16))


def test_name_conflict_is_reported(folder):
    with pytest.raises(UserError, match="both store 'random_walk'"):
        attach(pack(AWKWARD), folder, [RandomWalk(4), RandomWalk(5)])
    with pytest.raises(UserError, match="both store 'random_walk'"):
        compute(pack(AWKWARD), [RandomWalk(4), RandomWalk(5)])
    attached = attach(pack(AWKWARD), folder, [RandomWalk(4, dim=2), RandomWalk(4, dim=3)])
    assert attached.encodings["random_walk"].values.shape[1] == 4


def test_progress_is_shown_only_while_computing(folder):
    seen = []

    def progress(parts):
        seen.append(len(parts))
        return iter(parts)

    for _ in range(2):
        attach(pack(AWKWARD), folder, [RandomWalk(4)], progress)
    assert seen == [1]


@pytest.mark.parametrize("seed", range(5))
def test_equal_rows_are_stored_once(seed):
    draw = np.random.default_rng(seed)
    distinct = draw.standard_normal((int(draw.integers(1, 6)), 3)).astype(np.float32)
    distinct[0, 0] = np.nan
    chunks = [
        {
            "repeated": distinct[draw.integers(len(distinct), size=count)],
            "different": draw.standard_normal((count, 2)).astype(np.float32),
            "large": np.where(draw.random((count, 1)) < 0.5, np.float32(1e6), np.float32(0.1)),
        }
        for count in (200, 1, 37)
    ]
    packed = list(cache._compressed(chunks))
    joined = {name: np.concatenate([part[name] for part in packed]) for name in packed[0]}
    assert set(joined) == {"repeated", "repeated_of", "different", "large", "large_of"}
    assert len(joined["repeated"]) <= len(chunks) * len(distinct)
    for name in chunks[0]:
        rows = Rows(joined[name], joined.get(f"{name}_of"))
        exact = np.concatenate([part[name] for part in chunks])
        assert len(rows) == len(exact)
        np.testing.assert_allclose(rows.take(np.arange(len(exact))), exact, rtol=2**-11, atol=1e-7)
    assert joined["different"].dtype == np.float16
    assert (joined["large"] == 1e6).any()  # beyond the range of float16


def test_batch_has_the_rows_of_its_nodes(folder):
    graphs = attach(pack(AWKWARD), folder, [RandomWalk(4), Laplacian(3)])
    ids = [3, 0, 5, 3]
    nodes = np.concatenate([np.arange(graphs.node_ptr[g], graphs.node_ptr[g + 1]) for g in ids])
    extras = gather(graphs, ids).extras
    assert set(extras) == set(graphs.encodings)
    for encoding in (RandomWalk(4), Laplacian(3)):
        for name, exact in encoding.compute(graphs).items():
            assert extras[name].dtype == torch.float32
            np.testing.assert_allclose(extras[name].numpy(), exact[nodes], rtol=2**-11, atol=1e-7)


def test_nbytes_of_rows():
    rows = Rows(np.zeros((10, 4), np.float16), np.zeros(100, np.uint8))
    assert (len(rows), rows.nbytes, Rows(rows.values).nbytes) == (100, 180, 80)
