"""``python -m gt.diagnose`` on runs of each kind: a table, a CSV file and a picture."""

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
from tests.runs import network, run_of
from tests.small_runs import write_graphs


def graphs(folder: Path) -> Path:
    write_graphs(folder)
    options = {"path": str(folder / "graphs.jsonl"), "target": "y", "batch_size": 4}
    return run_of(folder, GraphFiles, network("encoding=[degree]", "model.depth=2"), **options)


def nodes(folder: Path) -> Path:
    (folder / "mine").mkdir()
    splits = ["train", "valid", "test"]
    rows = [f"paper{n},{n},{'ab'[n % 2]},{splits[n % 3]}" for n in range(12)]
    (folder / "mine" / "nodes.csv").write_text("\n".join(["node,size,label,split", *rows]))
    joined = [f"paper{n},paper{n + 1}" for n in range(9)]  # two nodes are joined to nobody
    (folder / "mine" / "edges.csv").write_text("\n".join(["source,target", *joined]))
    return run_of(folder, CSVGraphs, network("model=gin", "model.depth=3"), NodeData, path=str(folder / "mine"))


def text(folder: Path) -> Path:
    (folder / "a.txt").write_text("The cat sat on the mat, and the dog sat on the cat. " * 40)
    options = {"path": str(folder / "a.txt"), "context": 16, "batch_size": 4}
    return run_of(folder, Text, network("model=gpt", "mask=causal", "model.depth=2"), LanguageData, **options)


def diagnosed(run: Path, *words: str) -> pd.DataFrame:
    main([str(run), "--device", "cpu", "--batches", "2", "--targets", "4", *words])
    return pd.read_csv(run / "diagnostics.csv", dtype={"layer": str})


@pytest.mark.parametrize("make", [graphs, nodes, text])
def test_a_run_of_each_kind_leaves_a_table_and_a_picture(make, tmp_path, capsys):
    run = make(tmp_path)
    table = diagnosed(run)
    said = capsys.readouterr().out
    for name in ("diagnostics.csv", "diagnostics.png"):
        assert str(run / name) in said
    assert "Dirichlet energy" in said
    assert (run / "diagnostics.png").read_bytes().startswith(b"\x89PNG")
    assert table["layer"].tolist() == ["input", *(str(n) for n in range(len(table) - 1))]
    assert table["effective_rank"].notna().all()
    assert ("sink_mass" in table) == (make is not nodes)
    assert ("sensitivity_64" in table) == (make is text)  # a hop is a token there
    if make is nodes:
        assert (table["sensitivity_3"] > 0).tolist() == [False, False, False, True]
        assert (table["sensitivity_further"] == 0).all()


def test_the_measures_are_those_of_the_best_checkpoint_on_the_split(tmp_path):
    run = graphs(tmp_path)
    table = diagnosed(run, "--split", "valid", "--batches", "99")
    net = gt.load(run).net
    data = GraphData(GraphFiles(path=str(tmp_path / "graphs.jsonl"), target="y", root=str(tmp_path / "root")))
    data.open(net.encodings)
    with torch.no_grad():
        energy = torch.cat([dirichlet_energy(net.embed(batch), batch) for batch in data.loader("valid")])
    assert len(energy) == 36
    assert table["dirichlet_energy"][0] == pytest.approx(float(energy.nanmean()), rel=1e-5)


def test_what_cannot_be_looked_at_is_one_line(tmp_path):
    run = nodes(tmp_path)
    with pytest.raises(UserError, match="no split 'best'"):
        main([str(run), "--split", "best"])
    with pytest.raises(UserError, match=r"data\.chunk"):
        main([str(run), "data.chunk=10"])
    with pytest.raises(UserError, match="--hops"):
        main([str(run), "--hops", "0"])
    config = network("model.depth=0")
    (tmp_path / "flat").mkdir()
    write_graphs(tmp_path)
    flat = run_of(tmp_path / "flat", GraphFiles, config, path=str(tmp_path / "graphs.jsonl"), target="y")
    with pytest.raises(UserError, match=r"best\.ckpt"):
        main([str(flat)])
    assert not (run / "diagnostics.csv").exists()


def test_a_picture_of_states_alone_leaves_out_attention(tmp_path):
    columns = {"layer": ["input", "0"], "dirichlet_energy": [1.0, 0.5], "effective_rank": [3.0, 2.0]}
    columns |= {f"sensitivity_{end}": [0.0, 0.1] for end in (0, 1, "further")}
    draw(pd.DataFrame(columns), tmp_path / "a.png", "states")
    assert (tmp_path / "a.png").stat().st_size > 10_000
