"""Messages of ``train.py``: each mistake gets advice in one line and leaves no folder; notes on what is replaced."""

import errno
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

import train
from gt.cli.command import check_command
from gt.cli.config_files import CONFIGS
from gt.cli.run_list import read
from gt.data.files import atomic_file
from gt.errors import Parser, UserError
from tests.cli.sweeps import restore_logging  # noqa: F401  a fixture

ROOT = Path(train.__file__).parent
SMOKE = ["logger=csv", "trainer=cpu", "debug=smoke"]
ONE, MANY = [*SMOKE, "hydra.run.dir=run"], [*SMOKE, "hydra.sweep.dir=sweep"]
TINY = ["data=distance", "data.train=8", "data.valid=4", "data.test=4", "data.root=data", "model.depth=1"]
SWEEP = "sweep=python_functions"
Command = Callable[..., tuple[int, str, str]]
MISTAKES = {
    "hops=1": "unknown key 'hops': did you mean 'mask.hops'?",
    "epochs=3": "did you mean 'trainer.max_epochs'?",
    "optim.max_epoch=3": "did you mean 'trainer.max_epochs'?",
    "trainer.steps=3": "did you mean 'max_steps' or 'min_steps'?",
    "trainer.lr=1": "did you mean 'optim.lr'?",
    "model.heads=2": "did you mean 'model.block.attention.heads'?",
    "data=zinc data.path=x": "data.path=x replaces a named dataset: choose data=pyg",
    "data=distance data.path=x": "it belongs to data=csv_graphs, csv_links, csv_nodes, graph_file_nodes, graph_files",
    "mask=causal mask.hops=2": "it belongs to mask=by_head, by_layer, hops, one_hop",
    "data.path=nowhere": "nowhere: data.path takes a folder of them",
    "encoding=rwse,laplacian": "add -m to run them all; for all in one run: 'encoding=[rwse,laplacian]'",
    "model=grit model/local=gat": "model/local: the chosen model has none, but exphormer, gcn, gin",
    "model=sat model/local=gat": "has it elsewhere: use model/local@model.block.attention.local=NAME",
    "model=grass model/norm=rms": "model/norm@model.block.back.norm=NAME or model/norm@model.block.forth.norm=NAME",
    "-m model=gps,grit model/local=gat": "model/local: the chosen model has none",
    "optim.lr=interval(1e-4,1e-2)": "add sweep=optuna",
    "-m optim.lr=interval(1e-4,1e-2)": "add sweep=optuna",
    "-m seeds=0": "seeds=0: it must be a whole number above 0",
    "seeds=": "seeds=: it must be a whole number above 0",
    f"{SWEEP} optim.lr=interval(1e-2,1e-4)": "comes first: interval(0.0001, 0.01)",
    f"{SWEEP} optim.lr=tag(log,interval(0,1e-4))": "optim.lr=tag(log,interval(0,1e-4)): `low > 0` must hold",
    f"{SWEEP} sweep.seeds=0": "sweep.seeds=0: seeds must be 1 or more, not 0",
    f"{SWEEP} sweep.workers=0": "sweep.workers=0: workers must be 1 or more, not 0",
    f"{SWEEP} model.width=0": "model.width=0: width must be 1 or more, not 0",
    "model=gin mask.hops=0": "mask.hops=0 has no effect, because no layer of this model reads a mask",
    "model=mamba2 mask=one_hop": "mask=one_hop has no effect",
    "model=gps model.block.attention=null mask.hops=1": "mask.hops=1 has no effect",
    "model=gin model.block.attention.heads=2": "model.block.attention.heads has no effect: the chosen option has no",
    "model=gin model.block.blend.weight=0.5": "model.block.blend.weight has no effect",
    "model.width=0": "model.width=0: width must be 1 or more, not 0",
    **dict.fromkeys(
        ("-m seed=1,2 hydra.run.dir=run", "seeds=2", SWEEP + " hydra.run.dir=run", "experiment=spectrum"),
        "hydra.run.dir=run: this command starts a sweep: set hydra.sweep.dir instead",
    ),
}


