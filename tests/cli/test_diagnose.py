"""``python -m gt.diagnose`` on runs of each kind of data: a table, a CSV file and a picture."""

from pathlib import Path

import pandas as pd
import pytest
import torch

import gt
from gt.cli.diagnosis import draw
from gt.data.graphs import GraphData
from gt.data.large.nodes import NodeData
from gt.data.own.csv_graphs import CSVGraphs
from gt.data.own.graph_files import GraphFiles
from gt.data.text.corpus import Text
from gt.data.text.language import LanguageData
from gt.diagnose import main
from gt.errors import UserError
from gt.inference.diagnostics import dirichlet_energy
from tests.runs import network, write_run
from tests.small_runs import write_graphs


def graph_run(folder: Path) -> Path:
    write_graphs(folder)
    options = {"path": str(folder / "graphs.jsonl"), "target": "y", "batch_size": 4}
    return write_run(folder, GraphFiles, network("encoding=[degree]", "model.depth=2"), **options)


def node_run(folder: Path) -> Path:
    (folder / "mine").mkdir()
    splits = ["train", "valid", "test"]
    rows = [f"paper{n},{n},{'ab'[n % 2]},{splits[n % 3]}" for n in range(12)]
    (folder / "mine" / "nodes.csv").write_text("\n".join(["node,size,label,split", *rows]))
    edges = [f"paper{n},paper{n + 1}" for n in range(9)]  # two nodes have no edges
    (folder / "mine" / "edges.csv").write_text("\n".join(["source,target", *edges]))
    return write_run(folder, CSVGraphs, network("model=gin", "model.depth=3"), NodeData, path=str(folder / "mine"))


def text_run(folder: Path) -> Path:
    (folder / "a.txt").write_text("The cat sat on the mat, and the dog sat on the cat. " * 40)
    options = {"path": str(folder / "a.txt"), "context": 16, "batch_size": 4}
    return write_run(folder, Text, network("model=gpt", "mask=causal", "model.depth=2"), LanguageData, **options)


def diagnose(run: Path, *words: str) -> pd.DataFrame:
    main([str(run), "--device", "cpu", "--batches", "2", "--targets", "4", *words])
    return pd.read_csv(run / "diagnostics.csv", dtype={"layer": str})


@pytest.mark.parametrize("make_run", [graph_run, node_run, text_run])
def test_table_and_picture_for_each_kind_of_data(make_run, tmp_path, capsys):
    run = make_run(tmp_path)
    table = diagnose(run)
    output = capsys.readouterr().out
    for name in ("diagnostics.csv", "diagnostics.png"):
        assert str(run / name) in output
    assert "Dirichlet energy" in output
    assert (run / "diagnostics.png").read_bytes().startswith(b"\x89PNG")
    assert table["layer"].tolist() == ["input", *(str(n) for n in range(len(table) - 1))]
    assert table["effective_rank"].notna().all()
    assert ("sink_mass" in table) == (make_run is not node_run)
    assert ("sensitivity_64" in table) == (make_run is text_run)  # one hop is one token
    if make_run is node_run:
        assert (table["sensitivity_3"] > 0).tolist() == [False, False, False, True]
        assert (table["sensitivity_further"] == 0).all()


def test_measures_are_of_the_best_checkpoint_and_split(tmp_path):
    run = graph_run(tmp_path)
    table = diagnose(run, "--split", "valid", "--batches", "99")
    net = gt.load(run).net
    data = GraphData(GraphFiles(path=str(tmp_path / "graphs.jsonl"), target="y", root=str(tmp_path / "root")))
    data.open(net.encodings)
    with torch.no_grad():
        energy = torch.cat([dirichlet_energy(net.embed(batch), batch) for batch in data.loader("valid")])
    assert len(energy) == 36
    assert table["dirichlet_energy"][0] == pytest.approx(float(energy.nanmean()), rel=1e-5)


def test_invalid_arguments_are_reported(tmp_path):
    run = node_run(tmp_path)
    with pytest.raises(UserError, match="no split 'best'"):
        main([str(run), "--split", "best"])
    with pytest.raises(UserError, match=r"data\.chunk"):
        main([str(run), "data.chunk=10"])
    with pytest.raises(UserError, match="--hops"):
        main([str(run), "--hops", "0"])
    config = network("model.depth=0")
    (tmp_path / "flat").mkdir()
    write_graphs(tmp_path)
    flat = write_run(tmp_path / "flat", GraphFiles, config, path=str(tmp_path / "graphs.jsonl"), target="y")
    with pytest.raises(UserError, match=r"best\.ckpt"):
        main([str(flat)])
    assert not (run / "diagnostics.csv").exists()


def test_picture_without_attention_measures(tmp_path):
    columns = {"layer": ["input", "0"], "dirichlet_energy": [1.0, 0.5], "effective_rank": [3.0, 2.0]}
    columns |= {f"sensitivity_{end}": [0.0, 0.1] for end in (0, 1, "further")}
    draw(pd.DataFrame(columns), tmp_path / "a.png", "states")
    assert (tmp_path / "a.png").stat().st_size > 10_000
