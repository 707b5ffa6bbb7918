"""Encodings are computed once, kept whole, and told apart by their options."""

import multiprocessing
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from gt.encodings import Degree, Encoding, Laplacian, RandomWalk, attach
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
        assert set(found.nodes) == {"first", "second"}
        assert isinstance(found.nodes["first"].base, np.memmap)
        np.testing.assert_array_equal(found.nodes["second"][:, 0], -np.arange(graphs.node_ptr[-1]))
    assert encoding.count == 1
    assert graphs.nodes == {}
    assert not list(folder.glob("*.part"))


def test_other_options_are_another_array(folder, counted):
    graphs = pack(AWKWARD)
    attach(graphs, folder, [counted()])
    found = attach(graphs, folder, [counted(factor=3)])
    assert found.nodes["first"][2, 0] == 6
    assert attach(graphs, folder, [counted()]).nodes["first"][2, 0] == 2
    assert counted().count == 2


def test_a_missing_array_is_computed_again(folder, counted):
    attach(pack(AWKWARD), folder, [counted()])
    next(folder.glob("second-*.npy")).unlink()
    assert "second" in attach(pack(AWKWARD), folder, [counted()]).nodes
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
    assert all("first" in each.nodes for each in found)


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
    assert set(attach(graphs, folder, [Degree()]).nodes) == {"x"}
    assert not folder.exists()
    found = attach(graphs, folder, [RandomWalk(4), Laplacian(3), Degree()])
    assert set(found.nodes) == {"x", "random_walk", "laplacian_vectors", "laplacian_values"}
    np.testing.assert_array_equal(found.nodes["random_walk"], RandomWalk(4).compute(graphs)["random_walk"])


def test_two_that_share_a_name_are_reported(folder):
    with pytest.raises(UserError, match="both store 'random_walk'"):
        attach(pack(AWKWARD), folder, [RandomWalk(4), RandomWalk(5)])
    same = attach(pack(AWKWARD), folder, [RandomWalk(4, dim=2), RandomWalk(4, dim=3)])
    assert same.nodes["random_walk"].shape[1] == 4


def test_progress_is_shown_only_while_computing(folder):
    seen = []

    def progress(parts):
        seen.append(len(parts))
        return iter(parts)

    for _ in range(2):
        attach(pack(AWKWARD), folder, [RandomWalk(4)], progress)
    assert seen == [1]
