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

MAX_TOKENS = 512  # of a function
# files are few and differ, so of 50 salts this is the one whose splits have the most similar shares of the classes
# that functions return
SALT = "18"
# folders that are not the library, and test suites, whose functions return little and which some systems lack
EXCLUDED = {"site-packages", "dist-packages", "__pycache__", "test", "tests", "idle_test", "turtledemo"}

Show = Callable[[Iterable[Any], str], Iterable[Any]]  # from items and a description to the same items
Samples = Callable[[ast.Module], list[Sample]]  # of a module


def library() -> Path:
    """The folder of the running interpreter's standard library."""
    return Path(sysconfig.get_path("stdlib"))


def sources(root: Path) -> list[Path]:
    """The Python files below a folder, relative to it, in a fixed order, except folders in `EXCLUDED`.

    Raises:
        UserError: there are none, for example because the library is zipped.
    """
    paths = []
    for folder, subfolders, files in os.walk(root):
        subfolders[:] = set(subfolders) - EXCLUDED
        found = [Path(folder) / name for name in files if name.endswith(".py")]
        paths += [path.relative_to(root) for path in found if path.is_file()]  # editors leave broken links
    if not paths:
        library_advice = "this interpreter comes without them; use another one"
        advice = library_advice if root == library() else "data.path takes a folder of them"
        raise UserError(f"no Python files in {root}: {advice}")
    return sorted(paths)


def split_of(path: Path) -> str:
    """The split of all functions of a file by a hash of its name: 80 % train, 10 % valid, 10 % test."""
    share = int.from_bytes(hashlib.sha256((SALT + path.as_posix()).encode()).digest()[:4]) / 2**32
    return "train" if share < 0.8 else "valid" if share < 0.9 else "test"


def parse(path: Path) -> ast.Module | None:
    """The syntax tree of a file; None if it cannot be read or parsed, or is nested too deeply for Python's parser."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # old files hold invalid escapes
            return ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def read(path: Path, samples: Samples) -> list[Sample] | None:
    """The samples of one file with at most `MAX_TOKENS` tokens; None if it does not parse."""
    module = parse(path)
    return None if module is None else [sample for sample in samples(module) if len(sample.tokens) <= MAX_TOKENS]


def collect(root: Path, samples: Samples, show: Show) -> tuple[dict[str, list[tuple[Path, Sample]]], dict[str, int]]:
    """All functions by split, each with its file, and counts for the notes; only the first of duplicates is kept."""
    paths = sources(root)
    by_split: dict[str, list[tuple[Path, Sample]]] = {"train": [], "valid": [], "test": []}
    seen: set[bytes] = set()
    counts = {"files": len(paths), "files that do not parse": 0, "functions": 0, "duplicates": 0}
    with ProcessPoolExecutor(initializer=gc.freeze) as pool:  # else each garbage collection visits everything imported
        results = pool.map(partial(read, samples=samples), [root / path for path in paths], chunksize=16)
        for path, functions in zip(show(paths, "reading Python files"), results, strict=True):
            counts["files that do not parse"] += functions is None
            for sample in functions or ():
                counts["functions"] += 1
                if sample.digest in seen:
                    counts["duplicates"] += 1
                    continue
                seen.add(sample.digest)
                by_split[split_of(path)].append((path, sample))
    return by_split, counts
