"""Text classification: columns, headers, skipped rows and errors of labelled tables, splits, and path graphs."""

import csv
import datetime
import decimal
import gzip
import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from gt.data.graphs import GraphData
from gt.data.packed import pointers
from gt.data.text.classification import TextClassification, by_fractions
from gt.data.text.known import known_texts
from gt.data.text.labelled import Columns, find_columns, has_header, read_rows
from gt.data.text.paths import paths_in_order
from gt.data.text.tokenizer import Bytes, loads
from gt.encodings import RandomWalk
from gt.errors import UserError
from tests.data.modules import over

ROWS = [(f"a {'good' if i % 3 else 'bad'} film, number {i}", "pos" if i % 3 else "neg") for i in range(60)]


def write_tsv(path: Path, rows=ROWS, header: str = "") -> Path:
    path.write_text(header + "".join(f"{text}\t{label}\n" for text, label in rows), encoding="utf-8")
    return path


def open_data(path: Path, **options) -> TextClassification:
    data = over(
        GraphData, TextClassification, str(path), **({"batch_size": 4, "root": str(path.parent / "root")} | options)
    )
    data.open([])
    return data


def decoded_split(data: TextClassification, split: str) -> list[tuple[str, str]]:
    """The texts of a split, decoded from their tokens, with their labels."""
    tokenizer = loads(data.schema.tokenizer)
    texts = []
    for graph in data.graphs.splits[split]:
        start, stop = data.graphs.node_ptr[[graph, graph + 1]]
        tokens = data.graphs.nodes["x"][start:stop, 0].tolist()
        texts.append((tokenizer.decode(tokens), data.schema.names[data.graphs.graphs["y"][graph]]))
    return texts


# ---- columns


FILES = {
    "csv with a header": ("a.csv", 'label,text\n1,"good, ""really"""\n0,"two\nlines"\n', ["1", "0"]),
    "csv without": ("a.csv", '1,"good, ""really"""\n0,"two\nlines"\n', ["1", "0"]),
    "tsv without": ("a.tsv", 'good, "really"\t1\ntwo words\t0\n', ["1", "0"]),
    "tsv with other names": ("a.TSV", "id\tReview\tsentiment\n7\tgood film\tpos\n8\tbad film\tneg\n", ["pos", "neg"]),
    "tsv with numbers": ("a.tsv", "1\tsome long text here\ta\n2\tother long text\ta\n3\tand more text\tb\n",
     list("aab")),
    "jsonl": ("a.jsonl", '{"text": "good", "label": 1}\n\n{"label": 0, "text": "bad"}\n', ["1", "0"]),
    "jsonl with words": ("a.jsonl", '{"sentence": "good", "label": true}\n{"sentence": "x", "label": "no"}\n',
     ["true", "no"]),
    "semicolons": ("a.csv", 'label;text\n1;"good; ""really"", yes"\n0;two, words\n', ["1", "0"]),
    "tabs in a csv": ("a.csv", "good film\t1\nbad film\t0\n", ["1", "0"]),
    "a byte order mark": ("a.csv", "\ufefftext,label\ngood,1\n", ["1"]),
}  # fmt: skip


@pytest.mark.parametrize(("name", "content", "labels"), FILES.values(), ids=FILES)
@pytest.mark.parametrize("gzipped", [False, True])
def test_columns_are_found(name, content, labels, gzipped, tmp_path):
    path = tmp_path / (name + ".gz" if gzipped else name)
    path.write_bytes(gzip.compress(content.encode()) if gzipped else content.encode())
    columns = find_columns(path, None, None)
    texts, found_labels, _ = read_rows(path, columns)
    assert found_labels == labels
    assert len(texts[0]) >= 4
    assert not any(text in labels for text in texts)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "utf-8-sig"])
