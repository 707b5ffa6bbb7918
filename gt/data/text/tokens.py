"""Tokens on disk: one flat array a split, memory-mapped when read, and the tokenizer that made them.

A store is a folder that is written beside its final place and moved there whole, as those of graphs are.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gt.data.arrays import read_array, write_array
from gt.data.files import lock, mention_others
from gt.data.text.files import between, in_groups
from gt.data.text.tokenizer import Tokenizer, loads
from gt.errors import UserError

VERSION = 2  # raise when the same text would give other files
GROUP = 16  # pieces that are worked on at once

Texts = Mapping[str, Callable[[], Iterator[str]]]  # for each split its text, piece by piece, as often as asked


@dataclass(frozen=True)
class Tokens:
    """The tokens of each split.

    Attributes:
        splits: (T,) unsigned integers of the smallest type that holds them.
        tokenizer: made them.
        lossless: tokens say the very text, of every split, and their bytes add up to its.
    """

    splits: dict[str, np.ndarray]
    tokenizer: Tokenizer
    lossless: bool


def held_out(texts: Texts, share: float, where: str, mend: str) -> Texts:
    """The same texts; without one for validation the last ``share`` of the training text is taken for it.

    Args:
        where: what messages call the text.
        mend: what to do where there is none.

    Raises:
        UserError: there is no text, or none in a split.
    """
    sizes = {}
    for split, text in texts.items():
        sizes[split], blank = 0, True
        for piece in text():
            sizes[split] += len(piece)
            blank = blank and not piece.strip()
        if blank:
            which = f"the {split} text of {where}" if len(texts) > 1 else where
            raise UserError(f"{which} is empty: {mend}")
    if "valid" in texts:
        return texts
    train, cut = texts["train"], int(sizes["train"] * (1 - share))
    return dict(texts) | {"train": lambda: between(train(), 0, cut), "valid": lambda: between(train(), cut, None)}


def _write(texts: Texts, tokenizer: Tokenizer, folder: Path) -> None:
    kind, lengths, lossless = np.min_scalar_type(max(tokenizer.size - 1, 0)), tokenizer.lengths(), True
    for split, text in texts.items():
        parts, read, told = [np.empty(0, kind)], 0, 0
        for group in in_groups(text(), GROUP):
            read += sum(len(piece.encode()) for piece in group)
            encoded = [tokens.astype(kind) for tokens in tokenizer.encode(group)]
            told += sum(int(lengths[tokens].sum()) for tokens in encoded)
            parts += encoded
            lossless = lossless and all(
                tokenizer.decode(tokens.tolist()) == piece for tokens, piece in zip(encoded, group, strict=True)
            )
        lossless = lossless and read == told
        write_array(folder / f"{split}.npy", np.concatenate(parts))
    (folder / "tokenizer.json").write_text(tokenizer.dumps(), encoding="utf-8")
    (folder / "facts.json").write_text(json.dumps({"lossless": lossless}))


def is_complete(folder: Path) -> bool:
    """Whether there are tokens in a folder: it is moved there once they are."""
    return (folder / "facts.json").is_file()


def open_or_build(folder: Path, build: Callable[[], tuple[Texts, Tokenizer]]) -> Tokens:
    """The tokens in ``folder``, made first where it is absent; safe when several processes ask at once."""
    if not folder.exists():
        with lock(folder.with_name(folder.name + ".lock")):
            if not folder.exists():  # another process may have made it while this one waited
                part = Path(tempfile.mkdtemp(dir=folder.parent, prefix=folder.name + ".part-"))
                try:
                    _write(*build(), part)
                    os.replace(part, folder)
                    mention_others(folder)
                except BaseException:
                    shutil.rmtree(part, ignore_errors=True)
                    raise
    return Tokens(
        splits={path.stem: read_array(path) for path in sorted(folder.glob("*.npy"))},
        tokenizer=loads((folder / "tokenizer.json").read_text(encoding="utf-8")),
        lossless=json.loads((folder / "facts.json").read_text())["lossless"],
    )
