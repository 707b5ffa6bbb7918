"""``python -m gt.puzzles``: which settings can see the answer of a puzzle, which learn it, and the program itself."""

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


def network(puzzle, setting, folder, *overrides):
    """The network of a cell in eval mode, with norm statistics, and a batch of its puzzle."""
    cfg = compose_config(
        check_command([*Cell(ROW[puzzle], setting, 0).overrides, *SMALL, f"data.root={folder}", *overrides])
    )
    data = instantiate(cfg.data)
    data.open(encodings_of(cfg))
    torch.manual_seed(0)
    net, batch = build(network_config(cfg), data.schema), next(iter(data.loader("train")))
    for _ in range(2):
        net(batch)  # to set the statistics of norms
    return net.eval(), batch


def change_source(puzzle, batch):
    """Features with a different class of the source, values of the leaves, or first tokens."""
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
def test_answer_depends_on_the_source_only_within_reach(puzzle, setting, tmp_path):
    net, batch = network(puzzle, setting, tmp_path)
    queried = batch.y != UNLABELLED
    assert int(queried.sum()) == batch.num_graphs
    before = net(batch)
    batch.x = change_source(puzzle, batch)
    after = net(batch)
    assert torch.equal(after[queried], before[queried]) != REACH[puzzle, setting]
    assert not torch.equal(after, before)


@torch.no_grad()
@pytest.mark.parametrize(("puzzle", "setting"), [("distance", PLAIN), ("distance", FULL), ("connectivity", PLAIN)])
def test_complete_mask_needs_an_encoding_to_see_edges(puzzle, setting, tmp_path):
    net, batch = network(puzzle, setting, tmp_path)
    answers = net(batch)[batch.y != UNLABELLED]  # the graphs differ only in their edges
    assert torch.allclose(answers, answers[:1], atol=1e-5) != setting.encoded


def test_one_layer_of_complete_attention_learns_ring_transfer(tmp_path):
    overrides = [*Cell(ROW["ring_transfer"], ONE_LAYER, 0).overrides, "trainer.max_epochs=2", "data.train=2000"]
    result = training.train([*overrides, f"data.root={tmp_path}"])
    assert result.solved
    assert result.chance == 0.2


def make_result(accuracy, chance=0.2):
    return Result(accuracy, chance, 3, 1.5)


def test_cells_have_distinct_overrides():
    cells = grid(ROWS, 2)
    assert len({tuple(cell.overrides) for cell in cells}) == len({cell.name for cell in cells}) == 2 * 7 * 6
    overrides = Cell(ROW["needle"], Setting("transformer", None, True, 1), 3).overrides
    assert {"data=needle", "mask=causal", "encoding=[learned]", "model.depth=1", "seed=3"} <= set(overrides)
    assert {"mask=hops", "mask.hops=2"} <= set(Cell(ROW["needle"], NEAR, 0).overrides)


def test_finished_cells_are_cached(tmp_path, monkeypatch):
    cells, trained = grid([ROW["copying"]], 1)[:3], []
    monkeypatch.setattr(training, "train", lambda overrides: trained.append(overrides) or make_result(0.5))
    (tmp_path / "cells").mkdir()
    measure(cells[0], tmp_path)
    assert cached_result(cells[0], tmp_path) == make_result(0.5)
    assert cached_result(cells[1], tmp_path) is None
    assert list(results(cells, tmp_path, 1)) == cells
    assert trained == [cell.overrides for cell in cells]  # each once, the first from the cache
    other = Cell(ROW["copying"], cells[0].setting, 0)
    monkeypatch.setattr(Cell, "overrides", ["data=copying", "trainer.max_epochs=99"])
    assert cached_result(other, tmp_path) is None  # a different training


def test_table_csv_and_picture_are_written(tmp_path, capsys):
    rows = [ROW["ring_transfer"], ROW["needle"]]
    finished = {cell: make_result(1.0 if cell.setting == FULL else 0.2 + 0.8 * cell.seed) for cell in grid(rows, 2)}
    show(rows, finished, tmp_path)
    output = capsys.readouterr().out
    assert output.count("1.000") == 2
    assert output.count("solved 1 of 2 ") == 10
    assert f"table    {tmp_path / 'puzzles.csv'}" in output
    with open(tmp_path / "puzzles.csv") as handle:
        lines = list(csv.DictReader(handle))
    assert len(lines) == len(finished)
    assert {line["chance"] for line in lines} == {"0.2000"}
    assert "python train.py data=needle model=transformer" in lines[-1]["command"]
    assert (tmp_path / "puzzles.png").stat().st_size > 10_000


@pytest.mark.parametrize("arguments", [["--only", "ring_transfr"], ["--seeds", "0"], ["--processes", "0"]])
def test_invalid_arguments_are_reported(arguments, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["gt.puzzles", *arguments])
    with pytest.raises(UserError, match=r"ring_transfer|--seeds|--processes"):
        program.main()


@pytest.mark.slow
def test_full_grid_solves_the_expected_puzzles(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["gt.puzzles", "--out", str(tmp_path)])
    program.main()
    result = {(cell.row.data, cell.setting): cached_result(cell, tmp_path) for cell in grid(ROWS, 1)}
    assert len(result) == (tmp_path / "puzzles.csv").read_text().count("python train.py") == 42
    for puzzle in ("ring_transfer", "tree_match"):
        assert result[puzzle, FULL].solved
        shallow = result[puzzle, GIN_3]
        assert abs(shallow.accuracy - shallow.chance) < 4 * (shallow.chance * (1 - shallow.chance) / 1000) ** 0.5
    for puzzle in ("distance", "connectivity"):
        assert result[puzzle, FULL].solved
        assert not result[puzzle, PLAIN].solved
    assert result["associative_recall", FULL].solved
    assert not result["associative_recall", NEAR].solved
    assert not result["associative_recall", ONE_LAYER].solved
