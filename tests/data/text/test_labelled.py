"""Tables of labelled texts: columns, headers, Parquet, skipped rows, and errors that name file and row."""

import csv
import datetime
import decimal
import gzip
import re
from pathlib import Path

import pandas as pd
import pytest

from gt.data.text.known import known_texts
from gt.data.text.labelled import Columns, find_columns, has_header, read_rows
from gt.errors import UserError
from tests.data.text.labelled_tables import ROWS, decoded_split, open_data, write_tsv

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
