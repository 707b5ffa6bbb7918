"""Folders of configuration files: those of this package and the user's own."""

import importlib.util
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import MarkedYAMLError

from gt.errors import UserError, first_line, nearest

MAX_LISTED_OPTIONS = 10  # in an error message
CONFIGS = Path(__file__).resolve().parents[2] / "configs"


def groups(configs: Path) -> dict[str, list[str]]:
    """The configuration groups below a folder with their options, except those of Hydra and W&B sweeps."""
    options_of = {}
    for folder in sorted(path for path in configs.rglob("*") if path.is_dir()):
        name = folder.relative_to(configs).as_posix()
        options = sorted(path.stem for path in folder.glob("*.yaml"))
        if options and name.split("/")[0] != "hydra" and name != "sweep/wandb":
            options_of[name] = options
    return options_of


def search_folder(entry: str) -> Path:
    """The folder of an entry of ``hydra.searchpath``: ``file://FOLDER``, ``pkg://PACKAGE`` or a plain path.

    Raises:
        UserError: it does not exist.
    """
    folder = Path(entry.removeprefix("file://"))
    if entry.startswith("pkg://"):
        name = entry.removeprefix("pkg://")
        try:
            spec = importlib.util.find_spec(name.replace("/", "."))
        except ImportError:
            spec = None
        folder = Path(next(iter(spec.submodule_search_locations or ()), "")) if spec else folder
    if not folder.is_dir():
        raise UserError(f"there is no configuration folder at {entry}")
    return folder


def as_list(options: Any) -> list[str]:
    """The options chosen from a group, given as one option, a list or None."""
    items = options if isinstance(options, list) else [] if options is None else [options]
    return ["null" if option is None else str(option) for option in items]


def value_at(content: Any, key: str) -> list[Any]:
    """The value of a dotted key in the content of a file, as a list of one; empty if it is absent."""
    for part in key.split("."):
        content = {str(index): item for index, item in enumerate(content)} if isinstance(content, list) else content
        if not isinstance(content, Mapping) or part not in content:
            return []
        content = content[part]
    return [content]


