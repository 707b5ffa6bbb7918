"""Mistakes in the user's configuration files: one line that names the file."""

import shutil
from pathlib import Path

import pytest

from gt.cli.command import check_command
from gt.cli.config_files import CONFIGS
from gt.errors import UserError
from tests.command_lines import message_of

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
    "option": ("defaults:\n  - override /model: gsp", "no option 'gsp' in group 'model': did you mean 'gps' or 'gpt'?"),
    "options": (
        "defaults:\n  - override /encoding: [rwse, nope]",
        "no option 'nope' in group 'encoding': did you mean 'none' or 'rope'?",
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
    """A copy of the configuration folder with faulty files added."""
    folder = tmp_path_factory.mktemp("project") / "configs"
    shutil.copytree(CONFIGS, folder)
    for name, (content, _) in (FILES | BROKEN).items():
        (folder / "experiment" / f"{name}.yaml").write_text(f"# @package _global_\n{content}\n")
    (folder / "experiment" / "bare.yaml").write_text("model:\n  depth: 3\n")
    (folder / "experiment" / "late.yaml").write_text("# what it is\n# @package _global_\nmodel:\n  depth: 3\n")
    (folder / "experiment" / "through.yaml").write_text("# @package _global_\ndefaults:\n  - override /data: bad\n")
    (folder / "experiment" / "inner.yaml").write_text("# @package _global_\ndefaults:\n  - section\n")
    (folder / "experiment" / "good.yaml").write_text("# @package _global_\nmodel:\n  depth: 3\n")
    (folder / "debug" / "bad.yaml").write_text("# @package _global_\ntrainer:\n  max_epoch: 1\n")
    (folder / "data" / "bad.yaml").write_text("defaults:\n  - python_functions\nbatchsize: 3\n")
    return folder


@pytest.mark.parametrize("name", FILES)
def test_mistake_in_an_experiment_names_its_file(name, configs):
    with pytest.raises(UserError) as caught:
        check_command([f"experiment={name}", "seed=3"], configs)
    assert message_of(caught).startswith(f"configs/experiment/{name}.yaml: ")
    assert FILES[name][1] in message_of(caught)


@pytest.mark.parametrize("name", BROKEN)
def test_unparsable_file_is_reported_with_its_line(name, configs):
    with pytest.raises(UserError) as caught:
        check_command([f"experiment={name}"], configs)
    assert message_of(caught) == f"configs/experiment/{name}.yaml{BROKEN[name][1]}"


def test_message_names_the_file_that_sets_the_key(configs):
    for arguments, message in (
        (["debug=bad"], "configs/debug/bad.yaml: unknown key 'trainer.max_epoch': did you mean 'max_epochs'?"),
        (["data=bad"], "configs/data/bad.yaml: unknown key 'data.batchsize': did you mean 'batch_size'?"),
        (["experiment=through"], "configs/data/bad.yaml: unknown key 'data.batchsize': did you mean 'batch_size'?"),
        (["experiment=inner"], "configs/experiment/section.yaml: unknown key 'modle': did you mean 'model'?"),
        (["experiment=good", "debug=bad"], "configs/debug/bad.yaml: unknown key 'trainer.max_epoch'"),
        (["experiment=good,section"], "configs/experiment/section.yaml: unknown key 'modle'"),
        (["experiment=late"], "configs/experiment/late.yaml: '# @package _global_' has no effect unless it is"),
        (["experiment=bare"], "configs/experiment/bare.yaml lacks its first line '# @package _global_'"),
    ):
        with pytest.raises(UserError) as caught:
            check_command(arguments, configs)
        assert message_of(caught).startswith(message)


def test_command_line_mistake_names_no_file(configs):
    for argument, message in (
        ("model.depth=deep", "model.depth='deep' has the wrong type: it should be a whole number"),
        ("+model.dpeth=3", "unknown key 'model.dpeth': did you mean 'depth'?"),
        ("+data.batchsize=3", "unknown key 'data.batchsize': did you mean 'batch_size'?"),
    ):
        with pytest.raises(UserError) as caught:
            check_command(["experiment=good", argument], configs)
        assert message_of(caught) == message
    # the override replaces the faulty value
    assert check_command(["experiment=interpolation", "model.depth=3"], configs)
