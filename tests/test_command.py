"""Mistakes on the command line and in the files that it chooses: one line, with the nearest right name."""

import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from gt.cli.arguments import alternatives, arranged, in_full, parsed
from gt.cli.command import check_command, prepared
from gt.cli.composing import composed, settle
from gt.cli.config_files import CONFIGS, groups
from gt.cli.resuming import resumed
from gt.data.source import Source
from gt.errors import UserError, one_line
from gt.train.resume import changes

ROOT = CONFIGS.parent


def said(error: pytest.ExceptionInfo) -> str:
    """The message, which is one line."""
    text = str(error.value)
    assert text
    assert "\n" not in text
    return text


@pytest.fixture(autouse=True)
def not_a_child(monkeypatch):
    monkeypatch.delenv("LOCAL_RANK", raising=False)


@pytest.mark.parametrize(
    "arguments",
    [
        ["model=gcn", "data=python_functions", "optim.lr=3e-4", "seed=7", "name=mine", "mask.hops=null"],
        ["data=text", "data.source.path=a.txt", "data.context=8", "experiment=shakespeare_char"],
        ["encoding=[rwse, laplacian]", "encoding.laplacian.k=3", "model/local=gated_gcn", "debug=smoke"],
        ["callbacks.early_stopping=null", "logger.wandb=null", "~callbacks.progress", "~trainer.max_epochs"],
        ["~logger", "hydra.run.dir=elsewhere", "hydra/job_logging=none", "hydra.mode=MULTIRUN"],
        ["+trainer.detect_anomaly=true", "++optim.lr=1", "++trainer.fast_dev_run=true", "+model.block.norm.eps=1e-3"],
        ["mask=causal_window", "mask.masks.0.width=3"],
        ["-m", "model=gcn,gin", "mask.hops=0,1,null", "seed=range(1,4)", "++optim.lr=0.1,0.2"],
        [
            "-m",
            "model=glob(g*)",
            "optim.lr=interval(0.1,1)",
            "encoding=[rwse],[rwse,degree],none",
            "data.seed=choice(1,2)",
        ],
        ["--cfg", "job", "seed=3"],
    ],
    ids=" ".join,
)
def test_what_is_right_stays_as_it_is(arguments):
    assert check_command(arguments) == arguments


def test_a_key_that_is_taken_but_not_in_the_file_is_added():
    arguments = ["trainer.fast_dev_run=true", "-m", "model.block.norm.eps=0.1,0.2", "seed=1", "model.head.bias=false"]
    expected = [
        "+trainer.fast_dev_run=true", "-m", "+model.block.norm.eps=0.1,0.2", "seed=1", "+model.head.bias=false",
    ]  # fmt: skip
    assert check_command(arguments) == expected
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        cfg = compose("train", overrides=["+trainer.fast_dev_run=true", "+model.block.norm.eps=0.1"])
    assert cfg.trainer.fast_dev_run is True
    assert cfg.model.block.norm.eps == 0.1


def test_what_a_section_takes_goes_by_the_target_that_it_is_given():
    target = "data.source.dataset._target_=torch_geometric.datasets.ZINC"
    expected = ["data=pyg", "+data.source.dataset.subset=true", target]
    assert check_command(["data=pyg", "data.dataset.subset=true", target]) == expected
    with pytest.raises(
        UserError, match=r"^unknown key 'data.source.dataset.use_node_attr': there are force_reload, pre_filter"
    ):
        check_command(["data=pyg", target, "data.source.dataset.use_node_attr=true"])
    with pytest.raises(
        UserError, match=r"^data.source.dataset._target_: there is nothing called 'nope.Nope' to import"
    ):
        check_command(["data=pyg", "data.source.dataset._target_=nope.Nope", "data.source.dataset.subset=true"])
    assert check_command(
        ["-m", "data=pyg", f"{target},torch_geometric.datasets.TUDataset", "data.source.dataset.root=x"]
    )


