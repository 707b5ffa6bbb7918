"""The Python files of a folder, such as the standard library's, and their functions by split."""

import ast
import gc
import hashlib
import os
import sysconfig
import warnings
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from gt.data.python.syntax import Sample
from gt.errors import UserError

LONGEST = 512  # tokens of a function at most
# files are few and differ: of 50 salts the one whose splits are nearest to each other in their shares of the classes
# that functions return
SALT = "18"
# what is not the library, and test suites: their functions return next to nothing, and some systems lack them
LEFT_OUT = {"site-packages", "dist-packages", "__pycache__", "test", "tests", "idle_test", "turtledemo"}

Show = Callable[[Iterable[Any], str], Iterable[Any]]  # items and a description; gives the same items
Samples = Callable[[ast.Module], list[Sample]]  # of a file


def library() -> Path:
    """The folder of the running interpreter's standard library."""
    return Path(sysconfig.get_path("stdlib"))


def sources(root: Path) -> list[Path]:
    """The Python files below a folder, relative to it, in a fixed order, but for folders of `LEFT_OUT`.

    Raises:
        UserError: there are none, as where the library is zipped.
    """
    paths = []
    for folder, inner, files in os.walk(root):
        inner[:] = set(inner) - LEFT_OUT
        named = [Path(folder) / name for name in files if name.endswith(".py")]
        paths += [path.relative_to(root) for path in named if path.is_file()]  # editors leave links that lead nowhere
    if not paths:
        of_library = "this interpreter comes without them; use another one"
        advice = of_library if root == library() else "data.path takes a folder of them"
        raise UserError(f"no Python files in {root}: {advice}")
    return sorted(paths)


def split_of(path: Path) -> str:
    """The split of all functions of a file: eight tenths train, one valid, one test, by a hash of its name."""
    share = int.from_bytes(hashlib.sha256((SALT + path.as_posix()).encode()).digest()[:4]) / 2**32
    return "train" if share < 0.8 else "valid" if share < 0.9 else "test"


def parsed(path: Path) -> ast.Module | None:
    """A file; None where it cannot be read, does not parse or is nested too deeply for Python's own parser."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # old files hold invalid escapes
            return ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def read(path: Path, samples: Samples) -> list[Sample] | None:
    """The samples of one file that are not too long; None where it does not parse."""
    module = parsed(path)
    return None if module is None else [sample for sample in samples(module) if len(sample.tokens) <= LONGEST]


def collect(root: Path, samples: Samples, show: Show) -> tuple[dict[str, list[tuple[Path, Sample]]], dict[str, int]]:
    """Every distinct function by split, with its file, and counts of what was met; of equal ones the first stays."""
    paths = sources(root)
    by_split: dict[str, list[tuple[Path, Sample]]] = {"train": [], "valid": [], "test": []}
    seen: set[bytes] = set()
    facts = {"files": len(paths), "files that do not parse": 0, "functions": 0, "duplicates": 0}
    with ProcessPoolExecutor(initializer=gc.freeze) as pool:  # else each collection goes through all that was imported
        results = pool.map(partial(read, samples=samples), [root / path for path in paths], chunksize=16)
        for path, own in zip(show(paths, "reading Python files"), results, strict=True):
            facts["files that do not parse"] += own is None
            for sample in own or ():
                facts["functions"] += 1
                if sample.digest in seen:
                    facts["duplicates"] += 1
                    continue
                seen.add(sample.digest)
                by_split[split_of(path)].append((path, sample))
    return by_split, facts
