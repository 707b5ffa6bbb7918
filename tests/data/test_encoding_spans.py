"""Encodings computed span by span in several processes, against a single computation."""

import functools
from pathlib import Path

import numpy as np
import pytest

from gt.data import encodings as cache
from gt.data.encodings import attach
from gt.data.store import load, save
from gt.encodings import Encoding, Laplacian, RandomWalk
from tests.encodings.samples import AWKWARD, pack


def test_spans_partition_the_graphs() -> None:
    graphs = pack(AWKWARD)
    graphs.nodes["x"] = np.arange(graphs.node_ptr[-1])
    graphs.graphs["y"] = np.arange(len(graphs))
    for size in (1, 7, 50, 10**6):
        spans = list(cache.Spans(graphs, size))
        for name in ("x", "y"):
            parts = [(span.nodes | span.graphs)[name] for span in spans]
            np.testing.assert_array_equal(np.concatenate(parts), (graphs.nodes | graphs.graphs)[name])
        np.testing.assert_array_equal(np.concatenate([span.edge_index for span in spans], axis=1), graphs.edge_index)
        np.testing.assert_array_equal(np.concatenate([span.sizes for span in spans]), graphs.sizes)
        assert all(len(span) and (len(span) == 1 or span.node_ptr[-2] < size) for span in spans)
        assert len(spans) == {1: len(graphs), 10**6: 1}.get(size, len(spans))


@pytest.mark.parametrize("encoding", [RandomWalk(4), Laplacian(3)])
def test_spans_equal_a_single_computation(encoding: Encoding, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "store"
    save(pack(AWKWARD), folder)
    graphs = load(folder)
    expected = encoding.compute(graphs)
    monkeypatch.setattr(cache, "SERIAL_LIMIT", 100)
    monkeypatch.setattr(cache, "Spans", functools.partial(cache.Spans, size=40))
    found = attach(graphs, folder, [encoding]).encodings
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        rows = found[name].take(np.arange(len(values)))
        size, expected_size = (np.abs(each) for each in (rows, values))  # the sign of an eigenvector is arbitrary
        np.testing.assert_allclose(size, expected_size, atol=1e-5, rtol=2**-11, err_msg=name)


def test_failed_span_leaves_no_arrays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graphs = pack(AWKWARD)
    graphs.edge_index = graphs.edge_index.astype(np.int64)
    graphs.edge_index[:, -1] = 10**6  # in the last span
    monkeypatch.setattr(cache, "SERIAL_LIMIT", 100)
    monkeypatch.setattr(cache, "Spans", functools.partial(cache.Spans, size=40))
    with pytest.raises(ValueError, match="ind"):
        attach(graphs, tmp_path, [RandomWalk(4)])
    assert {path.suffix for path in tmp_path.iterdir()} == {".lock"}
