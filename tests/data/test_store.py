"""The store: round trip, dtypes, atomic writes, and a single build by concurrent processes."""

import json
import multiprocessing
import os
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gt.data.arrays import Column, read_array, write_array
from gt.data.files import seal, write_metadata
from gt.data.packed import GROUPS, Graphs, pointers, smallest
from gt.data.store import fingerprint, load, open_or_build, save
from gt.schema import Schema


def make_graphs(**changes) -> Graphs:
    """Three graphs of 2, 1 and 3 nodes; one of them without edges."""
    values = {
        "node_ptr": pointers(np.array([2, 1, 3])),
        "edge_ptr": pointers(np.array([2, 0, 3])),
        "edge_index": np.array([[1, 0, 2, 0, 1], [0, 1, 0, 2, 2]]),
        "schema": Schema(node_vocab=(7, 300), edge_vocab=(4,), outputs=2, names=("no", "yes"), max_nodes=3),
        "nodes": {"x": np.arange(12).reshape(6, 2) * 27, "weight": np.linspace(0, 1, 6, dtype=np.float32)[:, None]},
        "edges": {"edge_attr": np.arange(5)[:, None] - 2},
        "pairs": {"steps": np.arange(14) % 4},
        "graphs": {"y": np.array([1, 0, 70000]), "seen": np.array([True, False, True])},
        "splits": {"train": np.array([2, 0]), "valid": np.array([1]), "test": np.array([], dtype=np.int64)},
        "notes": {"skipped": 3, "why": {"row 7": "naïve"}},
    }
    return Graphs(**(values | changes))


def named_arrays(graphs: Graphs) -> dict[str, np.ndarray]:
    named = {name: getattr(graphs, name) for name in ("node_ptr", "edge_ptr", "edge_index")}
    for group in GROUPS:
        named |= {f"{group}.{name}": values for name, values in getattr(graphs, group).items()}
    return named


def test_save_and_load_round_trip(tmp_path):
    saved, folder = make_graphs(), tmp_path / "deep" / "store"
    save(saved, folder)
    loaded = load(folder)
    assert named_arrays(saved).keys() == named_arrays(loaded).keys()
    for name, values in named_arrays(saved).items():
        np.testing.assert_array_equal(named_arrays(loaded)[name], values, err_msg=name)
        assert named_arrays(loaded)[name].shape == values.shape
    assert loaded.schema == saved.schema
    assert loaded.notes == saved.notes
    assert len(loaded) == 3
    assert loaded.sizes.tolist() == [2, 1, 3]
    assert [path.name for path in folder.parent.iterdir()] == ["store"]


def test_build_mentions_other_stores_and_their_size(tmp_path, capsys):
    first, second, third = (tmp_path / f"own data-{key * 16}" for key in "abc")
    open_or_build(first, make_graphs)
    (tmp_path / f"own data-b-{'d' * 16}").mkdir()  # a dataset of another name
    (tmp_path / f"own data-{'e' * 16}.lock").touch()
    assert capsys.readouterr().out == ""
    open_or_build(second, make_graphs)
    size = sum(path.stat().st_size for path in first.iterdir())
    assert capsys.readouterr().out == (
        f"1 other store of own data ({size / 1e6:,.1f} MB), made from other files or settings; "
        f"remove those no longer needed: rm -r '{first}'\n"
    )
    open_or_build(second, make_graphs)  # nothing is built, so nothing is printed
    assert capsys.readouterr().out == ""
    open_or_build(third, make_graphs)
    output = capsys.readouterr().out
    assert output.startswith("2 other stores of own data (")
    assert output.endswith(f"rm -r '{first}' '{second}'\n")
    assert first.exists()
    assert second.exists()
    for key in range(9):
        open_or_build(tmp_path / f"own data-{str(key) * 16}", make_graphs)
    output = capsys.readouterr().out.splitlines()[-1]  # the message names at most three
    assert output.startswith("11 other stores of own data (")
    assert output.endswith(f"rm -r '{first}' '{second}' '{third}'")


def test_arrays_have_small_dtypes_and_are_memory_mapped(tmp_path):
    save(make_graphs(), tmp_path / "store")
    found = named_arrays(load(tmp_path / "store"))
    types = {
        "node_ptr": "int64",
        "edge_ptr": "int64",
        "edge_index": "uint8",
        "nodes.x": "uint16",
        "nodes.weight": "float32",
        "edges.edge_attr": "int8",
        "graphs.y": "uint32",
        "graphs.seen": "bool",
        "pairs.steps": "uint8",
        "splits.train": "uint8",
        "splits.test": "int64",
    }
    assert {name: str(values.dtype) for name, values in found.items() if name in types} == types
    for name, values in found.items():
        assert isinstance(values.base, np.memmap) == (name not in ("node_ptr", "edge_ptr")), name
        assert not isinstance(values.base, np.memmap) or not values.flags.writeable


@given(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=5))
def test_smallest_returns_the_narrowest_integer_dtype(values):
    before = np.array(values, dtype=np.int64)
    after = smallest(before)
    assert after.dtype.kind in "iu"
    assert after.tolist() == values
    for smaller in (np.dtype(name) for name in ("uint8", "int8", "uint16", "int16", "uint32", "int32")):
        if smaller.itemsize < after.dtype.itemsize:
            assert before.astype(smaller).tolist() != values


