"""Labelled texts: columns are found, splits are kept, a text is a path of its tokens, mistakes are one line."""

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


def tsv(path: Path, rows=ROWS, header: str = "") -> Path:
    path.write_text(header + "".join(f"{text}\t{label}\n" for text, label in rows), encoding="utf-8")
    return path


def opened(path: Path, **options) -> TextClassification:
    data = over(
        GraphData, TextClassification, str(path), **({"batch_size": 4, "root": str(path.parent / "root")} | options)
    )
    data.open([])
    return data


def words(data: TextClassification, split: str) -> list[tuple[str, str]]:
    """Every text of a split as its tokens say it, with its label."""
    tokenizer = loads(data.schema.tokenizer)
    found = []
    for graph in data.graphs.splits[split]:
        low, high = data.graphs.node_ptr[[graph, graph + 1]]
        tokens = data.graphs.nodes["x"][low:high, 0].tolist()
        found.append((tokenizer.decode(tokens), data.schema.names[data.graphs.graphs["y"][graph]]))
    return found


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
@pytest.mark.parametrize("packed", [False, True])
def test_columns_are_found(name, content, labels, packed, tmp_path):
    path = tmp_path / (name + ".gz" if packed else name)
    path.write_bytes(gzip.compress(content.encode()) if packed else content.encode())
    columns = find_columns(path, None, None)
    texts, found, _ = read_rows(path, columns)
    assert found == labels
    assert len(texts[0]) >= 4
    assert not any(text in labels for text in texts)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "utf-8-sig"])
