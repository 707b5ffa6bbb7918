"""``resume=FOLDER``: which arguments may change beside it, and which are rejected in one line."""

import shlex
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from gt.cli.command import prepare_arguments
from gt.cli.composing import remove_leftovers
from gt.cli.config_files import CONFIGS
from gt.cli.resuming import resume_arguments
from gt.errors import UserError, shell_override
from gt.train.resume import changes
from tests.command_lines import message_of


@pytest.fixture
def run_folder(tmp_path) -> Path:
    """The folder of a stopped run that can be resumed."""
    folder = tmp_path / "run"
    (folder / ".hydra").mkdir(parents=True)
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints" / "last.ckpt").touch()
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        cfg = compose("train", overrides=["model=gcn", "trainer.max_epochs=3"])
    OmegaConf.save(cfg, folder / ".hydra" / "config.yaml")
    return folder


def test_resumed_run_uses_its_saved_configuration(run_folder):
    arguments = resume_arguments([f"resume={run_folder}", "trainer.max_epochs=5", "trainer.detect_anomaly=true"])
    assert arguments[:2] == ["--config-path", str(run_folder / ".hydra")]
    assert arguments[2:4] == ["--config-name", "config"]
    overrides = [argument for argument in arguments[4:] if not argument.startswith("hydra.")]
    assert f'hydra.run.dir="{run_folder}"' in arguments
    with initialize_config_dir(arguments[1], version_base="1.3"):
        cfg = compose("config", overrides=overrides)
    assert (cfg.resume, cfg.trainer.max_epochs, cfg.trainer.detect_anomaly) == (str(run_folder), 5, True)
    assert "Parallel" in cfg.model.block._target_
    assert prepare_arguments([f"resume={run_folder}"]) == resume_arguments([f"resume={run_folder}"])


def test_folder_name_with_special_characters(run_folder, tmp_path):
    folder = run_folder.rename(tmp_path / "ü ber [1], $x='2'")
    arguments = resume_arguments([f"resume={folder}"])
    with initialize_config_dir(arguments[1], version_base="1.3"):
        cfg = compose("config", overrides=arguments[4:], return_hydra_config=True)
    assert (cfg.resume, cfg.hydra.run.dir) == (str(folder), str(folder))
    for argument in (f"resume={folder}", *shlex.split(shell_override("resume", str(folder)))):
        assert prepare_arguments([argument]) == arguments
    with pytest.raises(UserError, match=r"^no run in 'a','b': "):
        prepare_arguments(["resume='a','b'"])


@pytest.mark.parametrize("argument", ["model/local=gcn", "trainer=fsdp", "logger=wandb", "callbacks=[default,ema]"])
def test_group_options_cannot_be_changed(argument, run_folder):
    with pytest.raises(UserError) as caught:
        resume_arguments([f"resume={run_folder}", argument, "trainer.max_epochs=5"])
    group = argument.partition("=")[0]
    assert message_of(caught).startswith(f"{argument}: a resumed run keeps its options")
    assert f"{group}.KEY=VALUE" in message_of(caught)


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("trainer.max_epoch=5", "unknown key 'trainer.max_epoch': did you mean 'max_epochs'?"),
        (
            "trainer.max_epochs=many",
            "trainer.max_epochs='many' has the wrong type: it should be a whole number or null",
        ),
        ("trainr.max_epochs=5", "unknown key 'trainr': did you mean 'trainer'?"),
        ("+optim.lrr=5", "unknown key 'optim.lrr': did you mean 'lr'?"),
    ],
)
def test_mistake_beside_resume_is_reported_in_one_line(argument, message, run_folder):
    with pytest.raises(UserError) as caught:
        resume_arguments([f"resume={run_folder}", argument])
    assert message_of(caught) == message


@pytest.mark.parametrize(
    "argument",
    [
        "optim.lr=1e-5", "optim.warmup=0.1", "trainer.max_epochs=9", "trainer.max_steps=70", 
        "trainer.precision=bf16-mixed",
        "trainer.gradient_clip_val=null", "callbacks.early_stopping.patience=3", "data.workers=1", "name=again",
    ],
)  # fmt: skip
def test_permitted_change_is_printed(argument, run_folder, capsys):
    arguments = resume_arguments([f"resume={run_folder}", argument])
    assert argument in arguments
    [line] = capsys.readouterr().out.splitlines()
    key = argument.partition("=")[0]
    before = OmegaConf.select(OmegaConf.load(run_folder / ".hydra" / "config.yaml"), key)
    assert key in line
    assert line.endswith(str(before) if before is not None else "null")


@pytest.mark.parametrize(
    "argument",
    [
        "model=gps", "model.width=32", "model.depth=9", "model.block.dropout=0.5", "mask.hops=2", 
        "encoding.rwse.steps=4", "seed=7",
        "data.batch_size=64", "data.source.view=sequence", "data.seed=3", "stage=prepare",
        "trainer.accumulate_grad_batches=4", "trainer.limit_train_batches=3",
        "optim.optimizer._target_=torch.optim.Adam", "optim._target_=tests.train.test_construct.Layer",
        "mask._target_=gt.masks.Complete", "model.block.local._target_=gt.layers.FeedForward",
        "optim.schedule._target_=torch.optim.lr_scheduler.LinearLR",
        "trainer.fast_dev_run=true", "model.block.norm.eps=0.1", "criterion=loss",
        "loss._target_=torch.nn.L1Loss", "metrics.r2._target_=gt.task_metrics.R2",
    ],
)  # fmt: skip
def test_change_of_the_run_itself_is_rejected(argument, run_folder):
    with pytest.raises(UserError) as caught:
        resume_arguments([f"resume={run_folder}", argument])
    assert argument.partition("=")[0] in message_of(caught)