WRONG = {
    "section": ("modle.depth=3", "unknown key 'modle': did you mean 'model'?"),
    "group": ("modle=gps", "unknown key 'modle': did you mean 'model'?"),
    "inner group": ("model/locl=gcn", "no group 'model/locl': did you mean 'model/local'?"),
    "option": ("model=gsp", "no option 'gsp' in group 'model': did you mean 'gpt'?"),
    "inner option": ("model/local=gatedgcn", "no option 'gatedgcn' in group 'model/local': did you mean 'gated_gcn'?"),
    "option in a list": ("encoding=[rwse,degre]", "no option 'degre' in group 'encoding': did you mean 'degree'?"),
    "experiment": ("experiment=gps_molhvi", "no option 'gps_molhvi' in group 'experiment': did you mean 'gps_molhiv'?"),
    "key": ("model.dpeth=3", "unknown key 'model.dpeth': did you mean 'depth'?"),
    "nested key": ("model.block.droput=0.1", "unknown key 'model.block.droput': did you mean 'dropout'?"),
    "key of Lightning": ("trainer.max_epoch=3", "unknown key 'trainer.max_epoch': did you mean 'max_epochs'?"),
    "key of torch": ("model.block.norm.epss=1", "unknown key 'model.block.norm.epss': did you mean 'eps'?"),
    "part": ("callbacks.early_stoping=null", "unknown key 'callbacks.early_stoping': did you mean 'early_stopping'?"),
    "below a value": ("seed.x=1", "unknown key 'seed.x': 'seed' is a single value"),
    "added key": ("+model.dpeth=3", "unknown key 'model.dpeth': did you mean 'depth'?"),
    "added section": ("+modle.depth=3", "unknown key 'modle': did you mean 'model'?"),
    "forced key": ("++optim.lrr=3", "unknown key 'optim.lrr': did you mean 'lr'?"),
    "added part": ("+logger.cvs.save_dir=x", "'logger.cvs' says not what it is (no _target_): did you mean 'csv'?"),
    "type": ("model.depth=deep", "model.depth='deep' has the wrong type: it should be a whole number"),
    "fraction": ("data.batch_size=1.5", "data.batch_size=1.5 has the wrong type: it should be a whole number"),
    "literal": ("data.view=grph", "data.source.view='grph': did you mean 'graph'?"),
    "list": ("optim.optimizer.betas=[0.9]", "optim.optimizer.betas=[0.9] has the wrong type: it should be a list of 2"),
    "list of options": ("figures=[pfd]", "figures=['pfd'] has the wrong type: it should be a list of png or pdf or"),
    "null": ("seed=null", "seed=None has the wrong type: it should be a whole number"),
    "target": (
        "optim._target_=gt.train.optim.AdamV",
        "optim._target_: there is nothing called 'gt.train.optim.AdamV' to import",
    ),
    "interpolation": ("optim.lr=${nope}", "optim.lr: Interpolation key 'nope' not found"),
    "missing": ("data=text", "data.source.path is not set: give data.source.path=VALUE"),
    "required": ("~optim", "there is no 'optim': choose an option, optim=NAME"),
    "no value": ("foo", "cannot read 'foo': an override is key=value or group=option"),
    "no sense": ("optim.lr=[1", "cannot read 'optim.lr=[1': an override is key=value or group=option"),
    "sweep over numbers": ("optim.lr=1,2,high", "optim.lr='high' has the wrong type: it should be a number"),
    "sweep over options": ("model=gcn,gni", "no option 'gni' in group 'model': did you mean 'gin'?"),
    "sweep over lists": ("encoding=[rwse],[rsew]", "no option 'rsew' in group 'encoding': did you mean 'rwse'?"),
    "sweep with a plus": (
        "+optim.optimizer.betas=[0,1],[0]",
        "optim.optimizer.betas=[0] has the wrong type: it should be a list of 2",
    ),
    "sweep of an absent key": ("trainer.fast_dev_run=1,x", "trainer.fast_dev_run='x' has the wrong type"),
    "sweep with an interval": ("data.batch_size=interval(1,2.5)", "data.batch_size=1.0 has the wrong type"),
    "sweep over nothing": ("model=glob(zz*)", "model=glob(zz*) has no value to sweep over"),
    "Hydra's key": ("hydra.run.dri=x", "Could not override 'hydra.run.dri'"),
    "Hydra's option": ("hydra/launcher=nope", "Could not find 'hydra/launcher/nope'"),
}  # fmt: skip