def test_encodings_that_say_what_they_are(encoding, tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("text,label\nune journée,né\n", encoding=encoding)
    assert read_rows(path, find_columns(path, None, None))[:2] == (["une journée"], ["né"])


@pytest.mark.parametrize(("distinct", "texts"), [(40, 40), (30, 40), (8, 8)])
def test_a_name_of_each_row_is_no_label(distinct, texts, tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("text,label\n" + "".join(f"text number {n},name {n % distinct}\n" for n in range(texts)))
    with pytest.raises(UserError, match=rf"'label' has {distinct} different values for {texts} texts"):
        opened(path)
    path.write_text("text,label\n" + "".join(f"text number {n},name {n % 20}\n" for n in range(200)))
    assert opened(path).schema.target == ("label",)


def of_three_classes(path: Path, header: str = "") -> Path:
    rows = [f"a film of {n} minutes and more,{('fine', 'poor', 'so so')[n % 3]}\n" for n in range(30)]
    path.write_text(header + "".join(rows))
    return path


def test_a_header_of_unusual_names_is_no_row(tmp_path, capsys):
    data = opened(of_three_classes(tmp_path / "a.csv", "phrase,polarity\n"))
    assert (len(data.graphs), data.schema.outputs) == (30, 3)
    assert (data.schema.node_names, data.schema.target) == (("phrase",), ("polarity",))
    assert len(opened(of_three_classes(tmp_path / "b.csv")).graphs) == 30
    assert "no header" not in capsys.readouterr().out


@pytest.mark.parametrize("strange", ["--5", "7" * 19, "-", "½"])
def test_labels_that_are_no_numbers_are_in_the_order_of_words(strange, tmp_path):
    labels = ("10", "9", strange)
    rows = "".join(f"a longer text, number {n}, about nothing\t{label}\n" for n in range(30) for label in labels)
    (tmp_path / "a.tsv").write_text(rows)
    data = over(GraphData, TextClassification, str(tmp_path / "a.tsv"), root=str(tmp_path))
    data.open([])
    assert data.schema.names == tuple(sorted(labels))


HEADERS = {  # the file, and whether its first line is a header
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
def test_a_header_is_told_from_a_row(name, tmp_path):
    path, (content, expected) = tmp_path / "a.csv", HEADERS[name]
    path.write_text(content)
    likely = name == "labels that repeat"
    assert has_header(path, (None, None)) == (bool(expected), expected is not None and not likely)
    assert has_header(path, (path.read_text().partition(",")[0], None)) == (True, True)  # asked for by its name
    assert has_header(path, (None, "1")) == (name == "usual names", True)  # by its number it is none


def test_a_first_row_that_is_likely_to_be_a_header_is_said_to_be_read_so(tmp_path, capsys):
    path = tmp_path / "a.csv"
    path.write_text("the only one,rare\n" + "".join(f"text {n},{'ab'[n % 2]}\n" for n in range(40)))
    assert len(opened(path).graphs) == 40
    assert "line 1" in capsys.readouterr().out.splitlines()[-1]
    assert len(opened(path, text="0", label="1").graphs) == 41
    assert "line 1" not in capsys.readouterr().out


def test_a_first_row_that_may_be_a_header_is_said_to_be_read_as_data(tmp_path, capsys):
    path = tmp_path / "a.csv"
    path.write_text("phrase,polarity\n" + "".join(f"text {n},{min(n, 15)}th\n" for n in range(40)))
    opened(path, folds=3)
    assert "line 1" in capsys.readouterr().out.splitlines()[-1]
    data = opened(path, folds=3, text="phrase")
    assert (data.schema.target, len(data.graphs)) == (("polarity",), 40)
    assert "line 1" not in capsys.readouterr().out


def test_the_column_that_is_suggested_could_be_the_one(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("Review Text,sentiment,user\n" + "".join(f"a fine film,good,{n}\n" for n in range(9)))
    with pytest.raises(UserError, match=r"""such as 'data\.text="Review Text"';"""):
        opened(path)
    path.write_text("n,phrase,polarity\n" + "".join(f"{n},a fine film,good\n" for n in range(9)))
    with pytest.raises(UserError, match=r"such as data\.text=phrase data\.label=polarity; columns found: n, phrase"):
        opened(path)


def test_what_was_taken_for_what_is_said(tmp_path, capsys):
    path = tmp_path / "a.csv"
    path.write_text("id,text,label,note\n" + "".join(f"{n},a text,{['no', 'yes'][n % 2]},x\n" for n in range(40)))
    opened(path)
    said = capsys.readouterr().out
    for part in (str(path), "'text'", "'label'", "no, yes", "train 32", "not used: id, note"):
        assert part in said


def test_texts_of_a_parquet_file(tmp_path):
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
    assert len(opened(path).graphs) == len(ROWS) - 1


def test_cells_that_only_parquet_has(tmp_path):
    pytest.importorskip("pyarrow")
    path, texts = tmp_path / "a.parquet", [text for text, _ in ROWS]
    day = {"pos": datetime.date(2026, 1, 2), "neg": datetime.date(2026, 1, 3)}
    kinds = {
        "days": ([day[label] for _, label in ROWS], "2026-01-02"),
        "decimals": ([decimal.Decimal("1.50") if label == "pos" else None for _, label in ROWS], "1.50"),
        "whole": (pd.array([7 if label == "pos" else None for _, label in ROWS], "Int64"), "7"),
    }
    for labels, word in kinds.values():
        pd.DataFrame({"text": texts, "label": labels}).to_parquet(path)
        assert word in read_rows(path, find_columns(path, None, None))[1]
    refused = {
        "'label' should be one label, not [1, 2]": {"text": texts, "label": [[1, 2]] * len(ROWS)},
        "'text' should be text, not b'a'": {"text": [b"a"] * len(ROWS), "label": [label for _, label in ROWS]},
    }
    for said, columns in refused.items():
        pd.DataFrame(columns).to_parquet(path)
        with pytest.raises(UserError, match=re.escape(said)):
            read_rows(path, find_columns(path, None, None))


def test_new_texts_beside_cells_that_only_parquet_has(tmp_path):
    pytest.importorskip("pyarrow")
    learned = opened(tsv(tmp_path / "a.tsv")).schema
    frame = pd.DataFrame({"text": ["a", "b"], "tags": [["x", "y"], None], "raw": [b"z", None]})
    frame["when"] = pd.to_datetime(["2026-01-02", None]).astype("datetime64[ns]")
    frame.to_parquet(tmp_path / "b.parquet")
    texts, _, records = known_texts([tmp_path / "b.parquet"], None, learned)
    assert texts == ["a", "b"]
    assert records.table.iloc[0].tolist() == ["a", '["x", "y"]', "b'z'", "2026-01-02 00:00:00"]
    assert records.table.iloc[1].tolist() == ["b", "", "", ""]


def test_quotes_are_read_as_each_kind_of_file_means_them(tmp_path):
    for name, said in (("csv with a header", 'good, "really"'), ("tsv without", 'good, "really"')):
        file, content, _ = FILES[name]
        (tmp_path / file).write_text(content)
        assert read_rows(tmp_path / file, find_columns(tmp_path / file, None, None))[0][0] == said


def test_columns_that_are_asked_for_are_taken(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("text,label,title,kind\nlong long text,1,short,a\nmore of it,0,brief,b\n")
    assert read_rows(path, find_columns(path, "title", "kind"))[:2] == (["short", "brief"], ["a", "b"])
    assert find_columns(path, None, "kind") == Columns("text", "kind", others=("label", "title"))
    path.write_text("1,some text,a\n2,other text,b\n")
    assert find_columns(path, "1", "0") == Columns("1", "0", header=False, others=("2",))


def test_rows_without_a_text_or_a_label_are_skipped_and_listed(tmp_path, capsys):
    rows = [f"text number {n},{'yes' if n % 2 else 'no'}" for n in range(40)]
    clean = tmp_path / "clean.csv"
    clean.write_text("\n".join(["text,label", *rows]))
    train, dev = tmp_path / "train.csv", tmp_path / "dev.csv"
    train.write_text("\n".join(["text,label", *rows[:5], " ,yes", *rows[5:], '"no, label",']))
    dev.write_text("\n".join(["text,label", "a number,yes", ",", "a text,no"]))
    data, same = opened(train, valid_path=str(dev)), opened(clean, valid_path=str(dev))
    assert words(data, "train") == words(same, "train")
    assert len(data.source.texts_of(data.graphs)) == len(data.graphs) == 42
    assert f"3 of 45 rows skipped, listed in {data.source.skipped_rows}" in capsys.readouterr().out
    with open(data.source.skipped_rows, newline="") as file:
        listed = [(row["row"], row["line"], row["text"], Path(row["file"])) for row in csv.DictReader(file)]
    assert listed == [("5", "7", "", train), ("41", "43", "no, label", train), ("1", "3", "", dev)]


def test_nothing_is_said_of_skipped_rows_where_there_are_none(tmp_path, capsys):
    data = opened(tsv(tmp_path / "a.tsv"))
    assert "skipped" not in capsys.readouterr().out
    assert not data.source.skipped_rows.exists()


MISTAKES = {
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


@pytest.mark.parametrize(("name", "content", "said"), MISTAKES.values(), ids=MISTAKES)
def test_mistakes_are_one_line_with_file_and_row(name, content, said, tmp_path):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError) as caught:
        opened(path)
    assert said.format(path=path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"text": "sentense"}, "has no column 'sentense' (data.text): did you mean 'sentence'?"),
        ({"label": "lable"}, "has no column 'lable' (data.label): did you mean 'label'?"),
        ({"label": "sentence"}, "cannot be both text and label"),
    ],
)
def test_unknown_columns_get_the_nearest_name(options, said, tmp_path):
    with pytest.raises(UserError) as caught:
        opened(tsv(tmp_path / "a.tsv", header="sentence\tlabel\n"), **options)
    assert said in str(caught.value)


def test_columns_of_a_file_without_a_header_have_numbers(tmp_path):
    with pytest.raises(UserError, match=r"a\.tsv has no column 'txt' \(data.text\): .* numbered 0 to 1"):
        opened(tsv(tmp_path / "a.tsv"), text="txt")


def test_other_mistakes(tmp_path):
    with pytest.raises(UserError, match="no text file at"):
        opened(tmp_path / "none.tsv")
    tsv(tmp_path / "a.tsv")
    tsv(tmp_path / "b.tsv")
    with pytest.raises(UserError, match=r"is named as the training file: set data.path to the training file"):
        opened(tmp_path)
    strange = tsv(tmp_path / "v.tsv", [("a film", "odd")])
    with pytest.raises(UserError, match=r"the valid split of .* has a label 'odd' that training lacks"):
        opened(tmp_path / "a.tsv", valid_path=str(strange))
    for options in ({"tokens": "characters"}, {"longest": 0}, {"valid": 0.0}, {"valid": 0.5, "test": 0.5}):
        with pytest.raises(ValueError, match=r"must be|leave no training"):
            over(GraphData, TextClassification, "any", **options)


# ---- splits


def test_a_test_split_whose_labels_are_hidden_is_left_out(tmp_path, capsys):
    rows = [(text, str(int(label == "pos"))) for text, label in ROWS]
    for split, some in {"train": rows, "dev": rows[:9], "test": [(text, "-1") for text, _ in rows[:7]]}.items():
        tsv(tmp_path / f"{split}.tsv", some)
    data = opened(tmp_path)
    assert {split: len(ids) for split, ids in data.graphs.splits.items()} == {"train": 60, "valid": 9}
    assert "valid 9; test left out, as its labels are all -1" in capsys.readouterr().out
    (tmp_path / "dev.tsv").unlink()  # nor is another drawn in its place
    assert {split: len(ids) for split, ids in opened(tmp_path).graphs.splits.items()} == {"train": 54, "valid": 6}
    assert "valid 6; test left out, as its labels are all -1" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"data\.folds splits the rows of a single file"):
        opened(tmp_path, folds=5)
    tsv(tmp_path / "test.tsv", [rows[0], ("a film", "-1")])  # these are not hidden, but wrong
    with pytest.raises(UserError, match=r"the test split of .* has a label '-1' that training lacks"):
        opened(tmp_path)
    tsv(tmp_path / "train.tsv", [*rows, ("a film", "-1"), ("two films", "-1")])
    tsv(tmp_path / "test.tsv", [("a film", "-1")])  # nor are those that are a class
    assert len(opened(tmp_path).graphs.splits["test"]) == 1


def test_a_folder_has_the_splits_that_its_files_name(tmp_path, capsys):
    folder = tmp_path / "sst"
    folder.mkdir()
    parts = {"train": ROWS[:40], "dev": ROWS[40:50], "test": ROWS[50:]}
    for name, rows in parts.items():
        tsv(folder / f"{name}.tsv", rows)
    (folder / "README.md").write_text("training notes")
    tsv(folder / "more.tsv", [("unused", "pos")])
    data = opened(folder)
    said = f"{folder}: train train.tsv; valid dev.tsv; test test.tsv; left out README.md, more.tsv"
    assert said in capsys.readouterr().out
    assert {s: len(ids) for s, ids in data.graphs.splits.items()} == {"train": 40, "valid": 10, "test": 10}
    assert words(data, "train")[:2] == [("a bad film , number 0", "neg"), ("a good film , number 1", "pos")]
    assert [label for _, label in words(data, "test")] == [label for _, label in ROWS[50:]]
    # numbers 40 and up were not seen in training
    assert words(data, "valid")[0][0].endswith("number <unknown>")
    assert data.schema.names == ("neg", "pos")
    alone = opened(folder / "train.tsv", valid_path=str(folder / "dev.tsv"))
    assert {s: len(ids) for s, ids in alone.graphs.splits.items()} == {"train": 40, "valid": 10}
    assert words(alone, "valid") == words(data, "valid")


def test_rows_of_one_file_are_shared_out_once_each_and_alike_for_every_class(tmp_path):
    data = opened(tsv(tmp_path / "a.tsv"), valid=0.2, test=0.1)
    counts = {s: len(ids) for s, ids in data.graphs.splits.items()}
    assert counts == {"train": 42, "valid": 12, "test": 6}
    for split, count in counts.items():
        assert sum(label == "neg" for _, label in words(data, split)) == count // 3
    assert sum(len(ids) for ids in data.graphs.splits.values()) == len(ROWS)
    other = opened(tmp_path / "a.tsv", valid=0.2, test=0.1, split_seed=1)
    assert words(other, "train") != words(data, "train")


def test_fractions_are_a_partition():
    labels = np.array([0] * 50 + [1] * 7 + [2])
    parts = by_fractions(labels, [0.2, 0.1], seed=0)
    assert sorted(np.concatenate(parts).tolist()) == list(range(58))
    assert [len(part) for part in parts] == [11, 6, 41]


# ---- graphs


@pytest.mark.parametrize("sizes", [[1], [1, 1], [2], [5, 1, 3], [1, 4]])
def test_paths_have_an_edge_each_way_sorted_by_target(sizes):
    made = paths_in_order(np.array(sizes))
    edges, kinds, edge_ptr = [], [], [0]
    for size in sizes:
        for target in range(size):
            for source, kind in ((target - 1, 0), (target + 1, 1)):
                if 0 <= source < size:
                    edges.append([source, target])
                    kinds.append([kind])
        edge_ptr.append(len(edges))
    assert made["edge_index"].T.tolist() == edges
    assert made["edges"]["edge_attr"].tolist() == kinds
    assert made["edge_ptr"].tolist() == edge_ptr
    assert made["node_ptr"].tolist() == pointers(np.array(sizes)).tolist()


def test_batches_hold_the_texts_and_encodings_of_graphs(tmp_path):
    data = GraphData(TextClassification(str(tsv(tmp_path / "a.tsv")), root=str(tmp_path)), batch_size=4)
    data.open([RandomWalk(4)])
    batch = next(iter(data.loader("train")))
    assert batch.num_graphs == 4
    assert batch.y.shape == (4,)
    assert batch.num_nodes == int(batch.sizes.sum())
    assert torch.equal(batch.edge_attr[:, 0], (batch.edge_index[0] > batch.edge_index[1]).long())
    assert next(iter(batch.extras.values())).shape == (batch.num_nodes, 4)


def test_long_texts_are_cut_and_it_is_said(tmp_path, capsys):
    rows = [*ROWS, ("word " * 50, "pos")] * 2
    data = opened(tsv(tmp_path / "a.tsv", rows), longest=10)
    assert int(data.graphs.sizes.max()) == data.schema.max_nodes == 10
    assert data.graphs.notes["texts cut to 10 tokens"] == 2
    assert "2 of 122 texts were cut to data.longest=10 tokens" in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["words", "bytes", "bpe"])
