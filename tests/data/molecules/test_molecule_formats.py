"""Files of molecules as found in practice: SMILES, SDF, no header, decimal commas, encodings, non-molecules."""

import gzip
import json
import shlex
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hydra.core.override_parser.types import Override

pytest.importorskip("rdkit")
from gt.cli.arguments import parse_overrides
from gt.cli.command import prepare_arguments
from gt.cli.config import check_value
from gt.data.graphs import GraphData
from gt.data.molecules.columns import find_column, smiles_column, target_columns
from gt.data.molecules.files import read_molecules
from gt.data.molecules.molecules import Molecules
from gt.data.molecules.parsing import read, reason
from gt.data.table import decimal_points, delimiter_of
from gt.errors import UserError, shell_override
from tests.data.modules import make_data
from tests.data.tables_of import error_line

SMILES = ["C" * (n % 9 + 1) + "O" * (n % 2) + "c1ccccc1" * (n % 3 > 0) for n in range(40)]
VALUES = [n / 8 - 2 for n in range(40)]


def open_data(path: Path, **options: object) -> Molecules:
    options = {"split": "random", "processes": 1} | options
    data = make_data(GraphData, Molecules, str(path), root=str(path.parent / "built"), **options)  # type: ignore[arg-type]
    data.open([])
    return data


def write_rows(path: Path, *columns: list, header: str = "", delimiter: str = ",", encoding: str = "utf-8") -> Path:
    rows = [delimiter.join(map(str, cells)) for cells in zip(*columns, strict=True)]
    path.write_text("\n".join(([header] if header else []) + rows) + "\n", encoding=encoding)
    return path


def targets_of(data: Molecules) -> list[float]:
    assert (data.schema.kind, data.schema.mean != ()) == ("regression", True)
    return np.asarray(data.graphs.graphs["y"])[:, 0].tolist()


@pytest.mark.parametrize("delimiter", [";", "\t"])
def test_decimal_commas(delimiter: str, tmp_path: Path) -> None:
    commas = [f"{value:.3f}".replace(".", ",") for value in VALUES]
    path = write_rows(tmp_path / "a.csv", SMILES, commas, header=f"smiles{delimiter}logS", delimiter=delimiter)
    assert targets_of(open_data(path)) == pytest.approx(VALUES)


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (["1,5", None, "-2"], ["1.5", None, "-2"]),
        (["1.234,5", "12", "1.000"], ["1234.5", "12", "1000"]),  # points separate thousands if commas are decimal
        ([",5", "1,5e-3"], [".5", "1.5e-3"]),
        (["1.5", "2"], ["1.5", "2"]),
        (["1,5", "a", "b"], ["1,5", "a", "b"]),  # words
        (["1,2,3", "1,2"], ["1,2,3", "1,2"]),
        (["12,5", "1.234"], ["12,5", "1.234"]),  # ambiguous: perhaps 1234
        (["1,234", "12,500"], ["1,234", "12,500"]),
        (["1,234", "0,123"], ["1.234", "0.123"]),
        (["1.234.567,5", "1.234"], ["1234567.5", "1234"]),
        (["1,5"] * 19 + ["n.d."], ["1.5"] * 19 + ["n.d."]),
    ],
)
def test_decimal_commas_of_a_column(cells: list[str | None], expected: list[str | None]) -> None:
    assert list(decimal_points(cells)) == expected


def test_delimiter_is_found_outside_quotes() -> None:
    assert [delimiter_of(line) for line in ("a,b", "a;b", "a\tb", "a;b,c", '"a,b";c', '"a ""x, y""";c', "a")] == [
        ",", ";", "\t", ",", ";", ";", ","
    ]  # fmt: skip
    assert delimiter_of("a,b\tc", tabs=True) == "\t"


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.txt"])
def test_columns_by_number_without_header(name: str, tmp_path: Path) -> None:
    delimiter = "\t" if name == "a.tsv" else ","
    path = write_rows(tmp_path / name, VALUES, SMILES, ["x"] * 40, delimiter=delimiter)
    data = open_data(path, smiles=1, target=0)
    assert targets_of(data) == pytest.approx(VALUES)
    assert (data.schema.target, data.source.names(data.graphs)["1"].tolist()) == (("0",), SMILES)
    assert "data.smiles=1 data.target=NUMBER" in error_line(lambda: open_data(path))
    assert "no column '7'" in error_line(lambda: open_data(path, smiles=1, target=7))


@pytest.mark.parametrize("column", [0, 1])
def test_label_equal_to_column_number_is_not_a_header(column: int, tmp_path: Path) -> None:
    labels = [(column + n) % 2 for n in range(40)]  # the first equals the column number
    columns = [SMILES, labels] if column == 0 else [labels, SMILES]
    data = open_data(write_rows(tmp_path / "a.csv", *columns), smiles=column, target=1 - column)
    assert (len(data.graphs), data.schema.target) == (40, (str(1 - column),))
    assert np.asarray(data.graphs.graphs["y"])[:, 0].tolist() == labels
    with_header = write_rows(tmp_path / "b.csv", *columns, header="0,1")  # as pandas names unnamed columns
    assert len(open_data(with_header, smiles=column, target=1 - column).graphs) == 40


