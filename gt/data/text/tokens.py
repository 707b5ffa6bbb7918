"""Tokens on disk: a flat, memory-mapped array per split, and the tokenizer that produced them.

Like the stores of graphs, a store is a folder that is written under a temporary name and then renamed atomically.
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

VERSION = 2  # raise when the same text would give different files
GROUP = 16  # pieces processed at a time

Texts = Mapping[str, Callable[[], Iterator[str]]]  # by split, a function that iterates over the text in pieces


@dataclass(frozen=True)
class Tokens:
    """The tokens of each split.

    Attributes:
        splits: (T,) unsigned integers of the smallest sufficient type.
        tokenizer: the tokenizer that produced them.
        lossless: whether decoding restores the text of every split, and the token lengths add up to its bytes.
    """

    splits: dict[str, np.ndarray]
    tokenizer: Tokenizer
    lossless: bool


def held_out(texts: Texts, share: float, name: str, hint: str) -> Texts:
    """The texts, with the last ``share`` of the training text held out for validation if they have no such split.

    Args:
        name: the name of the text in messages.
        hint: what to do if there is no text.

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
            subject = f"the {split} text of {name}" if len(texts) > 1 else name
            raise UserError(f"{subject} is empty: {hint}")
    if "valid" in texts:
        return texts
    train, cut = texts["train"], int(sizes["train"] * (1 - share))
    return dict(texts) | {"train": lambda: between(train(), 0, cut), "valid": lambda: between(train(), cut, None)}


def _write(texts: Texts, tokenizer: Tokenizer, folder: Path) -> None:
    dtype, lengths, lossless = np.min_scalar_type(max(tokenizer.size - 1, 0)), tokenizer.lengths(), True
    for split, text in texts.items():
        parts, text_bytes, token_bytes = [np.empty(0, dtype)], 0, 0
        for group in in_groups(text(), GROUP):
            text_bytes += sum(len(piece.encode()) for piece in group)
            encoded = [tokens.astype(dtype) for tokens in tokenizer.encode(group)]
            token_bytes += sum(int(lengths[tokens].sum()) for tokens in encoded)
            parts += encoded
            lossless = lossless and all(
                tokenizer.decode(tokens.tolist()) == piece for tokens, piece in zip(encoded, group, strict=True)
            )
        lossless = lossless and text_bytes == token_bytes
        write_array(folder / f"{split}.npy", np.concatenate(parts))
    (folder / "tokenizer.json").write_text(tokenizer.dumps(), encoding="utf-8")
    (folder / "facts.json").write_text(json.dumps({"lossless": lossless}))


def is_complete(folder: Path) -> bool:
    """Whether a folder holds tokens; it gets its final name only once they are written."""
    return (folder / "facts.json").is_file()


def open_or_build(folder: Path, build: Callable[[], tuple[Texts, Tokenizer]]) -> Tokens:
    """The tokens in ``folder``, built first if it is absent; safe for concurrent processes."""
    if not folder.exists():
        with lock(folder.with_name(folder.name + ".lock")):
            if not folder.exists():  # another process may have built it meanwhile
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