def test_byte_order_marks_are_recognised(encoding, tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("text,label\nune journée,né\n", encoding=encoding)
    assert read_rows(path, find_columns(path, None, None))[:2] == (["une journée"], ["né"])


@pytest.mark.parametrize(("distinct", "texts"), [(40, 40), (30, 40), (8, 8)])
def test_nearly_unique_labels_are_rejected(distinct, texts, tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("text,label\n" + "".join(f"text number {n},name {n % distinct}\n" for n in range(texts)))
    with pytest.raises(UserError, match=rf"'label' has {distinct} different values for {texts} texts"):
        open_data(path)
    path.write_text("text,label\n" + "".join(f"text number {n},name {n % 20}\n" for n in range(200)))
    assert open_data(path).schema.target == ("label",)


def write_three_classes(path: Path, header: str = "") -> Path:
    rows = [f"a film of {n} minutes and more,{('fine', 'poor', 'so so')[n % 3]}\n" for n in range(30)]
    path.write_text(header + "".join(rows))
    return path


def test_header_with_unusual_names_is_recognised(tmp_path, capsys):
    data = open_data(write_three_classes(tmp_path / "a.csv", "phrase,polarity\n"))
    assert (len(data.graphs), data.schema.outputs) == (30, 3)
    assert (data.schema.node_names, data.schema.target) == (("phrase",), ("polarity",))
    assert len(open_data(write_three_classes(tmp_path / "b.csv")).graphs) == 30
    assert "no header" not in capsys.readouterr().out


@pytest.mark.parametrize("strange", ["--5", "7" * 19, "-", "½"])
def test_labels_with_text_are_sorted_as_text(strange, tmp_path):
    labels = ("10", "9", strange)
    rows = "".join(f"a longer text, number {n}, about nothing\t{label}\n" for n in range(30) for label in labels)
    (tmp_path / "a.tsv").write_text(rows)
    data = over(GraphData, TextClassification, str(tmp_path / "a.tsv"), root=str(tmp_path))
    data.open([])
    assert data.schema.names == tuple(sorted(labels))


HEADERS = {  # content, and whether its first line is a header, None if it cannot be told
    "a word above numbers": ("phrase,points\ngood,1\n", True),
    "a word above ids": ("n,phrase\n1,good\n2,bad\n", True),
    "numbers throughout": ("good,1\nbad,0\n", False),
    "a label that occurs again": ("good film,pos\nbad film,neg\nfine film,pos\n", False),
    "labels that repeat": ("phrase,polarity\n" + "good film,pos\nbad film,neg\n" * 5, True),
    "too few labels": ("phrase,polarity\n" + "good film,pos\nbad film,neg\n" * 4, None),
    "labels of one row each": ("phrase,polarity\ngood film,pos\nbad film,neg\n", None),
    "one row": ("phrase,polarity\n", None),
    "usual names": ("Review,polarity\ngood film,pos\n", True),
    "labels that are usual names": ("good film,y\nbad film,n\nfine film,y\n", False),
}


@pytest.mark.parametrize("name", HEADERS)
def test_header_detection(name, tmp_path):
    path, (content, expected) = tmp_path / "a.csv", HEADERS[name]
    path.write_text(content)
    likely = name == "labels that repeat"
    assert has_header(path, (None, None)) == (bool(expected), expected is not None and not likely)
    assert has_header(path, (path.read_text().partition(",")[0], None)) == (True, True)  # a column requested by name
    assert has_header(path, (None, "1")) == (name == "usual names", True)  # a column requested by number


def test_likely_header_is_announced(tmp_path, capsys):
    path = tmp_path / "a.csv"
    path.write_text("the only one,rare\n" + "".join(f"text {n},{'ab'[n % 2]}\n" for n in range(40)))
    assert len(open_data(path).graphs) == 40
    assert "line 1" in capsys.readouterr().out.splitlines()[-1]
    assert len(open_data(path, text="0", label="1").graphs) == 41
    assert "line 1" not in capsys.readouterr().out


def test_possible_header_read_as_data_is_announced(tmp_path, capsys):
    path = tmp_path / "a.csv"
    path.write_text("phrase,polarity\n" + "".join(f"text {n},{min(n, 15)}th\n" for n in range(40)))
    open_data(path, folds=3)
    assert "line 1" in capsys.readouterr().out.splitlines()[-1]
    data = open_data(path, folds=3, text="phrase")
    assert (data.schema.target, len(data.graphs)) == (("polarity",), 40)
    assert "line 1" not in capsys.readouterr().out


def test_suggested_columns_are_plausible(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("Review Text,sentiment,user\n" + "".join(f"a fine film,good,{n}\n" for n in range(9)))
    with pytest.raises(UserError, match=r"""such as 'data\.text="Review Text"';"""):
        open_data(path)
    path.write_text("n,phrase,polarity\n" + "".join(f"{n},a fine film,good\n" for n in range(9)))
    with pytest.raises(UserError, match=r"such as data\.text=phrase data\.label=polarity; columns found: n, phrase"):
        open_data(path)


def test_chosen_columns_are_printed(tmp_path, capsys):
    path = tmp_path / "a.csv"
    path.write_text("id,text,label,note\n" + "".join(f"{n},a text,{['no', 'yes'][n % 2]},x\n" for n in range(40)))
    open_data(path)
    output = capsys.readouterr().out
    for part in (str(path), "'text'", "'label'", "no, yes", "train 32", "not used: id, note"):
        assert part in output


def test_parquet_file(tmp_path):
    pytest.importorskip("pyarrow")
    path = tmp_path / "a.parquet"
    frame = pd.DataFrame({"sentence": [text for text, _ in ROWS], "label": [int(label == "pos") for _, label in ROWS]})
    frame.to_parquet(path)
    assert read_rows(path, find_columns(path, None, None))[:2] == (
        list(frame["sentence"]),
        list(map(str, frame["label"])),
    )
    frame.loc[7, "sentence"] = None
    frame.to_parquet(path)
    assert len(open_data(path).graphs) == len(ROWS) - 1


def test_typed_parquet_cells(tmp_path):
    pytest.importorskip("pyarrow")
    path, texts = tmp_path / "a.parquet", [text for text, _ in ROWS]
    day = {"pos": datetime.date(2026, 1, 2), "neg": datetime.date(2026, 1, 3)}
    accepted = {
        "days": ([day[label] for _, label in ROWS], "2026-01-02"),
        "decimals": ([decimal.Decimal("1.50") if label == "pos" else None for _, label in ROWS], "1.50"),
        "whole": (pd.array([7 if label == "pos" else None for _, label in ROWS], "Int64"), "7"),
    }
    for labels, cell in accepted.values():
        pd.DataFrame({"text": texts, "label": labels}).to_parquet(path)
        assert cell in read_rows(path, find_columns(path, None, None))[1]
    rejected = {
        "'label' should be one label, not [1, 2]": {"text": texts, "label": [[1, 2]] * len(ROWS)},
        "'text' should be text, not b'a'": {"text": [b"a"] * len(ROWS), "label": [label for _, label in ROWS]},
    }
    for message, columns in rejected.items():
        pd.DataFrame(columns).to_parquet(path)
        with pytest.raises(UserError, match=re.escape(message)):
            read_rows(path, find_columns(path, None, None))


def test_new_texts_beside_typed_parquet_cells(tmp_path):
    pytest.importorskip("pyarrow")
    model_schema = open_data(write_tsv(tmp_path / "a.tsv")).schema
    frame = pd.DataFrame({"text": ["a", "b"], "tags": [["x", "y"], None], "raw": [b"z", None]})
    frame["when"] = pd.to_datetime(["2026-01-02", None]).astype("datetime64[ns]")
    frame.to_parquet(tmp_path / "b.parquet")
    texts, _, records = known_texts([tmp_path / "b.parquet"], None, model_schema)
    assert texts == ["a", "b"]
    assert records.table.iloc[0].tolist() == ["a", '["x", "y"]', "b'z'", "2026-01-02 00:00:00"]
    assert records.table.iloc[1].tolist() == ["b", "", "", ""]


def test_quotes_follow_the_dialect_of_the_file(tmp_path):
    for name, text in (("csv with a header", 'good, "really"'), ("tsv without", 'good, "really"')):
        file, content, _ = FILES[name]
        (tmp_path / file).write_text(content)
        assert read_rows(tmp_path / file, find_columns(tmp_path / file, None, None))[0][0] == text


def test_requested_columns_are_used(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("text,label,title,kind\nlong long text,1,short,a\nmore of it,0,brief,b\n")
    assert read_rows(path, find_columns(path, "title", "kind"))[:2] == (["short", "brief"], ["a", "b"])
    assert find_columns(path, None, "kind") == Columns("text", "kind", others=("label", "title"))
    path.write_text("1,some text,a\n2,other text,b\n")
    assert find_columns(path, "1", "0") == Columns("1", "0", header=False, others=("2",))


def test_incomplete_rows_are_skipped_and_listed(tmp_path, capsys):
    rows = [f"text number {n},{'yes' if n % 2 else 'no'}" for n in range(40)]
    clean_path = tmp_path / "clean.csv"
    clean_path.write_text("\n".join(["text,label", *rows]))
    train, dev = tmp_path / "train.csv", tmp_path / "dev.csv"
    train.write_text("\n".join(["text,label", *rows[:5], " ,yes", *rows[5:], '"no, label",']))
    dev.write_text("\n".join(["text,label", "a number,yes", ",", "a text,no"]))
    data, clean_data = open_data(train, valid_path=str(dev)), open_data(clean_path, valid_path=str(dev))
    assert decoded_split(data, "train") == decoded_split(clean_data, "train")
    assert len(data.source.texts_of(data.graphs)) == len(data.graphs) == 42
    assert f"3 of 45 rows skipped, listed in {data.source.skipped_rows}" in capsys.readouterr().out
    with open(data.source.skipped_rows, newline="") as file:
        listed = [(row["row"], row["line"], row["text"], Path(row["file"])) for row in csv.DictReader(file)]
    assert listed == [("5", "7", "", train), ("41", "43", "no, label", train), ("1", "3", "", dev)]


def test_complete_rows_print_no_notice(tmp_path, capsys):
    data = open_data(write_tsv(tmp_path / "a.tsv"))
    assert "skipped" not in capsys.readouterr().out
    assert not data.source.skipped_rows.exists()


FAULTS = {
    "ragged csv": ("a.csv", 'good text,1\n"bad\ntext",0,3\n', "{path}, line 2: 3 cells where the first line has 2"),
    "empty texts": ("a.tsv", "\t1\n  \t0\n", "{path}, line 1: the text is empty; no other row can be used either"),
    "empty": ("a.csv", "\n", "{path} is empty"),
    "empty jsonl": ("a.jsonl", "", "{path} is empty"),
    "header alone": ("a.csv", "text,label\n", "{path} has no rows: each row should hold a text and a label"),
    "one column": ("a.csv", "good no\nbad yes\n",
     "{path}, line 1: only one column, expected a text and a label"),
    "no object": ("a.jsonl", '{"text": "a", "label": 1}\n[1]\n', "{path}, line 2: each line should be a JSON object"),
    "no label": ("a.jsonl", '{"text": "a", "labl": 1}\n' * 2 + '{"text": "", "label": 1}\n',
     "{path}, line 1: there is no 'label'; did you mean 'labl'?"),
    "number": ("a.jsonl", '{"text": 3, "label": 1}\n', "{path}, line 1: 'text' should be text, not 3"),
    "labels": ("a.jsonl", '{"text": "a", "label": [1]}\n', "{path}, line 1: 'label' should be one label, not [1]"),
    "one class": ("a.tsv", "good text\t1\n" * 30,
     "every training text of {path} has the label '1': there is nothing to learn"),
    "too few": ("a.tsv", "good text\t1\nbad text\t0\n",
     "{path} has 2 rows: too few to split, valid and test would be empty"),
    "quote": ("a.csv", 'text,label\n"good" film,1\n', "{path}, line 2: "),
    "ending": ("a.xml", "<a>", "{path} is not CSV, TSV, JSONL or Parquet"),
}  # fmt: skip


@pytest.mark.parametrize(("name", "content", "message"), FAULTS.values(), ids=FAULTS)
def test_fault_is_one_line_with_file_and_row(name, content, message, tmp_path):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError) as caught:
        open_data(path)
    assert message.format(path=path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"text": "sentense"}, "has no column 'sentense' (data.text): did you mean 'sentence'?"),
        ({"label": "lable"}, "has no column 'lable' (data.label): did you mean 'label'?"),
        ({"label": "sentence"}, "cannot be both text and label"),
    ],
)
def test_invalid_column_options_are_reported(options, message, tmp_path):
    with pytest.raises(UserError) as caught:
        open_data(write_tsv(tmp_path / "a.tsv", header="sentence\tlabel\n"), **options)
    assert message in str(caught.value)


def test_columns_without_header_are_numbered(tmp_path):
    with pytest.raises(UserError, match=r"a\.tsv has no column 'txt' \(data.text\): .* numbered 0 to 1"):
        open_data(write_tsv(tmp_path / "a.tsv"), text="txt")


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
            over(GraphData, TextClassification, "any", **options)


# ---- splits


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


# ---- graphs


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


def test_store_is_named_after_its_file_and_found_by_content(tmp_path, capsys):
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
