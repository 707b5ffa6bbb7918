"""A store written in chunks equals one written at once, with the memory of a single chunk."""

import os
import tempfile
import tracemalloc
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gt.data.packed import Graphs, pointers
from gt.data.store import load, open_or_build, save
from gt.schema import Schema


@pytest.fixture(autouse=True)
def _skip_fsync(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)


GROUPS = ("nodes", "edges", "pairs", "graphs")


def random_graphs(draw: np.random.Generator, sizes: Sequence[int], **schema: Any) -> Graphs:
    """Random graphs with arrays of every kind, integers of any width among them."""
    nodes = np.array(sizes, dtype=np.int64)
    edges = draw.integers(4, size=len(nodes)) * (nodes > 0)
    n, e, p, g = int(nodes.sum()), int(edges.sum()), int((nodes**2).sum()), len(nodes)
    width = 10 ** draw.integers(1, 18, size=g + 1)
    return Graphs(
        pointers(nodes),
        pointers(edges),
        draw.integers(np.repeat(np.maximum(nodes, 1), edges), size=(2, e)),
        Schema(outputs=2, max_nodes=max(sizes, default=0), **schema),
        nodes={"x": draw.integers(0, width[-1], size=(n, 3)), "hint": draw.normal(size=(n, 2, 2)).astype(np.float32)},
        edges={"edge_attr": draw.integers(-5, 5, size=(e, 1)), "weight": draw.normal(size=e)},
        pairs={"steps": draw.integers(0, 300, size=p)},
        graphs={"y": draw.integers(-width[:-1], width[:-1]), "seen": draw.random(g) < 0.5, "none": np.empty((g, 0))},
        splits={"train": draw.permutation(g)[: g // 2], "test": np.array([], dtype=np.int64)},
        notes={"graphs": g},
    )


def split_into_chunks(graphs: Graphs, bounds: Sequence[int]) -> Iterator[Graphs]:
    """The graphs in chunks that end at ``bounds``; all but the last chunk have different splits and notes."""
    offsets = dict(
        zip(GROUPS, (graphs.node_ptr, graphs.edge_ptr, graphs.pair_ptr, range(len(graphs) + 1)), strict=True)
    )
    for low, high in zip([0, *bounds], [*bounds, len(graphs)], strict=True):
        part: dict[str, Any] = {}
        for group, rows in offsets.items():
            part[group] = {name: values[rows[low] : rows[high]] for name, values in getattr(graphs, group).items()}
        sizes = graphs.sizes[low:high]
        yield replace(
            graphs,
            node_ptr=graphs.node_ptr[low : high + 1] - graphs.node_ptr[low],
            edge_ptr=graphs.edge_ptr[low : high + 1] - graphs.edge_ptr[low],
            edge_index=graphs.edge_index[:, graphs.edge_ptr[low] : graphs.edge_ptr[high]],
            schema=replace(graphs.schema, max_nodes=int(max(sizes, default=0))),
            splits=graphs.splits if high == len(graphs) else {"train": np.array([low])},
            notes=graphs.notes if high == len(graphs) else {"so far": high},
            **part,
        )


def assert_same(found: Graphs, expected: Graphs) -> None:
    for name in ("node_ptr", "edge_ptr", "edge_index"):
        found_values, expected_values = getattr(found, name), getattr(expected, name)
        assert found_values.dtype == expected_values.dtype
        np.testing.assert_array_equal(found_values, expected_values, err_msg=name)
    for group in (*GROUPS, "splits"):
        assert getattr(found, group).keys() == getattr(expected, group).keys()
        for name, values in getattr(expected, group).items():
            found_values = getattr(found, group)[name]
            assert (found_values.dtype, found_values.shape) == (values.dtype, values.shape), name
            np.testing.assert_array_equal(found_values, values, err_msg=name)
    assert found.schema == expected.schema
    assert found.notes == expected.notes


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_chunks_give_the_same_store_as_one_write(data: st.DataObject) -> None:
    sizes = data.draw(st.lists(st.sampled_from([0, 1, 2, 5, 40]), max_size=12))
    bounds = sorted(data.draw(st.lists(st.integers(0, len(sizes)), max_size=5)))
    graphs = random_graphs(np.random.default_rng(data.draw(st.integers(0, 999))), sizes)
    with tempfile.TemporaryDirectory() as folder:
        save(graphs, Path(folder) / "whole")
        save(split_into_chunks(graphs, bounds), Path(folder) / "chunks")
        whole, chunks = load(Path(folder) / "whole"), load(Path(folder) / "chunks")
        assert_same(chunks, whole)
        for group in (*GROUPS, "splits"):  # and ``whole`` equals its input
            for name, values in getattr(graphs, group).items():
                np.testing.assert_array_equal(getattr(whole, group)[name], values)
        np.testing.assert_array_equal(whole.edge_index, graphs.edge_index)
        np.testing.assert_array_equal(whole.node_ptr, graphs.node_ptr)
        assert whole.schema == graphs.schema


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([[0, 255], [3]], "uint8"),
        ([[3], [256], [7]], "uint16"),
        ([[3], [-1]], "int8"),
        ([[255], [-1]], "int16"),
        ([[2**32 - 1], [-1]], "int64"),
        ([[1], np.array([2**63], np.uint64)], "uint64"),
        ([[], [300], []], "uint16"),
        ([[], []], "int64"),
        ([np.array([1.5], np.float32), np.array([], np.float64)], "float32"),
        ([np.array([1.5], np.float32), np.array([0.1], np.float64)], "float64"),
        ([np.array([True]), np.array([False])], "bool"),
        ([np.array([1], ">i4"), np.array([2], ">i8")], "uint8"),
        ([np.array([1.5], ">f4")], "float32"),
    ],
)
def test_dtypes_widen_with_later_chunks(values: list[Any], expected: str, tmp_path: Path) -> None:
    parts = [each if isinstance(each, np.ndarray) else np.array(each, np.int64) for each in values]
    save((single_nodes(y) for y in parts), tmp_path / "store")
    found = load(tmp_path / "store").graphs["y"]
    assert found.dtype == expected
    np.testing.assert_array_equal(found, np.concatenate([part for part in parts if len(part)] or parts))