def test_unused_columns_are_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = [f"compound {n}" for n in range(40)]
    path = write_rows(tmp_path / "a.csv", names, SMILES, VALUES, VALUES, header="name,smiles,logS,logS predicted")
    assert open_data(path).schema.target == ("logS",)
    assert "not used: name, logS predicted" in capsys.readouterr().out


def test_columns_by_number_despite_header(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "a.csv", VALUES, SMILES, header="logS,smiles")
    assert open_data(path, smiles=1, target=0).schema.target == ("logS",)
    numeric_names = write_rows(tmp_path / "b.csv", SMILES, VALUES, VALUES[::-1], [1] * 40, header="smiles,400,402,1")
    assert open_data(numeric_names, target=[400, 402]).schema.target == ("400", "402")
    assert open_data(numeric_names, target=400).schema.target == ("400",)


@pytest.mark.parametrize("header", ["", "SMILES\tID"])
def test_smi_files(header: str, tmp_path: Path) -> None:
    names = [f"a name {n}" for n in range(40)]
    path = write_rows(tmp_path / "a.smi", SMILES, names, VALUES, delimiter="\t", header=header and header + "\tlogS")
    data = open_data(path)
    assert targets_of(data) == pytest.approx(VALUES)
    blanks = tmp_path / "b.smi"
    blanks.write_text("\n".join(f"{text}  {name}" for text, name in zip(SMILES, names, strict=True)) + "\n\nCC\n")
    table = read_molecules(blanks)
    assert {name: cells.tolist() for name, cells in table.columns.items()} == {
        "smiles": [*SMILES, "CC"],
        "name": [*names, None],
    }
    assert (table.location(0), table.location(40), table.faults) == (f"{blanks}, line 1", f"{blanks}, line 42", {})
    numbered = write_rows(tmp_path / "c.smi", SMILES, range(700, 780, 2), delimiter=" ")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="no column could be a target"):
        open_data(numbered)  # ids
    alone = tmp_path / "d.smi"
    alone.write_text("CCO\nCC\n")
    assert {name: cells.tolist() for name, cells in read_molecules(alone).columns.items()} == {"smiles": ["CCO", "CC"]}


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig", "utf-32"])
def test_encodings_with_byte_order_mark(encoding: str, tmp_path: Path) -> None:
    path = write_rows(tmp_path / "a.csv", SMILES, ["é", "ä"] * 20, header="smiles,label", encoding=encoding)
    assert open_data(path).schema.target == ("label",)
    assert open_data(path).graphs.notes["classes"] == ["0 = ä", "1 = é"]  # type: ignore[union-attr]


def test_invalid_bytes_skip_rows_only_in_used_columns(tmp_path: Path) -> None:
    names = ["café" if n == 3 else "tea" for n in range(40)]
    labels = ["né" if n == 5 else "yes" if n % 2 else "no" for n in range(40)]
    path = write_rows(tmp_path / "a.csv", SMILES, names, labels, header="smiles,note,label", encoding="latin-1")
    data = open_data(path)
    assert data.source.skipped_rows.read_text().splitlines()[1:] == [
        f"5,7,{SMILES[5]},\"byte 0xe9 is not UTF-8 text, in 'label'\",{path}"
    ]
    assert (len(data.graphs), data.schema.kind) == (39, "binary")


def test_truncated_utf16_file(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes("smiles,y\nC,1\nCC,2\n".encode("utf-16")[:-1])
    with pytest.raises(UserError, match=r"a.csv, line \d: byte 0x0a is not UTF-16 text"):
        read_molecules(tmp_path / "a.csv")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("InChI=1S/CH4/h1H4", "Chem.MolFromInchi"),
        ("CCO>>CC=O", "reaction"),
        ("CCO>[Na+]>CC=O", "reaction"),
        ("CCO CCN", "2 molecules"),
        ("CCO\tCCN", "2 molecules"),
        ("CCO,CCN", "2 molecules"),
        ("CCO; CCN; C", "3 molecules"),
        ("CCO.CCN", None),  # a salt or a mixture is one record
        ("CCO ethanol", None),  # a name
        ("[NH3]->[Cu]", None),
        ("CC |(0.75,-0.43,;-0.75,0.43,)|", None),  # coordinates
    ],
)
def test_text_other_than_one_molecule_is_explained(text: str, message: str | None) -> None:
    assert (read(text) is None) == (message is not None)
    if message:
        assert message in reason(text)


