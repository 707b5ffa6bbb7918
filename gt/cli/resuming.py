"""``resume=FOLDER``: a stopped run goes on under the configuration that its folder keeps."""

import shlex
from collections.abc import Iterable
from pathlib import Path

from hydra import initialize_config_dir
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf

from gt.cli.arguments import in_full, parsed
from gt.cli.composing import additions, configuration, settle
from gt.cli.config import WrongKey, check
from gt.cli.config_files import CONFIGS, groups
from gt.cli.run_folders import RESUMED, configuration_of
from gt.errors import UserError, shell_override
from gt.train.job import in_use
from gt.train.resume import changes


def resumed(arguments: list[str]) -> list[str]:
    """``resume=FOLDER`` turned into Hydra's words: the configuration that the folder keeps, in that same folder.

    What the other arguments change in it is said, a line each, and holds the next time that the run goes on, too.

    Raises:
        UserError: no such run, it has nothing to go on from, or an argument changes what must stay, see
            `gt.train.resume`.
    """
    last = ["resume=", *(argument for argument in arguments if argument.startswith("resume="))][-1]
    if last in ("resume=", "resume=null"):
        return arguments
    folder = Path(last.removeprefix("resume="))
    if not ((configs := configuration_of(folder)) / "config.yaml").is_file():
        raise UserError(f"no run in {folder}: resume takes the folder that a run named when it began or ended")
    if not any((folder / "checkpoints").glob("*.ckpt")):
        raise UserError(f"{folder} has no checkpoint: it stopped before its first; start anew")
    if in_use(folder):
        raise UserError(f"another process is at work in {folder}: wait until it ends, or stop it")
    kept = [argument for argument in arguments if not argument.startswith("resume=")]
    with initialize_config_dir(str(configs.resolve()), version_base="1.3"):
        before = configuration([], "config")
        kept = in_full(kept, before)
        overrides = parsed(kept)
        refuse_groups(overrides)
        added = additions([o for o in overrides if not o.is_hydra_override()], before.copy(), {})
        # twice: a process that is started later reads the configuration that this one has written, with the key in it
        kept = ["++" + argument if argument in added else argument for argument in kept]
        after = configuration([str(override.input_line) for override in parsed(kept)], "config")
        settle(after, kept)
        differences = changes(before, after)
        try:
            check(after)
        except WrongKey:
            check_version(before, folder)
            raise
    for change in differences:
        print(f"goes on with {change}", flush=True)
    where = ["--config-path", str(configs.resolve()), "--config-name", "config"]
    places = [word for key in ("resume", "hydra.run.dir") for word in shlex.split(shell_override(key, str(folder)))]
    return [*where, *places, f"hydra.output_subdir=.hydra/{RESUMED}", *kept]


def refuse_groups(overrides: Iterable[Override]) -> None:
    """Whether each override sets a key: what a run began with is one configuration, in which nothing is chosen anew.

    Raises:
        UserError: one chooses among the options of a group.
    """
    known = groups(CONFIGS)
    for override in overrides:
        group, value = override.key_or_group, override.value()
        chosen = [str(option) for option in (value if isinstance(value, list) else [value])]
        if chosen and set(chosen) <= set(known.get(group, ())):
            raise UserError(
                f"{override.input_line}: a run goes on with the sections that it began with; change what is in them by "
                f"{group}.KEY=VALUE, or begin a run with its weights by init=RUN_FOLDER"
            )


def check_version(cfg: DictConfig, folder: Path) -> None:
    """Refuse the configuration of a run that another version of this program has written.

    Raises:
        UserError: it is wrong as it stands in the run's folder, in a section of this program's own.
    """
    try:
        check(cfg)
    except WrongKey as error:
        section = OmegaConf.select(cfg, error.key.rpartition(".")[0])
        if isinstance(section, DictConfig) and str(section.get("_target_")).startswith("gt."):
            load = f"gt.load({str(folder)!r})"
            raise UserError(
                f"{folder} was written by an older version of this program and cannot go on ({error}); "
                f"{load} may still read its checkpoint"
            ) from None