@pytest.mark.parametrize(("argument", "message"), WRONG.values(), ids=WRONG)
def test_a_mistake_is_one_line(argument, message):
    with pytest.raises(UserError) as caught:
        check_command([argument])
    text = said(caught)
    assert message in text
    if message.endswith("?"):
        assert text == message


@pytest.mark.parametrize("group", ["logger", "loss", "callbacks", "baseline", "encoding"])
def test_of_some_groups_none_may_be_chosen(group):
    assert not composed(prepared([f"{group}=null"])).get(group)


@pytest.mark.parametrize("group", ["model", "mask", "trainer", "optim"])
def test_null_and_nothing_are_no_options(group):
    for value in ("null", ""):
        with pytest.raises(UserError, match=f"^no option '{value}' in group '{group}': there are "):
            check_command([f"{group}={value}"])


def test_each_value_of_a_sweep_is_checked_beside_the_first_of_the_others():
    with pytest.raises(UserError) as caught:
        check_command(["-m", "model=gps,gcn", "model.block.blend.weight=0.1,0.2"])  # a GCN blends nothing
    assert "'model.block.blend.weight'" in said(caught)
    assert check_command(["-m", "model=gps,gt", "model.depth=1,2"])


# ---- mistakes in files

FILES = {
    "section": ("modle:\n  depth: 3", "unknown key 'modle': did you mean 'model'?"),
    "nested": ("model:\n  blok:\n    dropout: 0.1", "unknown key 'model.blok': did you mean 'block'?"),
    "deep": ("model:\n  block:\n    droput: 0.1", "unknown key 'model.block.droput': did you mean 'dropout'?"),
    "type": ("optim:\n  lr: fast", "optim.lr='fast' has the wrong type: it should be a number"),
    "literal": ("data:\n  source:\n    view: grph", "data.source.view='grph': did you mean 'graph'?"),
    "in_a_list": (
        "mask:\n  _target_: gt.masks.Union\n  hops: null\n  masks:\n    - _target_: gt.masks.Hops\n      hosp: 3",
        "unknown key 'mask.hops': there are masks",
    ),
    "part": ("callbacks:\n  early_stoping:\n    patience: 3", "did you mean 'early_stopping'?"),
    "option": ("defaults:\n  - override /model: gsp", "no option 'gsp' in group 'model': did you mean 'gpt'?"),
    "options": (
        "defaults:\n  - override /encoding: [rwse, nope]",
        "no option 'nope' in group 'encoding': did you mean 'rope'?",
    ),
    "group": ("defaults:\n  - override /modle: gps", "no group 'modle': did you mean 'model'?"),
    "added_group": ("defaults:\n  - /modle/local: gcn", "no group 'modle/local': did you mean 'model/local'?"),
    "string": ("encoding: rwse", "encoding='rwse' has the wrong type: it should be a section with a section for"),
    "target": ("model:\n  _target_: gt.model.Nope", "model._target_: there is nothing called 'gt.model.Nope'"),
    "interpolation": ("model:\n  depth: ${nope}", "model.depth: Interpolation key 'nope' not found"),
}
BROKEN = {
    "tabs": ("model:\n\tdepth: 3", ", line 3: found character '\\t' that cannot start any token"),
    "bracket": ("model:\n  depth: [3", ", line 4: expected ',' or ']', but got '<stream end>'"),
    "twice": ("model:\n  depth: 3\n  depth: 4", ", line 4: found duplicate key depth"),
    "list": ("- a\n- b", " holds a list: a configuration file holds keys and their values"),
    "brace": ("model:\n  depth: ${nope", ": no viable alternative at input '${nope'"),
}


