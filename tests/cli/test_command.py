"""Checks of the command line of a run: valid arguments pass, mistakes are one line with the nearest valid name."""

import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor

import pytest
from hydra import compose, initialize_config_dir

from gt.cli.command import check_command, prepare_arguments
from gt.cli.composing import compose_config
from gt.cli.config_files import CONFIGS, groups
from gt.errors import UserError, one_line
from tests.command_lines import message_of

ROOT = CONFIGS.parent


@pytest.mark.parametrize(
    "arguments",
    [
        ["model=gcn", "data=python_functions", "optim.lr=3e-4", "seed=7", "name=mine", "mask.hops=null"],
        ["data=text", "data.source.path=a.txt", "data.context=8", "experiment=shakespeare_char"],
        ["encoding=[rwse, laplacian]", "encoding.laplacian.k=3", "model/local=gated_gcn", "debug=smoke"],
        ["callbacks.early_stopping=null", "logger.wandb=null", "~callbacks.progress", "~trainer.max_epochs"],
        ["~logger", "hydra.sweep.dir=elsewhere", "hydra/job_logging=none", "hydra.mode=MULTIRUN"],
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
def test_valid_arguments_are_unchanged(arguments):
    assert check_command(arguments) == arguments


def test_config_can_be_shown_without_a_data_path():
    assert "data=molecules" in prepare_arguments(["data=molecules", "--cfg", "job"])
    with pytest.raises(UserError, match=r"data\.source\.path"):
        prepare_arguments(["data=molecules"])


def test_key_of_other_datasets_lists_those_datasets():
    with pytest.raises(UserError) as caught:
        prepare_arguments(["data=csv_nodes", "data.path=x", "data.batch_size=512"])
    datasets = str(caught.value).partition("data=")[2].replace(" and", ",").split(", ")
    assert "csv_graphs" in datasets
    assert "csv_nodes" not in datasets


def test_accepted_key_absent_from_the_file_is_added():
    arguments = ["trainer.fast_dev_run=true", "-m", "model.block.norm.eps=0.1,0.2", "seed=1", "model.head.bias=false"]
    expected = [
        "+trainer.fast_dev_run=true", "-m", "+model.block.norm.eps=0.1,0.2", "seed=1", "+model.head.bias=false",
    ]  # fmt: skip
    assert check_command(arguments) == expected
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        cfg = compose("train", overrides=["+trainer.fast_dev_run=true", "+model.block.norm.eps=0.1"])
    assert cfg.trainer.fast_dev_run is True
    assert cfg.model.block.norm.eps == 0.1


def test_keys_are_checked_against_the_overridden_target():
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
    "option": ("model=gsp", "no option 'gsp' in group 'model': did you mean 'gps' or 'gpt'?"),
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
    "added part": ("+logger.cvs.save_dir=x", "'logger.cvs' has no _target_: did you mean 'csv'?"),
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
    "sweep over options": ("model=gcn,gni", "no option 'gni' in group 'model': did you mean 'gcn' or 'gin'?"),
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
def test_mistake_is_reported_in_one_line(argument, message):
    with pytest.raises(UserError) as caught:
        check_command([argument])
    text = message_of(caught)
    assert message in text
    if message.endswith("?"):
        assert text == message


def test_key_of_an_unselected_sampler_names_the_sampler():
    with pytest.raises(UserError, match=r"'data\.sampler\.fanout': it belongs to data/sampler=neighbours$"):
        check_command(["data=csv_nodes", "data.path=x", "data.sampler.fanout=3"])


def test_key_missing_in_one_swept_option_names_the_option():
    with pytest.raises(UserError, match=r"^with model=graphormer there is no key 'mask\.hops'$"):
        check_command(["-m", "model=gps,graphormer", "mask.hops=1"])


@pytest.mark.parametrize("group", ["logger", "loss", "callbacks", "baseline", "encoding"])
def test_optional_group_accepts_null(group):
    assert not compose_config(prepare_arguments([f"{group}=null"])).get(group)


@pytest.mark.parametrize("group", ["model", "mask", "trainer", "optim"])
def test_required_group_rejects_null_and_empty(group):
    for value in ("null", ""):
        with pytest.raises(UserError, match=f"^no option '{value}' in group '{group}': there are "):
            check_command([f"{group}={value}"])


def test_swept_values_are_checked_with_the_first_others():
    with pytest.raises(UserError) as caught:
        check_command(["-m", "model=gps,gcn", "model.block.blend.weight=0.1,0.2"])  # a GCN has no blend
    assert "'model.block.blend.weight'" in message_of(caught)
    assert check_command(["-m", "model=gps,gt", "model.depth=1,2"])


# ---- groups, flags and exit codes


def test_groups_are_config_folders_except_hydra():
    options = groups(CONFIGS)
    assert {"model", "model/local", "data", "experiment"} <= options.keys()
    assert not any(name.startswith("hydra") for name in options)
    assert options["model/local"] == sorted(path.stem for path in (CONFIGS / "model" / "local").glob("*.yaml"))


def test_hydra_queries_and_child_processes_are_not_checked(monkeypatch):
    for arguments in (["--help"], ["--info", "all", "modle=x"], ["--info", "modle=x"], ["-sc", "install=bash"]):
        assert prepare_arguments(arguments) == arguments
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert prepare_arguments(["modle=x"]) == ["modle=x"]


def test_several_values_require_multirun():
    with pytest.raises(UserError, match=r"^seed=1,2 gives several values: add -m to run them all$"):
        prepare_arguments(["seed=1,2"])
    for arguments in (["-m", "seed=1,2"], ["seed=1,2", "--multirun"], ["hydra.mode=MULTIRUN", "seed=1,2"]):
        assert sorted(prepare_arguments(arguments)) == sorted(arguments)


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (UserError("mend it"), 1, "error: mend it\n"),
        (FileNotFoundError(2, "No such file or directory", "a.txt"), 1, "error: No such file or directory: a.txt\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
    ],
)
def test_user_error_ends_with_one_line_and_exit_code(error, code, line, capsys):
    with pytest.raises(SystemExit) as caught, one_line():
        raise error
    assert caught.value.code == code
    assert capsys.readouterr().err == line


def test_internal_error_saves_its_traceback_to_a_file(capsys, tmp_path, monkeypatch):
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


def test_program_reports_one_line_and_writes_no_files(tmp_path):
    messages = {
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
        for line, process in zip(messages.values(), pool.map(run, messages), strict=True):
            assert process.returncode == 1
            assert process.stderr == line + "\n"
            assert process.stdout == ""
    assert list(tmp_path.iterdir()) == []
