"""Which setting solves which puzzle: what cannot see the answer, exactly; what learns it, trained; the program."""

import csv
import sys

import pytest
import torch
from hydra.utils import instantiate

from gt.cli.command import check_command
from gt.cli.composing import compose_config
from gt.errors import UserError
from gt.puzzles import __main__ as program
from gt.puzzles import cells as training
from gt.puzzles.cells import Result, cached_result, measure, results
from gt.puzzles.grid import ROWS, SETTINGS, Cell, Setting, grid
from gt.puzzles.show import show
from gt.schema import UNLABELLED
from gt.train.network import build, encodings_of, network_config

ROW = {row.data: row for row in ROWS}
GIN_3, GIN_8, NEAR, PLAIN, ONE_LAYER, FULL = SETTINGS
SMALL = ["data.batch_size=8", "data.train=8", "data.valid=4", "data.test=4"]


def network(puzzle, setting, folder, *more):
    """The network of a cell in eval mode, norms as if trained, and a batch of its puzzle."""
    cfg = compose_config(
        check_command([*Cell(ROW[puzzle], setting, 0).overrides, *SMALL, f"data.root={folder}", *more])
    )
    data = instantiate(cfg.data)
    data.open(encodings_of(cfg))
    torch.manual_seed(0)
    net, batch = build(network_config(cfg), data.schema), next(iter(data.loader("train")))
    for _ in range(2):
        net(batch)  # whose statistics norms take
    return net.eval(), batch


def moved(puzzle, batch):
    """Other features: the class of the source, the values of the leaves, or the first tokens are others."""
    x, value = batch.x.clone(), batch.x[:, -1]
    if puzzle == "ring_transfer":
        return torch.where(x >= 2, 2 + (x - 1) % 5, x)
    if puzzle == "tree_match":
        x[:, 1] = torch.where(value > 0, 1 + value % 8, value)
    else:
        x[batch.position < 8] = 0
    return x


REACH = {
    ("ring_transfer", GIN_3): False,
    ("ring_transfer", GIN_8): True,
    ("ring_transfer", NEAR): False,
    ("ring_transfer", ONE_LAYER): True,
    ("tree_match", GIN_3): False,
    ("tree_match", GIN_8): True,
    ("associative_recall", NEAR): False,
    ("associative_recall", FULL): True,
    ("needle", NEAR): False,
}


@torch.no_grad()
@pytest.mark.parametrize(("puzzle", "setting"), REACH)
def test_what_lies_beyond_reach_changes_nothing(puzzle, setting, tmp_path):
    net, batch = network(puzzle, setting, tmp_path)
    asked = batch.y != UNLABELLED
    assert int(asked.sum()) == batch.num_graphs
    before = net(batch)
    batch.x = moved(puzzle, batch)
    after = net(batch)
    assert torch.equal(after[asked], before[asked]) != REACH[puzzle, setting]
    assert not torch.equal(after, before)


@torch.no_grad()
@pytest.mark.parametrize(("puzzle", "setting"), [("distance", PLAIN), ("distance", FULL), ("connectivity", PLAIN)])
def test_a_complete_mask_without_an_encoding_knows_no_edges(puzzle, setting, tmp_path):
    net, batch = network(puzzle, setting, tmp_path)
    answers = net(batch)[batch.y != UNLABELLED]  # of graphs that hold the same nodes, and differ in their edges alone
    assert torch.allclose(answers, answers[:1], atol=1e-5) != setting.encoded


def test_a_layer_of_complete_attention_learns_ring_transfer(tmp_path):
    told = [*Cell(ROW["ring_transfer"], ONE_LAYER, 0).overrides, "trainer.max_epochs=2", "data.train=2000"]
    result = training.train([*told, f"data.root={tmp_path}"])
    assert result.solved
    assert result.chance == 0.2


def fake(accuracy, chance=0.2):
    return Result(accuracy, chance, 3, 1.5)


def test_the_commands_differ_by_mask_encoding_and_depth():
    every = grid(ROWS, 2)
    assert len({tuple(cell.overrides) for cell in every}) == len({cell.name for cell in every}) == 2 * 7 * 6
    told = Cell(ROW["needle"], Setting("transformer", None, True, 1), 3).overrides
    assert {"data=needle", "mask=causal", "encoding=[learned]", "model.depth=1", "seed=3"} <= set(told)
    assert {"mask=hops", "mask.hops=2"} <= set(Cell(ROW["needle"], NEAR, 0).overrides)


def test_a_finished_cell_is_kept(tmp_path, monkeypatch):
    cells, trained = grid([ROW["copying"]], 1)[:3], []
    monkeypatch.setattr(training, "train", lambda told: trained.append(told) or fake(0.5))
    (tmp_path / "cells").mkdir()
    measure(cells[0], tmp_path)
    assert cached_result(cells[0], tmp_path) == fake(0.5)
    assert cached_result(cells[1], tmp_path) is None
    assert list(results(cells, tmp_path, 1)) == cells
    assert trained == [cell.overrides for cell in cells]  # the first of them once
    other = Cell(ROW["copying"], cells[0].setting, 0)
    monkeypatch.setattr(Cell, "overrides", ["data=copying", "trainer.max_epochs=99"])
    assert cached_result(other, tmp_path) is None  # another training


def test_what_is_shown(tmp_path, capsys):
    rows = [ROW["ring_transfer"], ROW["needle"]]
    made = {cell: fake(1.0 if cell.setting == FULL else 0.2 + 0.8 * cell.seed) for cell in grid(rows, 2)}
    show(rows, made, tmp_path)
    said = capsys.readouterr().out
    assert said.count("1.000") == 2
    assert said.count("solved 1 of 2 ") == 10
    assert f"table    {tmp_path / 'puzzles.csv'}" in said
    with open(tmp_path / "puzzles.csv") as handle:
        lines = list(csv.DictReader(handle))
    assert len(lines) == len(made)
    assert {line["chance"] for line in lines} == {"0.2000"}
    assert "python train.py data=needle model=transformer" in lines[-1]["command"]
    assert (tmp_path / "puzzles.png").stat().st_size > 10_000


@pytest.mark.parametrize("arguments", [["--only", "ring_transfr"], ["--seeds", "0"], ["--processes", "0"]])
def test_what_a_user_gets_wrong(arguments, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["gt.puzzles", *arguments])
    with pytest.raises(UserError, match=r"ring_transfer|--seeds|--processes"):
        program.main()


@pytest.mark.slow
def test_the_whole_grid(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["gt.puzzles", "--out", str(tmp_path)])
    program.main()
    result = {(cell.row.data, cell.setting): cached_result(cell, tmp_path) for cell in grid(ROWS, 1)}
    assert len(result) == (tmp_path / "puzzles.csv").read_text().count("python train.py") == 42
    for puzzle in ("ring_transfer", "tree_match"):
        assert result[puzzle, FULL].solved
        short = result[puzzle, GIN_3]
        assert abs(short.accuracy - short.chance) < 4 * (short.chance * (1 - short.chance) / 1000) ** 0.5
    for puzzle in ("distance", "connectivity"):
        assert result[puzzle, FULL].solved
        assert not result[puzzle, PLAIN].solved
    assert result["associative_recall", FULL].solved
    assert not result["associative_recall", NEAR].solved
    assert not result["associative_recall", ONE_LAYER].solved