@pytest.fixture(scope="module")
def configs(tmp_path_factory) -> Path:
    """A copy of the configurations with files in them that are wrong."""
    folder = tmp_path_factory.mktemp("project") / "configs"
    shutil.copytree(CONFIGS, folder)
    for name, (content, _) in (FILES | BROKEN).items():
        (folder / "experiment" / f"{name}.yaml").write_text(f"# @package _global_\n{content}\n")
    (folder / "experiment" / "bare.yaml").write_text("model:\n  depth: 3\n")
    (folder / "experiment" / "through.yaml").write_text("# @package _global_\ndefaults:\n  - override /data: bad\n")
    (folder / "experiment" / "inner.yaml").write_text("# @package _global_\ndefaults:\n  - section\n")
    (folder / "experiment" / "good.yaml").write_text("# @package _global_\nmodel:\n  depth: 3\n")
    (folder / "debug" / "bad.yaml").write_text("# @package _global_\ntrainer:\n  max_epoch: 1\n")
    (folder / "data" / "bad.yaml").write_text("defaults:\n  - python_functions\nbatchsize: 3\n")
    return folder


@pytest.mark.parametrize("name", FILES)
def test_a_mistake_in_an_experiment_names_its_file(name, configs):
    with pytest.raises(UserError) as caught:
        check_command([f"experiment={name}", "seed=3"], configs)
    assert said(caught).startswith(f"configs/experiment/{name}.yaml: ")
    assert FILES[name][1] in said(caught)


@pytest.mark.parametrize("name", BROKEN)
def test_a_file_that_cannot_be_read_is_named_with_its_line(name, configs):
    with pytest.raises(UserError) as caught:
        check_command([f"experiment={name}"], configs)
    assert said(caught) == f"configs/experiment/{name}.yaml{BROKEN[name][1]}"


def test_the_file_that_is_named_is_the_one_that_holds_the_key(configs):
    for arguments, message in (
        (["debug=bad"], "configs/debug/bad.yaml: unknown key 'trainer.max_epoch': did you mean 'max_epochs'?"),
        (["data=bad"], "configs/data/bad.yaml: unknown key 'data.batchsize': did you mean 'batch_size'?"),
        (["experiment=through"], "configs/data/bad.yaml: unknown key 'data.batchsize': did you mean 'batch_size'?"),
        (["experiment=inner"], "configs/experiment/section.yaml: unknown key 'modle': did you mean 'model'?"),
        (["experiment=good", "debug=bad"], "configs/debug/bad.yaml: unknown key 'trainer.max_epoch'"),
        (["experiment=good,section"], "configs/experiment/section.yaml: unknown key 'modle'"),
        (["experiment=bare"], "configs/experiment/bare.yaml lacks its first line '# @package _global_'"),
    ):
        with pytest.raises(UserError) as caught:
            check_command(arguments, configs)
        assert said(caught).startswith(message)


def test_a_mistake_on_the_command_line_is_not_blamed_on_a_file(configs):
    for argument, message in (
        ("model.depth=deep", "model.depth='deep' has the wrong type: it should be a whole number"),
        ("+model.dpeth=3", "unknown key 'model.dpeth': did you mean 'depth'?"),
        ("+data.batchsize=3", "unknown key 'data.batchsize': did you mean 'batch_size'?"),
    ):
        with pytest.raises(UserError) as caught:
            check_command(["experiment=good", argument], configs)
        assert said(caught) == message
    assert check_command(["experiment=interpolation", "model.depth=3"], configs)  # what was wrong there is replaced


# ---- pieces