def test_every_kind_of_token_serves_and_is_learned_on_training_texts_alone(kind, tmp_path):
    if kind == "bpe":
        pytest.importorskip("tokenizers")
    train = tsv(tmp_path / "train.tsv", [("old words", "1"), ("old films", "0")] * 5)
    other = tsv(tmp_path / "dev.tsv", [("unseen words", "1")] * 50)
    data = opened(train, valid_path=str(other), tokens=kind, vocabulary=300)
    tokenizer = loads(data.schema.tokenizer)
    assert data.schema.node_vocab == (tokenizer.size,)
    if kind == "words":
        assert tokenizer.names == ("<unknown>", "old", "films", "words")
        assert words(data, "valid")[0] == ("<unknown> words", "1")
    else:
        assert words(data, "valid")[0] == ("unseen words", "1")
    if kind == "bpe":
        assert len(tokenizer.encode(["unseen"])[0]) > len(tokenizer.encode(["words"])[0])
    if kind == "bytes":
        assert isinstance(tokenizer, Bytes)


def test_labels_that_are_numbers_keep_their_order(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps({"text": f"text {i}", "label": (2, 10, -1)[i % 3]}) + "\n" for i in range(60)))
    assert opened(path).schema.names == ("-1", "2", "10")


def test_a_store_follows_the_files_and_options(tmp_path):
    path = tsv(tmp_path / "a.tsv")
    first = opened(path).source.key()
    assert opened(path).source.key() == first
    assert opened(path, longest=5).source.key() != first
    assert opened(path, valid=0.2).source.key() != first
    tsv(path, ROWS[1:])
    assert opened(path).source.key() != first


def test_a_store_is_called_after_its_file_and_found_by_its_content(tmp_path, capsys):
    path = tsv(tmp_path / "a.tsv")
    first = opened(path).source.folder
    assert first.name.startswith("text_classification-a-")
    tsv(tmp_path / "other.tsv", ROWS[1:])
    opened(tmp_path / "other.tsv")
    assert "other store" not in capsys.readouterr().out  # it is of another file
    assert opened(path.rename(tmp_path / "b.tsv")).source.folder == first


def test_sst2(real_data, tmp_path):
    data = GraphData(TextClassification(str(real_data / "sst2"), root=str(tmp_path)))
    data.open([])
    assert {s: len(ids) for s, ids in data.graphs.splits.items()} == {"train": 6920, "valid": 872, "test": 1821}
    assert words(data, "valid")[0] == ("one long string of cliches", "0")