class Files:
    """The files of configuration folders: the options, what their defaults lists choose, and which file sets a key.

    If several folders hold a file of the same name, the first folder wins, as in Hydra.
    """

    def __init__(self, *folders: Path) -> None:
        self.folders = folders
        self.contents: dict[str, dict[str, Any]] = {}  # of the files read so far
        self.merged: dict[tuple[str, ...], list[tuple[str, str, dict[str, Any]]]] = {}  # cache of `merge_order`
        self.groups: dict[str, list[str]] = {}
        for folder in folders:
            for group, options in groups(folder).items():
                self.groups[group] = sorted({*self.groups.get(group, ()), *options})

    @classmethod
    def from_hydra(cls, hydra: Any) -> "Files":
        """The files that a configuration was composed from, given its ``hydra`` section."""
        sources = [source for source in hydra.runtime.config_sources if source.provider not in ("hydra", "schema")]
        return cls(*(search_folder(f"{source.schema}://{source.path}") for source in sources))

    def _file(self, path: str) -> Path | None:
        return next((file for folder in self.folders if (file := folder / f"{path}.yaml").is_file()), None)

    def name(self, path: str) -> str:
        """The name of a file in messages, such as ``configs/model/gps.yaml``."""
        file = self._file(path)
        folder = self.folders[0] if file is None else Path(str(file).removesuffix(f"{path}.yaml"))
        return f"{folder.name}/{path}.yaml"

    def misplaced_package(self, path: str) -> str:
        """The ``@package`` line of a file if it is not the first line, as Hydra then ignores it; else empty."""
        file = self._file(path)
        package = file and re.search(r"^#\s*@package.*$", file.read_text().lstrip(), re.MULTILINE)
        return package[0] if package and package.start() else ""

    def read(self, path: str) -> dict[str, Any]:
        """The content of a file, with interpolations unresolved.

        Raises:
            UserError: it is not a valid mapping.
        """
        if path in self.contents:
            return self.contents[path]
        try:
            content = OmegaConf.to_container(OmegaConf.load(self._file(path) or path), resolve=False)
        except MarkedYAMLError as error:
            raise UserError(yaml_line(self.name(path), error)) from None
        except OmegaConfBaseException as error:
            raise UserError(f"{self.name(path)}: {first_line(error)}") from None
        if not isinstance(content, dict):
            raise UserError(f"{self.name(path)} holds a list: a configuration file holds keys and their values")
        self.contents[path] = {str(key): value for key, value in content.items()}
        return self.contents[path]

    def check_options(self, group: str, options: Any, context: str = "") -> None:
        """Check that a group has these options and, recursively, that the options in their defaults lists exist.

        Raises:
            UserError: names the file that chooses the option (unless the command line does) and the nearest valid name.
        """
        if group not in self.groups:
            raise UserError(f"{context}no group '{group}': {nearest(group, self.groups)}")
        for option in as_list("null" if options is None else options):
            available = self.groups[group]
            if option not in available:
                raise UserError(f"{context}no option '{option}' in group '{group}': {nearest(option, available)}")
            for inner_group, inner_options in self._defaults(group, f"{group}/{option}"):
                self.check_options(inner_group, inner_options, f"{self.name(f'{group}/{option}')}: ")

    def wrong_option(self, key: str) -> str | None:
        """The message for a key that other options of its group have, but not the chosen one; None if none has it."""
        parts = key.split(".")
        for end in range(len(parts) - 1, 0, -1):  # data.sampler.roots may be of the group data/sampler or data
            group, rest = "/".join(parts[:end]), ".".join(parts[end:])
            matching = [option for option in self.groups.get(group, ()) if self._sets(group, option, rest)]
            if matching:
                more = f" and {len(matching) - MAX_LISTED_OPTIONS} more" if len(matching) > MAX_LISTED_OPTIONS else ""
                return f"unknown key '{key}': it belongs to {group}={', '.join(matching[:MAX_LISTED_OPTIONS])}{more}"
        return None

    def _sets(self, group: str, option: str, key: str, chosen: Collection[str] = ()) -> bool:
        """Whether a file, or one in its defaults list, sets a key of its group's section or of the data source.

        Args:
            chosen: groups within it whose option is already chosen by a file that includes this one.
        """
        content, outer = self.read(f"{group}/{option}"), group.partition("/")[0]
        section = content.get(outer, content)
        if key in section or (outer == "data" and key in section.get("source", ())):
            return True
        entries = list(self._defaults(group, f"{group}/{option}"))
        inside = [(inner, name) for inner, options in entries for name in as_list(options) if inner not in chosen]
        chosen = {*chosen, *(inner for inner, _ in entries if inner != group)}
        return any(
            self._sets(inner, name, key, chosen if inner == group else ())
            for inner, name in inside
            if f"{inner}/".startswith(f"{outer}/")
        )

    def unavailable_group(self, group: str, entries: Sequence[str]) -> str:
        """The message for a group, such as ``model/local``, that is not in the defaults list of the chosen option.

        Args:
            entries: the entries that are in it instead, such as ``model/local@model.block.attention.local``.
        """
        outer = group.partition("/")[0]
        if any(entries):
            options = " or ".join(f"{entry}=NAME" for entry in entries)
            return f"{group}: the chosen {outer} has it elsewhere: use {options}"
        matching = [option for option in self.groups.get(outer, ()) if self.chosen_options(group, outer, option)]
        return f"{group}: the chosen {outer} has none" + (f", but {', '.join(matching)} have" if matching else "")

    def chosen_options(self, target: str, group: str, option: str) -> list[str]:
        """The options of the ``target`` group that an option of another group chooses, recursively; the last win."""
        chosen: list[str] = []
        for inner_group, options in self._defaults(group, f"{group}/{option}"):
            chosen = as_list(options) if inner_group == target else chosen
            for inner_option in as_list(options):
                chosen = self.chosen_options(target, inner_group, inner_option) or chosen
        return chosen

    def replaced_defaults(self, chosen: Mapping[str, Any]) -> Iterator[str]:
        """Notes on the default callbacks, and on the encodings of a model or experiment, that chosen ones replace.

        Args:
            chosen: the options that the command line chooses, by group.
        """
        callbacks = as_list(chosen.get("callbacks") or [])
        defaults = [o for name in callbacks for o in (name, *self.chosen_options("callbacks", "callbacks", name))]
        if callbacks and "default" not in defaults:
            both = ",".join(["default", *callbacks])
            yield f"this replaces the default callbacks, which save checkpoints; for both: 'callbacks=[{both}]'"
        encodings = [name for name in as_list(chosen.get("encoding")) if name != "none"]
        for group in ("experiment", "model") if encodings else ():
            for option in as_list(chosen.get(group)):
                defaults = [name for name in self.chosen_options("encoding", group, option) if name != "none"]
                if not {*defaults} <= {*encodings}:
                    both = ",".join(dict.fromkeys([*defaults, *encodings]))
                    missing = ", ".join(name for name in defaults if name not in encodings)
                    yield f"this replaces {missing} of {group}={option}; for both: 'encoding=[{both}]'"
                    return

    def _defaults(self, group: str, path: str) -> Iterator[tuple[str, Any]]:
        """The (group, options) in the defaults list of a file."""
        for entry in self.read(path).get("defaults", ()):
            if isinstance(entry, str):  # 'name' is a file of the same group, 'inner/name' one of a group inside it
                key, _, options = entry.split("@")[0].rpartition("/")
            else:
                [(key, options)] = entry.items()
                key = key.split()[-1].split("@")[0]  # of 'override /group@package'
            target_group = key[1:] if key.startswith("/") else f"{group}/{key}".rstrip("/")
            if options not in ("_self_", None) and "${" not in str(options) and target_group.split("/")[0] != "hydra":
                yield target_group, options

    def merge_order(self, lines: list[str], primary: str) -> list[tuple[str, str, dict[str, Any]]]:
        """The files chosen by overrides in the order in which they are merged: path, section and content of each."""
        if cached := self.merged.get((primary, *lines)):
            return cached
        order = self.merged[primary, *lines] = []
        files = GlobalHydra.instance().config_loader().compute_defaults_list(primary, lines, RunMode.RUN).defaults
        for file in files:
            path = str(file.config_path)
            if self._file(path) is None:
                continue  # Hydra's own
            node = self.read(path)
            for part in reversed(file.package.split(".") if file.package else []):
                node = {part: node}
            order.append((path, file.package or "", node))
        return order

    def last_file(self, key: str, chosen: list[str], primary: str) -> str | None:
        """The last file to set a dotted key when these options are chosen; None if no file does."""
        for path, _, content in reversed(self.merge_order(chosen, primary)):
            if value_at(content, key):
                return path
        return None

    def outdated(self, lines: list[str], primary: str) -> set[str]:
        """The dotted keys set only before a later file gave their section another ``_target_``."""
        targets: dict[str, Any] = {}
        keys_of: dict[str, set[str]] = {}
        stale: set[str] = set()

        def add(node: Mapping[str, Any], path: str) -> None:
            keys = keys_of.setdefault(path, set())
            if "_target_" in node and targets.setdefault(path, node["_target_"]) != node["_target_"]:
                targets[path] = node["_target_"]
                stale.update(keys)
            for key, value in node.items():
                dotted = f"{path}.{key}" if path else str(key)
                keys.add(dotted)
                stale.discard(dotted)
                if isinstance(value, Mapping):
                    add(value, dotted)

        for *_, content in self.merge_order(lines, primary):
            add(content, "")
        return stale


def yaml_line(name: str, error: MarkedYAMLError) -> str:
    """The message for a YAML syntax error: file, line and problem."""
    line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
    return f"{name}{line}: {error.problem}"