def single_nodes(y: np.ndarray, **arrays: np.ndarray) -> Graphs:
    offsets = np.arange(len(y) + 1)
    return Graphs(offsets, 0 * offsets, np.empty((2, 0), np.int64), Schema(max_nodes=1), graphs={"y": y, **arrays})


def test_values_that_no_integer_dtype_holds_are_rejected(tmp_path: Path) -> None:
    parts = [single_nodes(np.array([2**63], np.uint64)), single_nodes(np.array([-1]))]
    with pytest.raises(ValueError, match="no integer type holds -1 to 9223372036854775808"):
        save(iter(parts), tmp_path / "store")
    assert not any(tmp_path.iterdir())


ONE = np.array([1])


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ([single_nodes(ONE), single_nodes(ONE, z=ONE)], r"graphs\.z is in some chunks and not in others"),
        ([single_nodes(ONE, z=ONE), single_nodes(ONE)], r"graphs\.z is in some chunks and not in others"),
        (
            [single_nodes(ONE[:0], z=ONE[:0]), single_nodes(ONE)],
            r"graphs\.z is in some chunks and not in others",
        ),
        (
            [single_nodes(ONE), single_nodes(ONE[:, None])],
            r"graphs\.y: rows of shape \(1,\) after rows of .* \(\)",
        ),
        ([single_nodes(ONE), single_nodes(ONE * 1.5)], r"graphs\.y: float64 after uint8"),
        ([single_nodes(ONE > 0), single_nodes(ONE)], r"graphs\.y: int64 after bool"),
        ([single_nodes(ONE, z=np.array([1, 2]))], r"graphs\.z has 2 rows, but should have 1"),
        ([replace(single_nodes(ONE), nodes={"x": np.zeros((2, 1))})], r"nodes\.x has 2 rows, but should have 1"),
        ([replace(single_nodes(ONE), edges={"e": ONE})], r"edges\.e has 1 rows, but should have 0"),
        ([replace(single_nodes(ONE), pairs={"p": ONE[:0]})], r"pairs\.p has 0 rows, but should have 1"),
        ([replace(single_nodes(ONE), edge_index=np.zeros((2, 1)))], r"edge_index has 1 rows, but should have 0"),
        ([replace(single_nodes(ONE), node_ptr=np.array([1, 2]))], r"node_ptr begins at 1 instead of 0"),
        ([], "no graphs were built"),
    ],
)
def test_mismatched_chunks_are_rejected_by_array_name(parts: list[Graphs], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        save(iter(parts), tmp_path / "store")
    assert not any(tmp_path.iterdir())


def test_empty_chunk_may_lack_arrays(tmp_path: Path) -> None:
    empty = replace(single_nodes(ONE[:0]), graphs={})
    save(iter([empty, single_nodes(ONE), empty, single_nodes(ONE + 1), empty]), tmp_path / "store")
    found = load(tmp_path / "store")
    assert found.graphs["y"].tolist() == [1, 2]
    assert found.node_ptr.tolist() == [0, 1, 2]


def test_memory_is_bounded_by_the_chunk(tmp_path: Path) -> None:
    rows, count = 500_000, 24  # 4 MB of numbers a chunk

    def chunks() -> Iterator[Graphs]:
        for number in range(count):
            offsets = np.array([0, rows])
            x = np.full((rows, 1), number * 70_000, dtype=np.int64)  # wider from the second chunk on
            yield Graphs(offsets, 0 * offsets, np.empty((2, 0), np.int64), Schema(max_nodes=rows), nodes={"x": x})
            del x

    tracemalloc.start()
    try:
        graphs = open_or_build(tmp_path / "store", chunks)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 20e6
    assert graphs.nodes["x"].nbytes == count * rows * 4 > 2 * peak
    assert graphs.nodes["x"][::rows, 0].tolist() == [number * 70_000 for number in range(count)]
