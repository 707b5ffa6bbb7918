"""docs/reference: the layout names every file, the page of programs every option, the page of data true defaults."""

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


def listed() -> dict[str, list[str]]:
    """The files of each folder in the blocks of the layout: a line that begins with a folder, then indented ones."""
    files: dict[str, list[str]] = {}
    folder = ""
    for line in "\n".join(re.findall(r"^```text\n(.*?)^```", LAYOUT, re.MULTILINE | re.DOTALL)).splitlines():
        if not line.startswith(" "):
            folder = line.partition(" ")[0].removesuffix("/")
        else:
            files.setdefault(folder, []).extend(re.findall(r"(?<![\w/])\w+\.py\b", line))
    return files


def options(path: Path) -> set[str]:
    """What a program's parser takes, read off its source."""
    calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    added = (call for call in calls if isinstance(call.func, ast.Attribute) and call.func.attr == "add_argument")
    names = (word.value for call in added for word in call.args if isinstance(word, ast.Constant))
    shared = {call.func.id for call in calls if isinstance(call.func, ast.Name)} & {"add_trust", "add_device"}
    return {name for name in names if name.startswith("--")} | {name.replace("add_", "--") for name in shared}


def said(text: str) -> set[str]:
    return set(re.findall(r"(?<![\w-])--[a-z][\w-]*", text))


def test_the_layout_names_every_file_once():
    there = {}
    for path in (ROOT / "gt").rglob("*.py"):
        if path.name != "__init__.py":
            there.setdefault(path.parent.relative_to(ROOT).as_posix(), []).append(path.name)
    assert {folder: sorted(names) for folder, names in listed().items()} == {
        folder: sorted(names) for folder, names in there.items()
    }


def resolves(name: str) -> bool:
    """Whether a dotted name is that of a module, or of something in one; attributes that instances have count, too."""
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


def test_what_docstrings_refer_to_exists():
    sources = {path.relative_to(ROOT).as_posix(): path.read_text() for path in (ROOT / "gt").rglob("*.py")}
    names = {(file, name) for file, text in sources.items() for name in re.findall(r"(?<!`)`(gt\.[\w.]+)`(?!`)", text)}
    assert len(names) > 100
    assert sorted((file, name) for file, name in names if not resolves(name)) == []


@pytest.mark.parametrize("name", programs())
def test_a_program_stands_there_with_its_options(name):
    own = options(programs()[name])
    assert own or name in ("train", "models", "doctor")  # whose words are those of Hydra; names; none
    assert own - said(HEAD) - said(SECTIONS[name]) == set()
    assert said(SECTIONS[name]) - own == set()


def test_no_other_programs_stand_there():
    assert SECTIONS.keys() == programs().keys()


def spelled(value: object) -> str:
    """A value as a command line has it."""
    return "".join(value.split()) if isinstance(value, str) else json.dumps(value, separators=(",", ":"))


def defaults() -> set[str]:
    """``data.key=value`` of all files of configs/data, whoever takes the key."""
    found = set()
    for path in (ROOT / "configs/data").rglob("*.yaml"):
        content = yaml.safe_load(path.read_text())
        content = content.get("data", content)
        prefix = "data.sampler" if path.parent.name == "sampler" else "data"
        for section in (content, content.get("source", {})):
            found |= {f"{prefix}.{key}={spelled(value)}" for key, value in section.items()}
    return found


def test_the_keys_of_data_have_the_defaults_that_are_named():
    rows = DATA.partition("## Keys")[2].partition("\n## ")[0].splitlines()
    named = {word for row in rows for word in re.findall(r"`(data\.[\w.]+=[^`]+)`", row.split(" | ")[0])}
    assert len(named) > 30
    assert named - defaults() == set()