def test_groups_are_folders_with_options_and_not_those_of_hydra():
    found = groups(CONFIGS)
    assert {"model", "model/local", "data", "experiment"} <= found.keys()
    assert not any(name.startswith("hydra") for name in found)
    assert found["model/local"] == sorted(path.stem for path in (CONFIGS / "model" / "local").glob("*.yaml"))


@pytest.mark.parametrize(
    ("argument", "lines"),
    [
        ("seed=3", ["seed=3"]),
        ("~logger", ["~logger"]),
        ("seed=1,2", ["seed=1", "seed=2"]),
        ("+seed=1,2", ["+seed=1", "+seed=2"]),
        ("++seed=1,null", ["++seed=1", "++seed=null"]),
        ("a@b=x,y", ["a@b=x", "a@b=y"]),
        ("seed=range(1,4)", ["seed=1", "seed=2", "seed=3"]),
        ("name=choice('a b',c)", ["name=a\\ b", "name=c"]),
        ("x=[1,2],[3]", ["x=[1,2]", "x=[3]"]),
        ("x=interval(1,2)", ["x=1.0", "x=2.0"]),
        ("x=glob([a*,b],exclude=ab)", ["x=aa", "x=b"]),
    ],
)
def test_a_sweep_is_one_override_for_each_value(argument, lines):
    (override,) = parsed([argument])
    assert alternatives(override, ["aa", "ab", "b", "c"]) == lines
    for line in lines:
        assert not parsed([line])[0].is_sweep_override()


def test_arguments_of_hydra_are_no_overrides():
    found = parsed(["-m", "seed=1", "--cfg", "job", "-p", "model", "--resolve", "name=a"])
    assert [override.input_line for override in found] == ["seed=1", "name=a"]


@pytest.mark.parametrize(
    ("arguments", "flags", "overrides"),
    [
        ("seed=1,2 -m optim.lr=1", "-m", "seed=1,2 optim.lr=1"),
        ("seed=1 --multirun", "--multirun", "seed=1"),
        ("--optim.lr=0.1 --seed=3 mask.hops=1", "", "optim.lr=0.1 seed=3 mask.hops=1"),
        ("--data=text --data.path=--odd=name", "", "data=text data.path=--odd=name"),
        ("a=1 --cfg job b=2 -p model --resolve", "--cfg job -p model --resolve", "a=1 b=2"),
        ("--cfg=job a=1", "--cfg job", "a=1"),
        ("a=1 --config-dir=mine -cn other", "--config-dir mine -cn other", "a=1"),
        ("a=1 --info defaults b=2", "--info defaults", "a=1 b=2"),
        ("-i a=1", "-i", "a=1"),
        ("~logger +a=1", "", "~logger +a=1"),
    ],
)
def test_flags_may_stand_anywhere_and_w_and_b_puts_dashes_before_keys(arguments, flags, overrides):
    assert arranged(arguments.split()) == (flags.split(), overrides.split())


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ("--mutlirun seed=1", "--multirun"),
        ("-x", "-x"),
        ("seed=1 --cfg", "--cfg"),
        ("--experimental-rerun=a.pkl", "--exp"),
        ("--experimental-rerun a.pkl", "--exp"),
        ("-", "-"),
    ],
)
def test_a_flag_that_does_not_exist_is_one_line(arguments, named):
    with pytest.raises(UserError) as caught:
        prepared(arguments.split())
    assert named in said(caught)


@pytest.fixture
def run_folder(tmp_path) -> Path:
    """What a run leaves behind that can be resumed."""
    folder = tmp_path / "run"
    (folder / ".hydra").mkdir(parents=True)
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints" / "last.ckpt").touch()
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        cfg = compose("train", overrides=["model=gcn", "trainer.max_epochs=3"])
    OmegaConf.save(cfg, folder / ".hydra" / "config.yaml")
    return folder


