"""docs/reference: the layout lists every file, the programs every option, the data keys their true defaults."""

import ast
import importlib
import inspect
import json
import re
from contextlib import suppress
from pathlib import Path

import pytest
import yaml

from gt.__main__ import programs

ROOT = Path(__file__).parents[2]
LAYOUT, PROGRAMS, DATA = ((ROOT / f"docs/reference/{name}.md").read_text() for name in ("layout", "programs", "data"))
HEAD, *PARTS = re.split(r"^## (\S+)\n", PROGRAMS, flags=re.MULTILINE)
SECTIONS = {
    name.removeprefix("gt.").removesuffix(".py"): text for name, text in zip(PARTS[::2], PARTS[1::2], strict=True)
}


def layout_files() -> dict[str, list[str]]:
    """The files of each folder in the blocks of the layout: a line starting with the folder, then indented lines."""
    files: dict[str, list[str]] = {}
    folder = ""
    for line in "\n".join(re.findall(r"^```text\n(.*?)^```", LAYOUT, re.MULTILINE | re.DOTALL)).splitlines():
        if not line.startswith(" "):
            folder = line.partition(" ")[0].removesuffix("/")
        else:
            files.setdefault(folder, []).extend(re.findall(r"(?<![\w/])\w+\.py\b", line))
    return files


def options(path: Path) -> set[str]:
    """The options of a program's parser, read from its source."""
    calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    added = (call for call in calls if isinstance(call.func, ast.Attribute) and call.func.attr == "add_argument")
    names = (word.value for call in added for word in call.args if isinstance(word, ast.Constant))
    shared = {call.func.id for call in calls if isinstance(call.func, ast.Name)} & {"add_trust", "add_device"}
    return {name for name in names if name.startswith("--")} | {name.replace("add_", "--") for name in shared}


def mentioned_options(text: str) -> set[str]:
    return set(re.findall(r"(?<![\w-])--[a-z][\w-]*", text))


def test_layout_lists_every_file_once():
    existing = {}
    for path in (ROOT / "gt").rglob("*.py"):
        if path.name != "__init__.py":
            existing.setdefault(path.parent.relative_to(ROOT).as_posix(), []).append(path.name)
    assert {folder: sorted(names) for folder, names in layout_files().items()} == {
        folder: sorted(names) for folder, names in existing.items()
    }


def resolves(name: str) -> bool:
    """Whether a dotted name is a module or something in one, including attributes that only instances have."""
    parts = name.split(".")
    for count in range(len(parts), 0, -1):
        with suppress(ModuleNotFoundError):
            target = importlib.import_module(".".join(parts[:count]))
            for attribute in parts[count:]:
                if not hasattr(target, attribute):
                    return attribute in inspect.getsource(target)
                target = getattr(target, attribute)
            return True
    return False


def test_docstring_references_resolve():
    sources = {path.relative_to(ROOT).as_posix(): path.read_text() for path in (ROOT / "gt").rglob("*.py")}
    names = {(file, name) for file, text in sources.items() for name in re.findall(r"(?<!`)`(gt\.[\w.]+)`(?!`)", text)}
    assert len(names) > 100
    assert sorted((file, name) for file, name in names if not resolves(name)) == []


@pytest.mark.parametrize("name", programs())
def test_program_options_are_documented(name):
    own = options(programs()[name])
    assert own or name in ("train", "models", "doctor")  # their arguments: Hydra's; names; none
    assert own - mentioned_options(HEAD) - mentioned_options(SECTIONS[name]) == set()
    assert mentioned_options(SECTIONS[name]) - own == set()


def test_exactly_the_programs_are_documented():
    assert SECTIONS.keys() == programs().keys()


def as_argument(value: object) -> str:
    """A value as written on a command line."""
    return "".join(value.split()) if isinstance(value, str) else json.dumps(value, separators=(",", ":"))


def defaults() -> set[str]:
    """``data.key=value`` for all keys in configs/data, whichever object takes them."""
    found = set()
    for path in (ROOT / "configs/data").rglob("*.yaml"):
        content = yaml.safe_load(path.read_text())
        content = content.get("data", content)
        prefix = "data.sampler" if path.parent.name == "sampler" else "data"
        for section in (content, content.get("source", {})):
            found |= {f"{prefix}.{key}={as_argument(value)}" for key, value in section.items()}
    return found


def test_documented_data_defaults_are_true():
    rows = DATA.partition("## Keys")[2].partition("\n## ")[0].splitlines()
    documented = {word for row in rows for word in re.findall(r"`(data\.[\w.]+=[^`]+)`", row.split(" | ")[0])}
    assert len(documented) > 30
    assert documented - defaults() == set()
