"""Text classification: classes, splits, texts as path graphs, tokenizers and stores."""

import json

import numpy as np
import pytest
import torch

from gt.data.graphs import GraphData
from gt.data.packed import pointers
from gt.data.text.classification import TextClassification, by_fractions
from gt.data.text.paths import paths_in_order
from gt.data.text.tokenizer import Bytes, loads
from gt.encodings import RandomWalk
from gt.errors import UserError
from tests.data.modules import make_data
from tests.data.text.labelled_tables import ROWS, decoded_split, open_data, write_tsv


@pytest.mark.parametrize("text_label", ["--5", "7" * 19, "-", "½"])
def test_labels_with_text_are_sorted_as_text(text_label, tmp_path):
    labels = ("10", "9", text_label)
    rows = "".join(f"a longer text, number {n}, about nothing\t{label}\n" for n in range(30) for label in labels)
    (tmp_path / "a.tsv").write_text(rows)
    data = make_data(GraphData, TextClassification, str(tmp_path / "a.tsv"), root=str(tmp_path))
    data.open([])
    assert data.schema.names == tuple(sorted(labels))


def test_invalid_paths_labels_and_options_are_rejected(tmp_path):
    with pytest.raises(UserError, match="no text file at"):
        open_data(tmp_path / "none.tsv")
    write_tsv(tmp_path / "a.tsv")
    write_tsv(tmp_path / "b.tsv")
    with pytest.raises(UserError, match=r"is named as the training file: set data.path to the training file"):
        open_data(tmp_path)
    unknown_label = write_tsv(tmp_path / "v.tsv", [("a film", "odd")])
    with pytest.raises(UserError, match=r"the valid split of .* has a label 'odd' that training lacks"):
        open_data(tmp_path / "a.tsv", valid_path=str(unknown_label))
    for options in ({"tokens": "characters"}, {"longest": 0}, {"valid": 0.0}, {"valid": 0.5, "test": 0.5}):
        with pytest.raises(ValueError, match=r"must be|leave no training"):
            make_data(GraphData, TextClassification, "any", **options)


def test_test_split_with_hidden_labels_is_left_out(tmp_path, capsys):
    rows = [(text, str(int(label == "pos"))) for text, label in ROWS]
    for split, part in {"train": rows, "dev": rows[:9], "test": [(text, "-1") for text, _ in rows[:7]]}.items():
        write_tsv(tmp_path / f"{split}.tsv", part)
    data = open_data(tmp_path)
    assert {split: len(ids) for split, ids in data.graphs.splits.items()} == {"train": 60, "valid": 9}
    assert "valid 9; test left out, as its labels are all -1" in capsys.readouterr().out
    (tmp_path / "dev.tsv").unlink()  # no other test split is drawn in its place
    assert {split: len(ids) for split, ids in open_data(tmp_path).graphs.splits.items()} == {"train": 54, "valid": 6}
    assert "valid 6; test left out, as its labels are all -1" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"data\.folds splits the rows of a single file"):
        open_data(tmp_path, folds=5)
    write_tsv(tmp_path / "test.tsv", [rows[0], ("a film", "-1")])  # not hidden, but invalid
    with pytest.raises(UserError, match=r"the test split of .* has a label '-1' that training lacks"):
        open_data(tmp_path)
    write_tsv(tmp_path / "train.tsv", [*rows, ("a film", "-1"), ("two films", "-1")])
    write_tsv(tmp_path / "test.tsv", [("a film", "-1")])  # a class of its own, so not hidden
    assert len(open_data(tmp_path).graphs.splits["test"]) == 1


def test_folder_is_split_by_file_names(tmp_path, capsys):
    folder = tmp_path / "sst"
    folder.mkdir()
    parts = {"train": ROWS[:40], "dev": ROWS[40:50], "test": ROWS[50:]}
    for name, rows in parts.items():
        write_tsv(folder / f"{name}.tsv", rows)
    (folder / "README.md").write_text("training notes")
    write_tsv(folder / "more.tsv", [("unused", "pos")])
    data = open_data(folder)
    notice = f"{folder}: train train.tsv; valid dev.tsv; test test.tsv; left out README.md, more.tsv"
    assert notice in capsys.readouterr().out
    assert {s: len(ids) for s, ids in data.graphs.splits.items()} == {"train": 40, "valid": 10, "test": 10}
    assert decoded_split(data, "train")[:2] == [("a bad film , number 0", "neg"), ("a good film , number 1", "pos")]
    assert [label for _, label in decoded_split(data, "test")] == [label for _, label in ROWS[50:]]
    # numbers from 40 on do not occur in training
    assert decoded_split(data, "valid")[0][0].endswith("number <unknown>")
    assert data.schema.names == ("neg", "pos")
    separate = open_data(folder / "train.tsv", valid_path=str(folder / "dev.tsv"))
    assert {s: len(ids) for s, ids in separate.graphs.splits.items()} == {"train": 40, "valid": 10}
    assert decoded_split(separate, "valid") == decoded_split(data, "valid")