def test_a_run_goes_on_with_the_configuration_that_it_kept(run_folder):
    found = resumed([f"resume={run_folder}", "trainer.max_epochs=5", "trainer.detect_anomaly=true"])
    assert found[:2] == ["--config-path", str(run_folder / ".hydra")]
    assert found[2:4] == ["--config-name", "config"]
    overrides = [argument for argument in found[4:] if not argument.startswith("hydra.")]
    assert f"hydra.run.dir={run_folder}" in found
    with initialize_config_dir(found[1], version_base="1.3"):
        cfg = compose("config", overrides=overrides)
    assert (cfg.resume, cfg.trainer.max_epochs, cfg.trainer.detect_anomaly) == (str(run_folder), 5, True)
    assert "Parallel" in cfg.model.block._target_
    assert prepared([f"resume={run_folder}"]) == resumed([f"resume={run_folder}"])


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("trainer.max_epoch=5", "unknown key 'trainer.max_epoch': did you mean 'max_epochs'?"),
        (
            "trainer.max_epochs=many",
            "trainer.max_epochs='many' has the wrong type: it should be a whole number or null",
        ),
        ("trainr.max_epochs=5", "unknown key 'trainr': did you mean 'trainer'?"),
        ("model/local=gcn", "no group 'model/local': nothing may be set here"),
        ("+optim.lrr=5", "unknown key 'optim.lrr': did you mean 'lr'?"),
    ],
)
def test_mistakes_beside_resume_are_one_line(argument, message, run_folder):
    with pytest.raises(UserError) as caught:
        resumed([f"resume={run_folder}", argument])
    assert said(caught) == message


@pytest.mark.parametrize(
    "argument",
    [
        "optim.lr=1e-5", "optim.warmup=0.1", "trainer.max_epochs=9", "trainer.max_steps=70", 
        "trainer.precision=bf16-mixed",
        "trainer.gradient_clip_val=null", "callbacks.early_stopping.patience=3", "data.workers=1", "name=again",
    ],
)  # fmt: skip
def test_how_a_run_goes_on_may_change_and_is_said(argument, run_folder, capsys):
    found = resumed([f"resume={run_folder}", argument])
    assert argument in found
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
        "optim.optimizer._target_=torch.optim.Adam", "optim._target_=tests.test_construct.Layer",
        "mask._target_=gt.masks.Complete", "model.block.local._target_=gt.layers.FeedForward",
        "optim.schedule._target_=torch.optim.lr_scheduler.LinearLR",
        "trainer.fast_dev_run=true", "model.block.norm.eps=0.1",
    ],
)  # fmt: skip
def test_what_a_run_is_may_not_change(argument, run_folder):
    with pytest.raises(UserError) as caught:
        resumed([f"resume={run_folder}", argument])
    assert argument.partition("=")[0] in said(caught)


def test_another_callback_is_swapped_for_one_of_a_run_and_what_it_does_not_take_is_said(run_folder, capsys):
    swap = "callbacks.early_stopping._target_=pytorch_lightning.callbacks.GradientAccumulationScheduler"
    arguments = resumed([f"resume={run_folder}", swap, "callbacks.early_stopping.scheduling={}"])
    lines = capsys.readouterr().out.splitlines()
    assert any(swap in line for line in lines)
    assert {line.removeprefix("goes on with no ") for line in lines[2:]} == {
        "callbacks.early_stopping.patience, was 20", "callbacks.early_stopping.check_finite, was false",
    }  # fmt: skip
    with initialize_config_dir(arguments[1], version_base="1.3"):
        cfg = compose("config", overrides=[each for each in arguments[4:] if not each.startswith("hydra.")])
    settle(cfg, arguments[4:])
    assert set(cfg.callbacks.early_stopping) == {"_target_", "scheduling"}


def test_a_rate_that_a_plateau_has_lowered_may_not_change():
    before = OmegaConf.create({"optim": {"lr": 0.1, "schedule": {"_target_": "torch.ReduceLROnPlateau"}}})
    with pytest.raises(UserError, match=r"optim\.lr"):
        changes(before, OmegaConf.merge(before, {"optim": {"lr": 0.2}}))
    before.optim.schedule._target_ = "torch.CosineAnnealingLR"
    assert len(changes(before, OmegaConf.merge(before, {"optim": {"lr": 0.2}}))) == 1