def test_smallest_keeps_floats_and_booleans():
    for values in (np.ones(2, np.float32), np.ones(2, np.float64), np.ones(2, bool), np.ones(0, np.int64)):
        assert smallest(values).dtype == values.dtype


def test_edges_are_sorted_by_target_with_their_attributes():
    rng = np.random.default_rng(0)
    sizes, counts = np.array([4, 1, 6, 9]), np.array([7, 0, 12, 30])
    index = np.concatenate([rng.integers(n, size=(2, e)) for n, e in zip(sizes, counts, strict=True)], axis=1)
    graph = np.repeat(np.arange(4), counts)
    edge_id = np.arange(49)[:, None]
    edges = sorted((int(g), int(t), int(s), int(m)) for g, s, t, m in zip(graph, *index, edge_id[:, 0], strict=True))
    found = Graphs(pointers(sizes), pointers(counts), index, Schema(), edges={"edge_attr": edge_id}).sort_edges()
    columns = (graph, found.edge_index[1], found.edge_index[0], found.edges["edge_attr"][:, 0])
    assert np.stack(columns, axis=1).tolist() == [list(edge) for edge in edges]


def test_nothing_is_pickled(tmp_path):
    folder = tmp_path / "store"
    save(make_graphs(), folder)
    assert {path.suffix for path in folder.iterdir()} == {".npy", ".json"}
    for path in folder.glob("*.npy"):
        np.load(path, allow_pickle=False)
    assert json.loads((folder / "facts.json").read_text())["notes"]["skipped"] == 3
    objects = np.array([{"a": 1}, None, None], dtype=object)
    with pytest.raises(ValueError, match=r"graphs\.y: only numbers and booleans can be stored, not object"):
        save(make_graphs(graphs={"y": objects}), tmp_path / "other")
    with pytest.raises(ValueError, match="not object"):
        write_array(tmp_path / "things.npy", objects)
    assert [path.name for path in tmp_path.iterdir()] == ["store"]  # failed writes left nothing
    write_array(tmp_path / "things.npy", np.arange(3))
    np.save(tmp_path / "things.npy", objects, allow_pickle=True)
    write_metadata(tmp_path / "things.json", seal(tmp_path / "things.npy"))
    with pytest.raises(ValueError, match="Python objects"):
        read_array(tmp_path / "things.npy")


def test_saving_again_replaces_the_store(tmp_path):
    save(make_graphs(), tmp_path / "store")
    save(make_graphs(nodes={"x": np.ones((6, 1), np.int64)}, notes={}), tmp_path / "store")
    loaded = load(tmp_path / "store")
    assert loaded.nodes.keys() == {"x"}
    assert loaded.notes == {}


@pytest.mark.parametrize("fails", ["build", "write"])
def test_failed_build_leaves_nothing_and_can_be_retried(fails, tmp_path, monkeypatch):
    folder = tmp_path / "store"

    def fail(*_):
        raise RuntimeError("no room")

    with monkeypatch.context() as patch:
        if fails == "write":
            count = iter(range(4))  # some arrays are complete before it fails
            original = Column.save
            patch.setattr(Column, "save", lambda column: original(column) if next(count, None) is not None else fail())
        with pytest.raises(RuntimeError, match="no room"):
            open_or_build(folder, fail if fails == "build" else make_graphs)
    assert [path.name for path in tmp_path.iterdir()] == ["store.lock"]
    assert len(open_or_build(folder, make_graphs)) == 3


def _build(folder: Path, notes: Path, start: object) -> None:
    def build() -> Graphs:
        (notes / str(os.getpid())).touch()
        time.sleep(0.3)
        return make_graphs()

    start.wait()  # type: ignore[attr-defined]
    assert len(open_or_build(folder, build)) == 3


def test_concurrent_processes_build_once(tmp_path):
    (tmp_path / "notes").mkdir()
    context = multiprocessing.get_context("fork")
    start = context.Barrier(3)
    workers = [context.Process(target=_build, args=(tmp_path / "store", tmp_path / "notes", start)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    assert len(list((tmp_path / "notes").iterdir())) == 1


def test_existing_store_is_not_rebuilt(tmp_path):
    save(make_graphs(), tmp_path / "store")
    assert len(open_or_build(tmp_path / "store", lambda: pytest.fail("built again"))) == 3


def test_fingerprint_depends_on_values_but_not_on_their_order():
    key = {"dataset": "a", "version": 1, "view": ["x", 2], "deep": {"k": 1, "l": 2}}
    first = fingerprint(key)
    assert len(first) == 16
    assert int(first, 16) >= 0
    assert fingerprint(dict(reversed(key.items())) | {"deep": {"l": 2, "k": 1}}) == first
    changed = [key | {"dataset": "b"}, key | {"version": 2}, key | {"version": "1"}, key | {"view": ["x", 3]},
               key | {"deep": {"k": 2, "l": 2}}, key | {"more": None}, {}]  # fmt: skip
    fingerprints = [first, *map(fingerprint, changed)]
    assert len(set(fingerprints)) == len(fingerprints)
