"""Folders of configuration files: this package's, and those of one's own."""

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

MOST = 10  # options that a message lists
CONFIGS = Path(__file__).resolve().parents[2] / "configs"


def groups(configs: Path) -> dict[str, list[str]]:
    """Every configuration group below a folder with its options; Hydra's own groups are left to Hydra, W&B's to W&B."""
    options_of = {}
    for folder in sorted(path for path in configs.rglob("*") if path.is_dir()):
        name = folder.relative_to(configs).as_posix()
        options = sorted(path.stem for path in folder.glob("*.yaml"))
        if options and name.split("/")[0] != "hydra" and name != "sweep/wandb":
            options_of[name] = options
    return options_of


def searched(place: str) -> Path:
    """The folder that an entry of ``hydra.searchpath`` names, ``file://FOLDER``, ``pkg://PACKAGE`` or a plain one.

    Raises:
        UserError: there is none.
    """
    folder = Path(place.removeprefix("file://"))
    if place.startswith("pkg://"):
        name = place.removeprefix("pkg://")
        try:
            spec = importlib.util.find_spec(name.replace("/", "."))
        except ImportError:
            spec = None
        folder = Path(next(iter(spec.submodule_search_locations or ()), "")) if spec else folder
    if not folder.is_dir():
        raise UserError(f"there is no folder of configurations at {place}")
    return folder


def listed(options: Any) -> list[str]:
    """What is chosen of a group, where that may be one option, a list of them or none."""
    several = options if isinstance(options, list) else [] if options is None else [options]
    return ["null" if option is None else str(option) for option in several]


def value_at(content: Any, key: str) -> list[Any]:
    """The value of a dotted key in what a file says; nothing where it is not there."""
    for part in key.split("."):
        content = {str(place): item for place, item in enumerate(content)} if isinstance(content, list) else content
        if not isinstance(content, Mapping) or part not in content:
            return []
        content = content[part]
    return [content]


