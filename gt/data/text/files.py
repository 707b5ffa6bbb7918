"""Which files a path stands for, which split each belongs to, and their text piece by piece."""

import glob
import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path

from gt.data.reading import ending, lines
from gt.data.splits import SPLITS, split_of
from gt.errors import UserError
from gt.schema import several

PIECE = 1 << 18  # characters of a piece, about
LONGEST = 40  # characters of a word for a path
FEW = 3  # files that a line names
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


def word_for(path: str) -> str:
    """What a store of a path is called after: its last part up to a dot, or to what a glob leaves open."""
    name = Path(WILD.split(path)[0]).absolute().name
    return re.sub(r"\W+", "-", name.partition(".")[0])[:LONGEST].strip("-")  # a file system takes 255 bytes


def by_split(root: Path, paths: Iterable[Path]) -> tuple[dict[str, list[Path]], list[Path]]:
    """The files that name a split (``wiki.train.txt``, ``dev/a.txt``), by it, and those that name none.

    A file that names two splits is in neither.
    """
    files: dict[str, list[Path]] = {}
    unnamed = []
    for path in paths:
        inside = path.relative_to(root) if path.is_relative_to(root) else path
        words = re.split(r"[^a-z]+", inside.as_posix().lower())
        named = {split for word in words if (split := split_of(word))}
        if len(named) == 1:
            files.setdefault(named.pop(), []).append(path)
        elif not named:
            unnamed.append(path)
    return files, unnamed


def text_files(path: str) -> dict[str, list[Path]]:
    """The text files of a path by split, ``train`` among them: what names no split is for training.

    Beside files that say that they are for training only those of the same endings count. Where none says so, only
    those that end in ``.txt`` (or ``.txt.gz``) do, where there are any.
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
    # where all of them are for validation or test, their names do not say what they are for
    return {"train": unnamed} | named if unnamed else {"train": plain}


def files_told(path: str, files: Mapping[str, Sequence[Path]]) -> str:
    """A line that names the files of each split, and those of the path that are in none; nothing for a path of one."""
    root, paths = find(path)
    if len(paths) == 1:
        return ""
    taken = {each for some in files.values() for each in some}
    parts = dict(files) | {"left out": [each for each in paths if each not in taken]}
    told = []
    for part in (*SPLITS, "left out"):
        names = [str(each.relative_to(root) if each.is_relative_to(root) else each) for each in parts.get(part, ())]
        if names:
            told.append(f"{part} {several(names, FEW)}")
    return f"{path}: {'; '.join(told)}"


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
