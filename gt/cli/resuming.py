"""``resume=FOLDER``: continue a stopped run under the configuration saved in its folder."""

import shlex
from collections.abc import Iterable
from pathlib import Path

from hydra import initialize_config_dir
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf

from gt.cli.arguments import expand_keys, parse_overrides
from gt.cli.composing import additions, configuration, remove_leftovers
from gt.cli.config import WrongKey, check
from gt.cli.config_files import CONFIGS, groups
from gt.cli.run_folders import RESUMED, configuration_of
from gt.errors import UserError, shell_override
from gt.train.job import in_use
from gt.train.resume import changes


def resume_arguments(arguments: list[str]) -> list[str]:
    """Translate ``resume=FOLDER`` for Hydra: the saved configuration of the run, in the same folder.

    Changes made by the other arguments are printed, one per line, and saved for later resumptions.

    Raises:
        UserError: there is no such run, it has no checkpoint, or an argument changes what must stay the same, see
            `gt.train.resume`.
    """
    last = ["resume=", *(argument for argument in arguments if argument.startswith("resume="))][-1]
    if last in ("resume=", "resume=null"):
        return arguments
    folder = Path(last.removeprefix("resume="))
    if not ((configs := configuration_of(folder)) / "config.yaml").is_file():
        raise UserError(f"no run in {folder}: resume takes the run folder that a run prints when it starts and ends")
    if not any((folder / "checkpoints").glob("*.ckpt")):
        raise UserError(f"{folder} has no checkpoint: the run stopped before its first; start a new run")
    if in_use(folder):
        raise UserError(f"another process is working in {folder}: wait until it ends, or stop it")
    others = [argument for argument in arguments if not argument.startswith("resume=")]
    with initialize_config_dir(str(configs.resolve()), version_base="1.3"):
        before = configuration([], "config")
        others = expand_keys(others, before)
        overrides = parse_overrides(others)
        refuse_groups(overrides)
        added = additions([o for o in overrides if not o.is_hydra_override()], before.copy(), {})
        # "++", as processes started later read the configuration written by this one, which already has the key
        others = ["++" + argument if argument in added else argument for argument in others]
        after = configuration([str(override.input_line) for override in parse_overrides(others)], "config")
        remove_leftovers(after, others)
        differences = changes(before, after)
        try:
            check(after)
        except WrongKey:
            check_version(before, folder)
            raise
    for change in differences:
        print(f"continuing with {change}", flush=True)
    config_arguments = ["--config-path", str(configs.resolve()), "--config-name", "config"]
    folder_arguments = [
        word for key in ("resume", "hydra.run.dir") for word in shlex.split(shell_override(key, str(folder)))
    ]
    return [*config_arguments, *folder_arguments, f"hydra.output_subdir=.hydra/{RESUMED}", *others]


def refuse_groups(overrides: Iterable[Override]) -> None:
    """Check that each override sets a key: the options of a run's groups cannot be chosen again.

    Raises:
        UserError: one chooses an option of a group.
    """
    available = groups(CONFIGS)
    for override in overrides:
        group, value = override.key_or_group, override.value()
        chosen = [str(option) for option in (value if isinstance(value, list) else [value])]
        if chosen and set(chosen) <= set(available.get(group, ())):
            raise UserError(
                f"{override.input_line}: a resumed run keeps its options; change single keys with {group}.KEY=VALUE, "
                "or start a new run from its weights with init=RUN_FOLDER"
            )


def check_version(cfg: DictConfig, folder: Path) -> None:
    """Refuse the configuration of a run that was written by another version of this program.

    Raises:
        UserError: the saved configuration itself has a mistake in a section of this package.
    """
    try:
        check(cfg)
    except WrongKey as error:
        section = OmegaConf.select(cfg, error.key.rpartition(".")[0])
        if isinstance(section, DictConfig) and str(section.get("_target_")).startswith("gt."):
            load = f"gt.load({str(folder)!r})"
            raise UserError(
                f"{folder} was written by an older version of this program and cannot be resumed ({error}); "
                f"{load} may still read its checkpoint"
            ) from None