@pytest.fixture
def command(monkeypatch, tmp_path, capfd) -> Iterator[Command]:
    """Runs ``train.py`` in this process; returns its exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [])
    monkeypatch.setattr(sys, "path", sys.path[:])
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    threads = torch.get_num_threads()

    def run(*words: str) -> tuple[int, str, str]:
        sys.argv[:] = [str(ROOT / "train.py"), *words]
        GlobalHydra.instance().clear()
        capfd.readouterr()
        try:
            train.command()
        except SystemExit as end:
            return (end.code, *capfd.readouterr())
        return (0, *capfd.readouterr())

    yield run
    torch.set_num_threads(threads)


@pytest.mark.parametrize("line", MISTAKES)
def test_error_gives_advice_and_leaves_no_folder(line, command, tmp_path):
    words = line.split()
    code, out, err = command(*(MANY if {"-m", SWEEP} & {*words} else ONE), *words)
    assert code == 1
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert MISTAKES[line] in err
    assert "continuing with" not in out
    assert not (tmp_path / "run").exists()
    assert not (tmp_path / "sweep").exists()


def test_mask_ignored_by_a_swept_model_is_noted(command, tmp_path):
    code, out, _ = command(*MANY, *TINY, "-m", "model=gin,gps", "mask.hops=1")
    assert code == 0
    assert out.count("mask.hops=1 has no effect, because no layer of this model reads a mask") == 1
    assert all((tmp_path / "sweep" / job / "result.json").is_file() for job in "01")


def test_complete_mask_is_valid_without_attention(command, tmp_path):
    code, out, _ = command(*ONE, *TINY, "model=gin", "mask.hops=null", "stage=baseline")
    assert code == 0
    assert "has no effect" not in out
    assert read(tmp_path / "run").state == "baseline"  # not "stopped": there was nothing to train


def test_failed_run_keeps_its_folder(command, tmp_path):
    (tmp_path / "run" / "csv").mkdir(parents=True)  # as loggers leave it
    code, *_ = command(*ONE, "stage=baseline", "trainer.precision=16-true")
    assert code == 1
    assert (tmp_path / "run" / "train.log").is_file()
    assert read(tmp_path / "run").state == "failed"


def test_replaced_encodings_of_a_model_are_noted(capsys):
    check_with_notes = partial(check_command, notes=True)
    check_with_notes(["model=graphormer", "encoding=[rwse]"])
    assert capsys.readouterr().out == (
        "this replaces degree, distance_bias, edge_path_bias of model=graphormer; "
        "for both: 'encoding=[degree,distance_bias,edge_path_bias,rwse]'\n"
    )
    check_with_notes(["model=qwen3", "encoding=laplacian"])  # its file inherits from that of another model
    assert capsys.readouterr().out.startswith("this replaces rope of model=qwen3")
    check_with_notes(["experiment=zinc_gps", "encoding=[rwse,degree]"])
    check_with_notes(["model=graphormer", "encoding=[degree,distance_bias,edge_path_bias,rwse]"])
    check_with_notes(["model=graphormer", "encoding=none"])
    check_with_notes(["model=gps", "encoding=[laplacian]"])  # replaces the default of all models
    check_with_notes(["model=graphormer", "encoding=[rwse]", "--cfg", "job"])
    check_with_notes(["callbacks=[default,ema]"])
    check_with_notes(["callbacks=null"])  # they are removed, not replaced
    assert capsys.readouterr().out == ""


def test_replaced_default_callbacks_are_noted(capsys):
    check_command(["callbacks=ema"], notes=True)
    assert capsys.readouterr().out == (
        "this replaces the default callbacks, which save checkpoints; for both: 'callbacks=[default,ema]'\n"
    )


def test_abbreviated_flag_is_rejected_with_a_suggestion():
    plain, outer = Parser(prog="gt.x"), Parser(prog="gt.y")
    for parser in (plain, outer.add_subparsers().add_parser("look")):
        parser.add_argument("--level", type=float)
    for parser, words in ((plain, ["--level", "0.5"]), (outer, ["look", "--level=0.5"])):
        assert parser.parse_args(words).level == 0.5
        words = [word.replace("level", "leve") for word in words]
        with pytest.raises(UserError, match="there is no option '--leve': did you mean '--level'"):
            parser.parse_args(words)


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("words", ["-m gt --help", "-m gt.runs --help", "train.py --cfg job"])
def test_closed_pipe_ends_the_program_silently(words, unbuffered):
    reader, writer = os.pipe()
    os.close(reader)
    environment = os.environ | {"PYTHONUNBUFFERED": unbuffered}
    process = subprocess.run(
        [sys.executable, *words.split()], cwd=ROOT, env=environment, stdout=writer, stderr=subprocess.PIPE, check=False
    )
    os.close(writer)
    assert process.stderr == b""
    assert process.returncode in (0, 141)


def test_smoke_test_validates_every_epoch_on_all_data():
    paths = [path for path in (CONFIGS / "data").glob("*.yaml") if "val_check_interval" in path.read_text()]
    assert paths
    for path in paths:
        with initialize_config_dir(str(CONFIGS), version_base="1.3"):
            trainer = compose("train", overrides=[f"data={path.stem}", "debug=smoke"]).trainer
        assert (trainer.val_check_interval, trainer.check_val_every_n_epoch) == (1.0, 1)


def test_output_file_needs_an_existing_folder(tmp_path):
    for path, message in (
        (tmp_path, "is a folder: name a file in it"),
        (tmp_path / "a" / "b.csv", "there is no folder"),
    ):
        with pytest.raises(UserError, match=message), atomic_file(path) as file:
            file.write(b"")
    assert list(tmp_path.iterdir()) == []


def test_full_disk_error_names_the_file(tmp_path):
    for number, filename in ((errno.ENOSPC, str(tmp_path / "a.csv")), (errno.ECONNRESET, None)):
        with pytest.raises(OSError, match=os.strerror(number)) as caught, atomic_file(tmp_path / "a.csv"):
            raise OSError(number, os.strerror(number))
        assert caught.value.filename == filename
    assert list(tmp_path.iterdir()) == []