def test_a_value_that_is_not_new_changes_nothing(run_folder, capsys):
    resumed([f"resume={run_folder}", "trainer.max_epochs=3", "seed=0"])
    assert capsys.readouterr().out == ""


def test_a_run_that_went_on_under_other_settings_keeps_them(run_folder, capsys):
    found = resumed([f"resume={run_folder}", "optim.lr=1e-5", "trainer.min_epochs=2"])
    with initialize_config_dir(found[1], version_base="1.3"):
        cfg = compose("config", overrides=[argument for argument in found[4:] if not argument.startswith("hydra.")])
    [where] = [argument.partition("=")[2] for argument in found if argument.startswith("hydra.output_subdir=")]
    (run_folder / where).mkdir()
    OmegaConf.save(cfg, run_folder / where / "config.yaml")  # as Hydra does
    again = resumed([f"resume={run_folder}", "trainer.min_epochs=2"])
    with initialize_config_dir(again[1], version_base="1.3"):
        cfg = compose("config", overrides=[argument for argument in again[4:] if not argument.startswith("hydra.")])
        compose("config", overrides=[argument for argument in found[4:] if not argument.startswith("hydra.")])
    assert (cfg.optim.lr, cfg.trainer.min_epochs, cfg.trainer.max_epochs) == (1e-5, 2, 3)
    capsys.readouterr()
    resumed([f"resume={run_folder}", "optim.lr=1e-5"])
    assert capsys.readouterr().out == ""


def test_a_folder_that_cannot_be_resumed_is_one_line(run_folder, tmp_path):
    with pytest.raises(UserError, match=r"^no run in .*nowhere: resume takes the folder that a run named"):
        resumed([f"resume={tmp_path / 'nowhere'}"])
    (run_folder / "checkpoints" / "last.ckpt").unlink()
    with pytest.raises(UserError, match=r"run has no checkpoint"):
        resumed([f"resume={run_folder}"])


def test_without_a_folder_to_resume_nothing_changes():
    for arguments in ([], ["seed=1"], ["resume=null"], ["resume="]):
        assert resumed(arguments) is arguments


def test_hydra_answers_for_itself_and_a_child_process_was_checked(monkeypatch):
    for arguments in (["--help"], ["--info", "all", "modle=x"], ["--info", "modle=x"], ["-sc", "install=bash"]):
        assert prepared(arguments) == arguments
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert prepared(["modle=x"]) == ["modle=x"]


def test_several_values_need_a_multirun():
    with pytest.raises(UserError, match=r"^seed=1,2 gives several values: add -m to run them all$"):
        prepared(["seed=1,2"])
    for arguments in (["-m", "seed=1,2"], ["seed=1,2", "--multirun"], ["hydra.mode=MULTIRUN", "seed=1,2"]):
        assert sorted(prepared(arguments)) == sorted(arguments)


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (UserError("mend it"), 1, "error: mend it\n"),
        (FileNotFoundError(2, "No such file or directory", "a.txt"), 1, "error: No such file or directory: a.txt\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
    ],
)
def test_what_a_user_can_mend_ends_with_one_line_and_a_code(error, code, line, capsys):
    with pytest.raises(SystemExit) as caught, one_line():
        raise error
    assert caught.value.code == code
    assert capsys.readouterr().err == line