class Files:
    """The files of folders of configurations: which options there are, what they ask for, which of them sets a key.

    Of files of the same name in several folders that of the first one counts, as it does for Hydra.
    """

    def __init__(self, *folders: Path) -> None:
        self.folders = folders
        self.contents: dict[str, dict[str, Any]] = {}  # of the files that were read
        self.merged: dict[tuple[str, ...], list[tuple[str, str, dict[str, Any]]]] = {}  # what `counting` worked out
        self.groups: dict[str, list[str]] = {}
        for folder in folders:
            for group, options in groups(folder).items():
                self.groups[group] = sorted({*self.groups.get(group, ()), *options})

    @classmethod
    def of(cls, hydra: Any) -> "Files":
        """Those that Hydra composes a configuration of, by its own section of that."""
        sources = [source for source in hydra.runtime.config_sources if source.provider not in ("hydra", "schema")]
        return cls(*(searched(f"{source.schema}://{source.path}") for source in sources))

    def _file(self, path: str) -> Path | None:
        return next((file for folder in self.folders if (file := folder / f"{path}.yaml").is_file()), None)

    def name(self, path: str) -> str:
        """A file as messages call it, such as ``configs/model/gps.yaml``."""
        file = self._file(path)
        folder = self.folders[0] if file is None else Path(str(file).removesuffix(f"{path}.yaml"))
        return f"{folder.name}/{path}.yaml"

    def misplaced(self, path: str) -> str:
        """The line of a file that says where its keys go, if others stand before it, for then Hydra passes it over."""
        file = self._file(path)
        package = file and re.search(r"^#\s*@package.*$", file.read_text().lstrip(), re.MULTILINE)
        return package[0] if package and package.start() else ""

    def read(self, path: str) -> dict[str, Any]:
        """What a file says, interpolations as they stand."""
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

    def check_options(self, group: str, options: Any, where: str = "") -> None:
        """Whether a group has the options, and the groups those that the options' own files ask for, all the way down.

        Raises:
            UserError: naming the file that asks (where it is not the command line) and the nearest right name.
        """
        if group not in self.groups:
            raise UserError(f"{where}no group '{group}': {nearest(group, self.groups)}")
        for option in listed("null" if options is None else options):
            known = self.groups[group]
            if option not in known:
                raise UserError(f"{where}no option '{option}' in group '{group}': {nearest(option, known)}")
            for needed, others in self._defaults(group, f"{group}/{option}"):
                self.check_options(needed, others, f"{self.name(f'{group}/{option}')}: ")

    def elsewhere(self, key: str) -> str | None:
        """What is wrong about a key that the chosen option of its group has not: other options have it; else None."""
        parts = key.split(".")
        for end in range(len(parts) - 1, 0, -1):  # data.sampler.roots is of the group data/sampler, or of data
            group, rest = "/".join(parts[:end]), ".".join(parts[end:])
            having = [option for option in self.groups.get(group, ()) if self._sets(group, option, rest)]
            if having:
                more = f" and {len(having) - MOST} more" if len(having) > MOST else ""
                return f"unknown key '{key}': it belongs to {group}={', '.join(having[:MOST])}{more}"
        return None

    def _sets(self, group: str, option: str, key: str, chosen: Collection[str] = ()) -> bool:
        """Whether a file, or one that it asks for, sets a key of its group's section, or of the data's source.

        Args:
            chosen: groups within it for which a file that asks for this one has chosen an option already.
        """
        content, outer = self.read(f"{group}/{option}"), group.partition("/")[0]
        section = content.get(outer, content)
        if key in section or (outer == "data" and key in section.get("source", ())):
            return True
        asked = list(self._defaults(group, f"{group}/{option}"))
        inside = [(inner, each) for inner, options in asked for each in listed(options) if inner not in chosen]
        chosen = {*chosen, *(inner for inner, _ in asked if inner != group)}
        return any(
            self._sets(inner, each, key, chosen if inner == group else ())
            for inner, each in inside
            if f"{inner}/".startswith(f"{outer}/")
        )

    def without(self, group: str, places: Sequence[str]) -> str:
        """What is wrong about an option of a group, such as ``model/local``, that what is chosen does not ask for.

        Args:
            places: what it asks for instead, such as ``model/local@model.block.attention.local``.
        """
        outer = group.partition("/")[0]
        if any(places):
            options = " or ".join(f"{place}=NAME" for place in places)
            return f"{group}: the chosen {outer} has it elsewhere: say {options}"
        having = [option for option in self.groups.get(outer, ()) if self.asked(group, outer, option)]
        return f"{group}: the chosen {outer} has none" + (f", but {', '.join(having)} have" if having else "")

    def asked(self, wanted: str, group: str, option: str) -> list[str]:
        """The options of one group that an option of another asks for, all the way down; the last of them count."""
        chosen: list[str] = []
        for needed, options in self._defaults(group, f"{group}/{option}"):
            chosen = listed(options) if needed == wanted else chosen
            for each in listed(options):
                chosen = self.asked(wanted, needed, each) or chosen
        return chosen

    def left_out(self, chosen: Mapping[str, Any]) -> Iterator[str]:
        """A line on the encodings of a model or experiment, and one on the callbacks, whose place chosen ones take.

        Args:
            chosen: the options of each group that the command line chooses.
        """
        callbacks = listed(chosen.get("callbacks") or [])
        brought = [name for each in callbacks for name in (each, *self.asked("callbacks", "callbacks", each))]
        if callbacks and "default" not in brought:
            both = ",".join(["default", *callbacks])
            yield f"without the default callbacks, which keep checkpoints; with both: 'callbacks=[{both}]'"
        encodings = [name for name in listed(chosen.get("encoding")) if name != "none"]
        for group in ("experiment", "model") if encodings else ():
            for option in listed(chosen.get(group)):
                brought = [name for name in self.asked("encoding", group, option) if name != "none"]
                if not {*brought} <= {*encodings}:
                    both = ",".join(dict.fromkeys([*brought, *encodings]))
                    lost = ", ".join(name for name in brought if name not in encodings)
                    yield f"without {lost}, which {group}={option} brings; with both: 'encoding=[{both}]'"
                    return

    def _defaults(self, group: str, path: str) -> Iterator[tuple[str, Any]]:
        """The (group, options) that the defaults list of a file asks for."""
        for entry in self.read(path).get("defaults", ()):
            if isinstance(entry, str):  # 'name' is a file of the same group, 'inner/name' one of a group inside it
                key, _, options = entry.split("@")[0].rpartition("/")
            else:
                [(key, options)] = entry.items()
                key = key.split()[-1].split("@")[0]  # of 'override /group@package'
            needed = key[1:] if key.startswith("/") else f"{group}/{key}".rstrip("/")
            if options not in ("_self_", None) and "${" not in str(options) and needed.split("/")[0] != "hydra":
                yield needed, options

    def counting(self, lines: list[str], primary: str) -> list[tuple[str, str, dict[str, Any]]]:
        """The files that overrides choose, in the order in which they are merged: path, section, all that each sets."""
        if known := self.merged.get((primary, *lines)):
            return known
        counted = self.merged[primary, *lines] = []
        files = GlobalHydra.instance().config_loader().compute_defaults_list(primary, lines, RunMode.RUN).defaults
        for file in files:
            path = str(file.config_path)
            if self._file(path) is None:
                continue  # Hydra's own
            node = self.read(path)
            for part in reversed(file.package.split(".") if file.package else []):
                node = {part: node}
            counted.append((path, file.package or "", node))
        return counted

    def setting(self, key: str, chosen: list[str], primary: str) -> str | None:
        """The file that has the last word on a dotted key when these group options are chosen; None where none has."""
        for path, _, content in reversed(self.counting(chosen, primary)):
            if value_at(content, key):
                return path
        return None

    def outdated(self, lines: list[str], primary: str) -> set[str]:
        """The dotted keys that files set before a later one gave their section another ``_target_``, and not since."""
        targets: dict[str, Any] = {}
        set_of: dict[str, set[str]] = {}
        old: set[str] = set()

        def add(node: Mapping[str, Any], path: str) -> None:
            keys = set_of.setdefault(path, set())
            if "_target_" in node and targets.setdefault(path, node["_target_"]) != node["_target_"]:
                targets[path] = node["_target_"]
                old.update(keys)
            for key, value in node.items():
                dotted = f"{path}.{key}" if path else str(key)
                keys.add(dotted)
                old.discard(dotted)
                if isinstance(value, Mapping):
                    add(value, dotted)

        for *_, content in self.counting(lines, primary):
            add(content, "")
        return old


def yaml_line(name: str, error: MarkedYAMLError) -> str:
    """What is wrong in a YAML file, and where."""
    line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
    return f"{name}{line}: {error.problem}"