def test_replaced_callback_lists_dropped_arguments(run_folder, capsys):
    swap = "callbacks.early_stopping._target_=pytorch_lightning.callbacks.GradientAccumulationScheduler"
    arguments = resume_arguments([f"resume={run_folder}", swap, "callbacks.early_stopping.scheduling={}"])
    lines = capsys.readouterr().out.splitlines()
    assert any(swap in line for line in lines)
    assert {line.removeprefix("continuing with no ") for line in lines[2:]} == {
        "callbacks.early_stopping.patience, was 20", "callbacks.early_stopping.check_finite, was false",
    }  # fmt: skip
    with initialize_config_dir(arguments[1], version_base="1.3"):
        cfg = compose("config", overrides=[argument for argument in arguments[4:] if not argument.startswith("hydra.")])
    remove_leftovers(cfg, arguments[4:])
    assert set(cfg.callbacks.early_stopping) == {"_target_", "scheduling"}


def test_learning_rate_under_plateau_schedule_cannot_change():
    before = OmegaConf.create({"optim": {"lr": 0.1, "schedule": {"_target_": "torch.ReduceLROnPlateau"}}})
    with pytest.raises(UserError, match=r"optim\.lr"):
        changes(before, OmegaConf.merge(before, {"optim": {"lr": 0.2}}))
    before.optim.schedule._target_ = "torch.CosineAnnealingLR"
    assert len(changes(before, OmegaConf.merge(before, {"optim": {"lr": 0.2}}))) == 1


def test_unchanged_values_print_nothing(run_folder, capsys):
    resume_arguments([f"resume={run_folder}", "trainer.max_epochs=3", "seed=0"])
    assert capsys.readouterr().out == ""


def test_changes_persist_across_resumptions(run_folder, capsys):
    first = resume_arguments([f"resume={run_folder}", "optim.lr=1e-5", "trainer.min_epochs=2"])
    with initialize_config_dir(first[1], version_base="1.3"):
        cfg = compose("config", overrides=[argument for argument in first[4:] if not argument.startswith("hydra.")])
    [subfolder] = [argument.partition("=")[2] for argument in first if argument.startswith("hydra.output_subdir=")]
    (run_folder / subfolder).mkdir()
    OmegaConf.save(cfg, run_folder / subfolder / "config.yaml")  # as Hydra does
    second = resume_arguments([f"resume={run_folder}", "trainer.min_epochs=2"])
    with initialize_config_dir(second[1], version_base="1.3"):
        cfg = compose("config", overrides=[argument for argument in second[4:] if not argument.startswith("hydra.")])
        compose("config", overrides=[argument for argument in first[4:] if not argument.startswith("hydra.")])
    assert (cfg.optim.lr, cfg.trainer.min_epochs, cfg.trainer.max_epochs) == (1e-5, 2, 3)
    capsys.readouterr()
    resume_arguments([f"resume={run_folder}", "optim.lr=1e-5"])
    assert capsys.readouterr().out == ""


def test_missing_run_or_checkpoint_is_reported(run_folder, tmp_path):
    with pytest.raises(UserError, match=r"^no run in .*nowhere: resume takes the run folder"):
        resume_arguments([f"resume={tmp_path / 'nowhere'}"])
    (run_folder / "checkpoints" / "last.ckpt").unlink()
    with pytest.raises(UserError, match=r"run has no checkpoint"):
        resume_arguments([f"resume={run_folder}"])


def test_multirun_flag_is_rejected_for_a_single_run(run_folder):
    with pytest.raises(UserError, match="leave -m out"):
        prepare_arguments(["-m", f"resume={run_folder}"])


def test_arguments_without_resume_are_unchanged():
    for arguments in ([], ["seed=1"], ["resume=null"], ["resume="]):
        assert resume_arguments(arguments) is arguments


def test_run_of_an_older_version_is_reported(run_folder):
    config = run_folder / ".hydra" / "config.yaml"
    config.write_text(config.read_text().replace("gt.train.callbacks.SaveLast", "gt.callbacks.SaveLast"))
    with pytest.raises(UserError) as caught:
        resume_arguments([f"resume={run_folder}"])
    text = message_of(caught)
    assert all(part in text for part in ("older version", str(run_folder), "callbacks.last._target_", "gt.load("))
    config.write_text(config.read_text().replace("gt.callbacks.SaveLast", "mine.SaveLast"))  # a missing custom class
    with pytest.raises(UserError) as caught:
        resume_arguments([f"resume={run_folder}"])
    assert "older version" not in message_of(caught)


def test_new_run_in_existing_folder_is_rejected(run_folder, tmp_path):
    with pytest.raises(UserError) as caught:
        prepare_arguments([f"hydra.run.dir={run_folder}"])
    assert all(part in message_of(caught) for part in (f"resume={run_folder}", "hydra.run.dir"))
    assert prepare_arguments(["--cfg", "job", f"hydra.run.dir={run_folder}"])
    (run_folder / "checkpoints" / "last.ckpt").unlink()  # stopped before its first checkpoint: nothing to lose
    assert prepare_arguments([f"hydra.run.dir={run_folder}"])
    (run_folder / "result.json").touch()
    with pytest.raises(UserError, match=r"hydra\.run\.dir"):
        prepare_arguments([f"hydra.run.dir={run_folder}"])