def test_what_a_user_cannot_mend_is_one_line_and_keeps_its_traceback_in_a_file(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(SystemExit) as caught, one_line():
        1 / 0  # noqa: B018
    assert caught.value.code == 1
    (line,) = capsys.readouterr().err.splitlines()
    (log,) = tmp_path.iterdir()
    assert line.startswith("error: ZeroDivisionError: ")
    assert str(log) in line
    assert "1 / 0" in log.read_text()


# ---- the program itself


def test_the_program_ends_with_one_line_and_writes_nothing(tmp_path):
    cases = {
        "modle=gps": "error: unknown key 'modle': did you mean 'model'?",
        "-m data.view=graph,grph": "error: data.source.view='grph': did you mean 'graph'?",
        "foo": "error: cannot read 'foo': an override is key=value or group=option",
    }
    environment = {name: value for name, value in os.environ.items() if name != "LOCAL_RANK"}

    def run(arguments: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            [sys.executable, str(ROOT / "train.py"), *arguments.split()],
            cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip

    with ThreadPoolExecutor(2) as pool:
        for line, done in zip(cases.values(), pool.map(run, cases), strict=True):
            assert done.returncode == 1
            assert done.stderr == line + "\n"
            assert done.stdout == ""
    assert list(tmp_path.iterdir()) == []


def test_a_run_of_an_older_version_is_said_to_be_one(run_folder):
    kept = run_folder / ".hydra" / "config.yaml"
    kept.write_text(kept.read_text().replace("gt.train.callbacks.SaveLast", "gt.callbacks.SaveLast"))
    with pytest.raises(UserError) as caught:
        resumed([f"resume={run_folder}"])
    text = said(caught)
    assert all(part in text for part in ("older version", str(run_folder), "callbacks.last._target_", "gt.load("))
    kept.write_text(kept.read_text().replace("gt.callbacks.SaveLast", "mine.SaveLast"))  # one's own is missing
    with pytest.raises(UserError) as caught:
        resumed([f"resume={run_folder}"])
    assert "older version" not in said(caught)


def test_a_run_does_not_begin_where_another_is(run_folder, tmp_path):
    with pytest.raises(UserError) as caught:
        prepared([f"hydra.run.dir={run_folder}"])
    assert all(part in said(caught) for part in (f"resume={run_folder}", "hydra.run.dir"))
    assert prepared(["--cfg", "job", f"hydra.run.dir={run_folder}"])
    (run_folder / "checkpoints" / "last.ckpt").unlink()  # it stopped before its first: there is nothing to lose
    assert prepared([f"hydra.run.dir={run_folder}"])
    (run_folder / "result.json").touch()
    with pytest.raises(UserError, match=r"hydra\.run\.dir"):
        prepared([f"hydra.run.dir={run_folder}"])


class Bare(Source):
    """A source without options."""

    def key(self):
        return {}

    def build(self):
        return []


@pytest.mark.parametrize(
    ("words", "full"),
    [
        (["data=text", "data.path=a", "+data.root=b"], ["data=text", "data.source.path=a", "+data.source.root=b"]),
        (["data.batch_size=3", "~data.source", "seed=1"], ["data.batch_size=3", "~data.source", "seed=1"]),
        (["data.dataset.name=Cora", "data.roots=1"], ["data.source.dataset.name=Cora", "data.roots=1"]),
        (["data.dataset.name=Cora", f"data.source._target_={__name__}.Bare", "data.seed=2"],
         ["data.source.dataset.name=Cora", f"data.source._target_={__name__}.Bare", "data.seed=2"]),
    ],
)  # fmt: skip
def test_what_only_the_source_takes_need_not_be_said_in_full(words, full):
    base = OmegaConf.create({"data": {"_target_": "gt.data.graphs.GraphData", "batch_size": 1, "source": {
        "_target_": "gt.data.own.pyg.PyG", "dataset": {"name": "?"}}}})  # fmt: skip
    base.data.source.path = "?"
    assert in_full(words, base) == full
    bare = OmegaConf.create(
        {"data": {"_target_": "gt.data.graphs.GraphData", "source": {"_target_": f"{__name__}.Bare"}}}
    )
    assert in_full(["data.batch_size=3", "data.path=a"], bare) == ["data.batch_size=3", "data.path=a"]
