"""Resolves a path to text files, assigns them to splits, and reads their text in pieces."""

import glob
import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path

from gt.data.reading import ending, lines
from gt.data.splits import SPLITS, split_of
from gt.errors import UserError
from gt.schema import format_list

PIECE = 1 << 18  # approximate characters of a piece
MAX_NAME = 40  # characters of the path's part of a store's name
MAX_LISTED = 3  # files listed per split in a message
WILDCARD = re.compile(r"[*?\[]")


def find(path: str) -> tuple[Path, list[Path]]:
    """The folder and the sorted files of a path: a file, a folder (recursive, without hidden files) or a glob.

    Raises:
        UserError: there are none.
    """
    location = Path(path)
    if location.is_dir():
        inside = sorted(p for p in location.rglob("*") if p.is_file())
        paths = [p for p in inside if not any(part.startswith(".") for part in p.relative_to(location).parts)]
        if not paths:
            raise UserError(f"the folder {path} holds no files: set data.path to a file or a folder with text")
        return location, paths
    if WILDCARD.search(path) and not location.exists():
        paths = sorted(Path(name) for name in glob.glob(path, recursive=True) if Path(name).is_file())
        if not paths:
            raise UserError(f"no file matches {path}: set data.path to a file, a folder or a glob that matches some")
        return Path(WILDCARD.split(path)[0]).parent, paths
    try:
        location.stat()
    except FileNotFoundError:
        raise UserError(f"no text file at {path}: set data.path to an existing file") from None
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    return location.parent, [location]


def store_name(path: str) -> str:
    """The part of a store's name that tells its path: the last component up to a dot or a wildcard."""
    name = Path(WILDCARD.split(path)[0]).absolute().name
    return re.sub(r"\W+", "-", name.partition(".")[0])[:MAX_NAME].strip("-")  # file systems allow 255 bytes


def by_split(root: Path, paths: Iterable[Path]) -> tuple[dict[str, list[Path]], list[Path]]:
    """The files whose path names a split (``wiki.train.txt``, ``dev/a.txt``), by split, and those that name none.

    Files that name two splits are left out.
    """
    files: dict[str, list[Path]] = {}
    unnamed = []
    for path in paths:
        relative = path.relative_to(root) if path.is_relative_to(root) else path
        words = re.split(r"[^a-z]+", relative.as_posix().lower())
        splits = {split for word in words if (split := split_of(word))}
        if len(splits) == 1:
            files.setdefault(splits.pop(), []).append(path)
        elif not splits:
            unnamed.append(path)
    return files, unnamed


def text_files(path: str) -> dict[str, list[Path]]:
    """The text files of a path by split, including ``train``; files that name no split are for training.

    If some files name the training split, others are added only if they have the same extensions. If none does, only
    ``.txt`` (or ``.txt.gz``) files count, if there are any.
    """
    root, paths = find(path)
    if len(paths) == 1:
        return {"train": paths}
    named, unnamed = by_split(root, paths)
    if "train" in named:
        endings = {ending(p) for p in named["train"]}
        return named | {"train": sorted([*named["train"], *(p for p in unnamed if ending(p) in endings)])}
    plain = [p for p in paths if ending(p) == ".txt"] or paths
    named, unnamed = by_split(root, plain)
    # if all of them name validation or test, the names are not taken for splits
    return {"train": unnamed} | named if unnamed else {"train": plain}


def file_summary(path: str, files: Mapping[str, Sequence[Path]]) -> str:
    """A line that lists the files of each split, and those left out; empty for a single file."""
    root, paths = find(path)
    if len(paths) == 1:
        return ""
    used = {file for group in files.values() for file in group}
    parts = dict(files) | {"left out": [file for file in paths if file not in used]}
    items = []
    for part in (*SPLITS, "left out"):
        names = [str(file.relative_to(root) if file.is_relative_to(root) else file) for file in parts.get(part, ())]
        if names:
            items.append(f"{part} {format_list(names, MAX_LISTED)}")
    return f"{path}: {'; '.join(items)}"


def join_lines(text: Iterable[str]) -> Iterator[str]:
    """Join lines into pieces of about `PIECE` characters."""
    buffer: list[str] = []
    size = 0
    for line in text:
        buffer.append(line)
        size += len(line)
        if size >= PIECE:
            yield "".join(buffer)
            buffer, size = [], 0
    if buffer:
        yield "".join(buffer)


def pieces(paths: Sequence[Path]) -> Iterator[str]:
    """The concatenated text of files, in pieces of whole lines."""
    return join_lines(line for path in paths for line in lines(path))


def between(text: Iterable[str], start: int, stop: int | None) -> Iterator[str]:
    """The characters ``start`` to ``stop`` of a text given in pieces, as pieces."""
    position = 0
    for piece in text:
        if stop is not None and position >= stop:
            return
        part = piece[max(0, start - position) : None if stop is None else stop - position]
        position += len(piece)
        if part:
            yield part


def in_groups(text: Iterable[str], count: int) -> Iterator[list[str]]:
    """Lists of ``count`` pieces; the last may be shorter."""
    source = iter(text)
    while group := list(islice(source, count)):
        yield group


def digest(splits: Mapping[str, Sequence[Path]]) -> str:
    """A hash of the contents of files and of their splits; the order of files matters, their names do not."""
    total = hashlib.sha256()
    for split, paths in sorted(splits.items()):
        for path in paths:
            try:
                with open(path, "rb") as handle:
                    total.update(f"{split} {hashlib.file_digest(handle, 'sha256').hexdigest()}\n".encode())
            except OSError as error:
                raise UserError(f"cannot read {path}: {error.strerror}") from None
    return total.hexdigest()
