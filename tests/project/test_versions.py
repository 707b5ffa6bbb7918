"""tests/oldest.txt pins the minimum versions of pyproject.toml."""

import re
import tomllib
from itertools import chain
from pathlib import Path

ROOT = Path(__file__).parents[2]
EXCLUDED = {
    "torch",
    "mypy",
    "ruff",
    "mkdocs-material",
}  # PyTorch builds differ by machine; the tests do not need the others


def test_oldest_pins_match_pyproject():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    requirements = [*project["dependencies"], *chain.from_iterable(project["optional-dependencies"].values())]
    oldest = {
        m[1]: m[2] for line in requirements if (m := re.match(r"([\w-]+)>=([\d.]+)", line)) and m[1] not in EXCLUDED
    }
    lines = (ROOT / "tests" / "oldest.txt").read_text().splitlines()[1:]
    assert dict(line.split("==") for line in lines) == oldest
