"""``python -m gt.models``: the table of all files in configs/model."""

import shutil
import sys

import pytest

from gt import models
from gt.cli.config_files import CONFIGS
from gt.errors import UserError
from gt.heads import Head
from gt.layers import GCN, ParallelBlock
from gt.model import GraphTransformer
from gt.schema import Schema

MODELS = sorted(path.stem for path in (CONFIGS / "model").glob("*.yaml"))


TINY = """# @package _global_
# Tiny: a network that is small
# (Nobody 1999): smaller than others (2001).
defaults:
  - gcn@model
  - _self_
  - override /encoding: [none]
model:
  depth: 3
  width: 8
  block:
    feed_forward: null
"""


def test_added_file_is_listed(tmp_path, monkeypatch, capsys):
    shutil.copytree(CONFIGS, tmp_path / "configs")
    folder = tmp_path / "configs/model"
    (folder / "tiny.yaml").write_text(TINY)
    monkeypatch.setattr(models, "CONFIGS", tmp_path / "configs")
    monkeypatch.setattr(models, "FOLDER", folder)
    monkeypatch.setattr(sys, "argv", ["gt.models", "tiny", "transformer"])
    models.main()
    tiny, transformer = (
        [cell.strip() for cell in line.split("│")[1:-1]] for line in capsys.readouterr().out.splitlines() if "│" in line
    )
    schema = Schema(node_vocab=(28,), edge_vocab=(4,), kind="regression", max_nodes=37)
    net = GraphTransformer(schema, 8, 3, lambda width: ParallelBlock(width, local=GCN), head=Head)
    assert tiny == ["tiny", "Nobody 1999", "3 x 8: GCN", f"{net.parameter_count():,}", "edges", "E"]
    assert transformer[:3] == ["transformer", "Vaswani et al. 2017", "4 x 64: Attention, FeedForward"]
    assert transformer[4:] == ["pairs", "N^2"]


COSTS = {
    "deepsets": ("self", "N"),
    "linear_transformer": ("graph", "N"),
    "gps": ("edges, pairs", "E + N^2"),
    "tokengt": ("graph", "(N + E)^2"),
    "gt": ("edges", "E"),
    "exphormer": ("edges, pairs", "E + P"),
}


@pytest.mark.parametrize("name", COSTS)
def test_reads_and_cost_of_models(name):
    assert tuple(models.row(name)[4:]) == COSTS[name]


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_every_model_has_a_complete_row(name):
    assert "?" not in " ".join(models.row(name))


def test_typo_gets_the_nearest_name(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["gt.models", "gpss"])
    with pytest.raises(UserError, match="'gps'"):
        models.main()