def test_single_file_is_split_by_class(tmp_path):
    data = open_data(write_tsv(tmp_path / "a.tsv"), valid=0.2, test=0.1)
    counts = {s: len(ids) for s, ids in data.graphs.splits.items()}
    assert counts == {"train": 42, "valid": 12, "test": 6}
    for split, count in counts.items():
        assert sum(label == "neg" for _, label in decoded_split(data, split)) == count // 3
    assert sum(len(ids) for ids in data.graphs.splits.values()) == len(ROWS)
    other = open_data(tmp_path / "a.tsv", valid=0.2, test=0.1, split_seed=1)
    assert decoded_split(other, "train") != decoded_split(data, "train")


def test_fractions_give_a_partition():
    labels = np.array([0] * 50 + [1] * 7 + [2])
    parts = by_fractions(labels, [0.2, 0.1], seed=0)
    assert sorted(np.concatenate(parts).tolist()) == list(range(58))
    assert [len(part) for part in parts] == [11, 6, 41]


@pytest.mark.parametrize("sizes", [[1], [1, 1], [2], [5, 1, 3], [1, 4]])
def test_path_edges_in_both_directions_sorted_by_target(sizes):
    arrays = paths_in_order(np.array(sizes))
    edges, kinds, edge_ptr = [], [], [0]
    for size in sizes:
        for target in range(size):
            for source, kind in ((target - 1, 0), (target + 1, 1)):
                if 0 <= source < size:
                    edges.append([source, target])
                    kinds.append([kind])
        edge_ptr.append(len(edges))
    assert arrays["edge_index"].T.tolist() == edges
    assert arrays["edges"]["edge_attr"].tolist() == kinds
    assert arrays["edge_ptr"].tolist() == edge_ptr
    assert arrays["node_ptr"].tolist() == pointers(np.array(sizes)).tolist()


def test_batches_hold_texts_and_encodings(tmp_path):
    data = GraphData(TextClassification(str(write_tsv(tmp_path / "a.tsv")), root=str(tmp_path)), batch_size=4)
    data.open([RandomWalk(4)])
    batch = next(iter(data.loader("train")))
    assert batch.num_graphs == 4
    assert batch.y.shape == (4,)
    assert batch.num_nodes == int(batch.sizes.sum())
    assert torch.equal(batch.edge_attr[:, 0], (batch.edge_index[0] > batch.edge_index[1]).long())
    assert next(iter(batch.extras.values())).shape == (batch.num_nodes, 4)


def test_long_texts_are_truncated_and_counted(tmp_path, capsys):
    rows = [*ROWS, ("word " * 50, "pos")] * 2
    data = open_data(write_tsv(tmp_path / "a.tsv", rows), longest=10)
    assert int(data.graphs.sizes.max()) == data.schema.max_nodes == 10
    assert data.graphs.notes["texts cut to 10 tokens"] == 2
    assert "2 of 122 texts were cut to data.longest=10 tokens" in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["words", "bytes", "bpe"])
def test_tokenizer_is_learned_on_training_texts_alone(kind, tmp_path):
    if kind == "bpe":
        pytest.importorskip("tokenizers")
    train = write_tsv(tmp_path / "train.tsv", [("old words", "1"), ("old films", "0")] * 5)
    dev = write_tsv(tmp_path / "dev.tsv", [("unseen words", "1")] * 50)
    data = open_data(train, valid_path=str(dev), tokens=kind, vocabulary=300)
    tokenizer = loads(data.schema.tokenizer)
    assert data.schema.node_vocab == (tokenizer.size,)
    if kind == "words":
        assert tokenizer.names == ("<unknown>", "old", "films", "words")
        assert decoded_split(data, "valid")[0] == ("<unknown> words", "1")
    else:
        assert decoded_split(data, "valid")[0] == ("unseen words", "1")
    if kind == "bpe":
        assert len(tokenizer.encode(["unseen"])[0]) > len(tokenizer.encode(["words"])[0])
    if kind == "bytes":
        assert isinstance(tokenizer, Bytes)


def test_numeric_labels_are_sorted_by_value(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps({"text": f"text {i}", "label": (2, 10, -1)[i % 3]}) + "\n" for i in range(60)))
    assert open_data(path).schema.names == ("-1", "2", "10")


def test_store_key_depends_on_files_and_options(tmp_path):
    path = write_tsv(tmp_path / "a.tsv")
    first = open_data(path).source.key()
    assert open_data(path).source.key() == first
    assert open_data(path, longest=5).source.key() != first
    assert open_data(path, valid=0.2).source.key() != first
    write_tsv(path, ROWS[1:])
    assert open_data(path).source.key() != first


def test_store_is_named_by_file_and_found_by_content(tmp_path, capsys):
    path = write_tsv(tmp_path / "a.tsv")
    first = open_data(path).source.folder
    assert first.name.startswith("text_classification-a-")
    write_tsv(tmp_path / "other.tsv", ROWS[1:])
    open_data(tmp_path / "other.tsv")
    assert "other store" not in capsys.readouterr().out  # that store is of another file
    assert open_data(path.rename(tmp_path / "b.tsv")).source.folder == first


def test_sst2(real_data, tmp_path):
    data = GraphData(TextClassification(str(real_data / "sst2"), root=str(tmp_path)))
    data.open([])
    assert {s: len(ids) for s, ids in data.graphs.splits.items()} == {"train": 6920, "valid": 872, "test": 1821}
    assert decoded_split(data, "valid")[0] == ("one long string of cliches", "0")