def test_files_of_reactions_or_pairs_are_rejected(tmp_path: Path) -> None:
    reactions = [f"{text}>>{text}N" for text in SMILES]
    path = write_rows(tmp_path / "a.csv", reactions, VALUES, header="rxn,yield")
    assert "'rxn' holds a reaction" in error_line(lambda: open_data(path))
    assert "a reaction" in error_line(lambda: open_data(path, smiles="rxn"))
    path = write_rows(tmp_path / "b.csv", [f"InChI=1S/CH{n}" for n in range(len(VALUES))], VALUES, header="inchi,yield")
    assert "'inchi' holds InChI" in error_line(lambda: open_data(path))
    other_smiles = [text + "N" for text in SMILES]
    for header in ("drug_smiles,target_smiles,y", "first,second,y", "smiles,solvent_smiles,y"):
        first, second, _ = header.split(",")
        pairs = write_rows(tmp_path / "b.csv", SMILES, other_smiles, VALUES, header=header)
        line = error_line(lambda pairs=pairs: open_data(pairs))
        assert f"'{first}'" in line
        assert f"'{second}'" in line
        assert targets_of(open_data(pairs, smiles=first)) == pytest.approx(VALUES)
    duplicates = write_rows(tmp_path / "c.csv", SMILES, SMILES, VALUES, header="smiles,canonical_smiles,y")
    assert targets_of(open_data(duplicates)) == pytest.approx(VALUES)


NAMES = ["log S (mol/L)", "a,b", 'say "x"', "400", "1.5", "007", "[x]", "{yy}", "a=b", "null", "it's", "back\\", "µ g"]


@pytest.mark.parametrize("name", NAMES)
def test_suggested_override_works_for_any_column_name(name: str, tmp_path: Path) -> None:
    """The override shown in a message, as parsed by the shell and Hydra, names the same columns."""
    quoted = f'"{name.replace(chr(34), 2 * chr(34))}"'
    path = write_rows(tmp_path / "a.csv", SMILES, VALUES, VALUES[::-1], header=f"smiles,{quoted},other")
    for value in (name, [name, "other"]):
        [argument] = shlex.split(shell_override("data.target", value))
        parsed = parse_overrides([argument])[0].value()
        assert (list(map(str, parsed)) if isinstance(parsed, list) else str(parsed)) == value
    table = read_molecules(path)
    assert find_column(table, name, "data.target") == name
    message = error_line(lambda: target_columns(table, {"smiles"}))
    assert shell_override("data.target", name) in message


def test_suggestion_quotes_values_that_hydra_misreads() -> None:
    def hint(argument: str) -> list[Override]:
        def check() -> None:
            [override] = parse_overrides([argument])
            check_value("data.target", override.value(), str | int | Sequence[str | int] | None)

        return parse_overrides([shlex.split(error_line(check).partition("as text: ")[2])[0]])

    assert [each.value() for each in hint("data.target=log(S)")] == ["log(S)"]
    assert [each.value() for each in hint("data.target=[log(S), x]")] == [["log(S)", "x"]]
    assert [each.value() for each in hint("data.target=1.5")] == ["1.5"]
    assert [each.value() for each in hint("data.target=[1.5,2]")] == [["1.5", 2]]
    line = error_line(lambda: prepare_arguments(["data=molecules", "data.path=a.csv", "data.target=a,b"]))
    assert line.endswith("'data.target=[a,b]'")


@pytest.mark.parametrize("name", ["a.sdf", "a.sdf.gz"])
def test_sdf_structures_and_properties(name: str, tmp_path: Path) -> None:
    from rdkit import Chem

    texts = ["CCO", "C[C@H](N)C(=O)O", "c1ccccc1"]
    records = []
    for number, text in enumerate(texts):
        block = Chem.MolToMolBlock(Chem.MolFromSmiles(text), kekulize=True)
        records.append(f"{block}> <logP>  ({number})\n{number / 2}\n\n> <note>\n\n\n$$$$\n")
    records.insert(1, "title\nnot a molecule\n$$$$\n")
    data = "".join(records).encode()
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith("gz") else data)
    table = read_molecules(tmp_path / name)
    smiles = table.columns[smiles_column(table)][[0, 2, 3]]
    assert [Chem.CanonSmiles(text) for text in smiles] == [Chem.CanonSmiles(text) for text in texts]
    assert table.columns["logP"].tolist() == ["0.0", None, "0.5", "1.0"]
    assert table.columns["note"].tolist() == [None] * 4
    first = records[0].count("\n")
    assert table.faults == {1: ("title", "RDKit cannot read the structure")}
    assert [table.location(row) for row in (1, 2)] == [f"{tmp_path / name}, line {first + n}" for n in (1, 4)]


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl"])
def test_words_for_missing_values(name: str, tmp_path: Path) -> None:
    words = ["1.5", "NA", "nan", "", " None "]
    lines = {
        "a.csv": ["smiles,y", *(f"C,{word}" for word in words)],
        "a.jsonl": [json.dumps({"smiles": "C", "y": word}) for word in words],
    }
    (tmp_path / name).write_text("\n".join(lines[name]) + "\n")
    assert read_molecules(tmp_path / name).columns["y"].tolist() == ["1.5", None, None, None, None]


def test_json_lines_and_parquet(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    frame = pd.DataFrame({"smiles": SMILES, "logS": VALUES})
    frame.to_json(tmp_path / "a.jsonl", orient="records", lines=True)
    frame.to_parquet(tmp_path / "a.parquet")
    for name in ("a.jsonl", "a.parquet"):
        assert targets_of(open_data(tmp_path / name)) == pytest.approx(VALUES)
