"""Which files a path stands for, which split each belongs to, and their text piece by piece."""

import glob
import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path

from gt.data.reading import lines
from gt.data.splits import split_of
from gt.errors import UserError

PIECE = 1 << 18  # characters of a piece, about
WILD = re.compile(r"[*?\[]")


def find(path: str) -> tuple[Path, list[Path]]:
    """The files of a file, a folder (all the way down, hidden ones left out) or a glob, sorted; and where they lie.

    Raises:
        UserError: there are none.
    """
    place = Path(path)
    if place.is_dir():
        inside = sorted(p for p in place.rglob("*") if p.is_file())
        paths = [p for p in inside if not any(part.startswith(".") for part in p.relative_to(place).parts)]
        if not paths:
            raise UserError(f"the folder {path} holds no files: set data.path to a file or a folder with text")
        return place, paths
    if WILD.search(path) and not place.exists():
        paths = sorted(Path(name) for name in glob.glob(path, recursive=True) if Path(name).is_file())
        if not paths:
            raise UserError(f"no file fits {path}: set data.path to a file, a folder or a glob that some fit")
        return Path(WILD.split(path)[0]).parent, paths
    try:
        place.stat()
    except FileNotFoundError:
        raise UserError(f"no text file at {path}: set data.path to an existing file") from None
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    return place.parent, [place]


def by_split(root: Path, paths: Iterable[Path]) -> dict[str, list[Path]]:
    """The files that name a split (``wiki.train.txt``, ``dev/a.txt``), by it; none unless some are for training.

    A file that names two splits, or none, belongs to none.
    """
    files: dict[str, list[Path]] = {}
    for path in paths:
        inside = path.relative_to(root) if path.is_relative_to(root) else path
        words = re.split(r"[^a-z]+", inside.as_posix().lower())
        named = {split for word in words if (split := split_of(word))}
        if len(named) == 1:
            files.setdefault(named.pop(), []).append(path)
    return files if "train" in files else {}


def text_files(path: str) -> dict[str, list[Path]]:
    """The text files of a path by split, all under ``train`` unless their names say where each belongs.

    Of a folder whose files name no splits only those that end in ``.txt`` (or ``.txt.gz``) count, where there are any.
    """
    root, paths = find(path)
    named = by_split(root, paths) if len(paths) > 1 else {}
    if len(named) > 1:
        return named
    plain = [p for p in paths if p.name.lower().endswith((".txt", ".txt.gz"))]
    return {"train": plain if plain and len(paths) > 1 else paths}


def joined(text: Iterable[str]) -> Iterator[str]:
    """The same text in pieces of about `PIECE` characters, each a number of whole lines."""
    held: list[str] = []
    size = 0
    for line in text:
        held.append(line)
        size += len(line)
        if size >= PIECE:
            yield "".join(held)
            held, size = [], 0
    if held:
        yield "".join(held)


def pieces(paths: Sequence[Path]) -> Iterator[str]:
    """The text of some files one after the other, in pieces of whole lines."""
    return joined(line for path in paths for line in lines(path))


def between(text: Iterable[str], start: int, stop: int | None) -> Iterator[str]:
    """The characters ``start`` to ``stop`` of a text in pieces, in pieces."""
    place = 0
    for piece in text:
        if stop is not None and place >= stop:
            return
        part = piece[max(0, start - place) : None if stop is None else stop - place]
        place += len(piece)
        if part:
            yield part


def in_groups(text: Iterable[str], count: int) -> Iterator[list[str]]:
    """Lists of ``count`` pieces; the last may be shorter."""
    source = iter(text)
    while group := list(islice(source, count)):
        yield group


def digest(splits: Mapping[str, Sequence[Path]]) -> str:
    """A hash of the content of files and of how they are shared out; names do not matter, their order does."""
    total = hashlib.sha256()
    for split, paths in sorted(splits.items()):
        for path in paths:
            try:
                with open(path, "rb") as handle:
                    total.update(f"{split} {hashlib.file_digest(handle, 'sha256').hexdigest()}\n".encode())
            except OSError as error:
                raise UserError(f"cannot read {path}: {error.strerror}") from None
    return total.hexdigest()
