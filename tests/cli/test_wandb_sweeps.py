"""The sweep files of W&B: every command that an agent builds, by W&B's own code, composes."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args, load_sweep_config

from gt.cli.command import prepare_arguments
from gt.cli.composing import compose_config
from gt.cli.config_files import CONFIGS, groups

FILES = sorted((CONFIGS / "sweep" / "wandb").glob("*.yaml"))
DISTRIBUTIONS = {"uniform", "int_uniform", "log_uniform_values"}


def values(parameter: dict[str, Any]) -> list[Any]:
    """All values of a list, or both ends of a distribution."""
    if "distribution" in parameter:
        assert parameter["distribution"] in DISTRIBUTIONS
        assert parameter["min"] < parameter["max"]
        return [parameter["min"], parameter["max"]]
    return parameter.get("values") or [parameter["value"]]


def commands(sweep: dict[str, Any]) -> Iterator[list[str]]:
    """Commands that an agent runs: with the first value of each parameter, then with each other value once."""
    choices = {name: values(parameter) for name, parameter in sweep["parameters"].items()}
    first = {name: every[0] for name, every in choices.items()}
    others = [{name: value} for name, every in choices.items() for value in every[1:]]
    for changed in [{}, *others]:
        arguments = {name: {"value": value} for name, value in (first | changed).items()}
        macros = create_sweep_command_args({"args": arguments}) | {"program": [sweep["program"]]}
        macros |= {"env": ["/usr/bin/env"], "interpreter": ["python"]}
        words = create_sweep_command([*sweep["command"]])
        yield [word for each in words for word in macros.get(each.removeprefix("${").removesuffix("}"), [each])]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_command_of_a_sweep_composes(path: Path, tmp_path, monkeypatch):
    sweep = load_sweep_config(str(path))
    assert sweep is not None
    assert sweep == yaml.safe_load(path.read_text())
    assert sweep["method"] in ("grid", "random", "bayes")
    assert sweep["metric"]["goal"] in ("minimize", "maximize")
    monkeypatch.chdir(tmp_path)
    Path("input.txt").write_text("some text")
    for number, command in enumerate(commands(sweep)):
        assert command[:3] == ["/usr/bin/env", "python", "train.py"]
        words = prepare_arguments(command[3:]) if not number else command[3:]  # the full check takes a second
        cfg = compose_config([word.replace("data.path", "data.source.path") for word in words])
        assert cfg.logger.keys() == {"wandb"}


def test_sweep_files_are_not_hydra_options():
    assert FILES
    assert "sweep/wandb" not in groups(CONFIGS)
