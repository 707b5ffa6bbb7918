"""The oldest versions that are allowed are those that the tests can be run with."""

import re
import tomllib
from itertools import chain
from pathlib import Path

ROOT = Path(__file__).parents[2]
LEFT_OUT = {"torch", "mypy", "ruff", "mkdocs-material"}  # builds of PyTorch differ by machine; the others check alone


def test_the_oldest_versions_are_those_of_the_package():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    every = [*project["dependencies"], *chain.from_iterable(project["optional-dependencies"].values())]
    oldest = {m[1]: m[2] for line in every if (m := re.match(r"([\w-]+)>=([\d.]+)", line)) and m[1] not in LEFT_OUT}
    lines = (ROOT / "tests" / "oldest.txt").read_text().splitlines()[1:]
    assert dict(line.split("==") for line in lines) == oldest
