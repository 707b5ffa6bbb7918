"""Packed graphs on disk: flat arrays in ``.npy`` files and one JSON of facts, memory-mapped when read.

A store is a folder named by a hash of what it was built from. It is written beside its final place, chunk by chunk so
that memory is bounded, and moved there whole: a killed build leaves nothing that could be mistaken for data. A lock
lets several processes ask at once and one of them build. Checksums tell when it is not what was written, and it is
built again. Nothing is ever pickled.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import suppress
from glob import escape
from pathlib import Path
from typing import Any, cast

import numpy as np

from gt.data import files
from gt.data.arrays import mapped_array
from gt.data.files import Damaged, Seal, lock, say, writing
from gt.data.packed import GROUPS, Arrays, Graphs
from gt.data.store_writer import Writer
from gt.schema import Schema


def fingerprint(facts: Mapping[str, Any]) -> str:
    """Sixteen hexadecimal digits that change when any of the (JSON-able) facts does."""
    text = json.dumps(dict(facts), sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def save(graphs: Graphs | Iterable[Graphs], folder: Path) -> None:
    """Write a store beside ``folder`` and move it there in one step; for one process at a time, see `open_or_build`.

    Args:
        graphs: all graphs, or chunks of consecutive ones: then only one chunk is in memory at a time. Chunks hold the
            same arrays; splits, schema and notes are those of the last, but for the largest ``max_nodes`` of all.

    Raises:
        ValueError: an array does not fit in with the others.
        UserError: the disk is full, or may not be written to.
    """
    part = folder.with_name(folder.name + ".part")
    for left in folder.parent.glob(f"{escape(part.name)}*"):  # by processes that were killed
        files.discard(left)
    writer = Writer(part)
    chunks = iter((graphs,) if isinstance(graphs, Graphs) else graphs)
    try:
        with writing(folder.parent, lambda: 0):
            part.mkdir(parents=True)
        for chunk in chunks:
            with writing(folder.parent, lambda: writer.bytes):
                writer.append(chunk)
            del chunk  # while the next one is made there is room for it
        with writing(folder.parent, lambda: writer.bytes):
            writer.finish()
        if folder.exists() or folder.is_symlink():  # moved away first: at no moment is half of it in place
            old = folder.with_name(part.name + "-old")
            os.replace(folder, old)
            files.discard(old)
        os.replace(part, folder)
        files.sync(folder.parent)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        if isinstance(chunks, Generator):
            chunks.close()  # now, not when the error is forgotten: it may hold worker processes
        raise


def load(folder: Path) -> Graphs:
    """Open a store; arrays are memory-mapped, what is used of a large one is read only then.

    Raises:
        Damaged: it is not as it was written, or was written by another version.
    """
    try:
        facts = files.read_facts(folder / "facts.json")
        seals: dict[str, Seal] = facts["arrays"]
        fully = sum(sealed["bytes"] for sealed in seals.values()) <= files.VERIFIED
        for name, sealed in seals.items():
            files.check(folder / f"{name}.npy", sealed, fully)
        arrays = {name: mapped_array(folder / f"{name}.npy") for name in seals}
        schema = Schema.from_dict(facts["schema"])
    except Damaged as error:
        raise Damaged(f"the store at {folder} {error}") from None
    except FileNotFoundError as error:
        raise Damaged(f"the store at {folder} is damaged ({Path(error.filename).name} is missing)") from None
    except (KeyError, TypeError, ValueError) as error:
        raise Damaged(f"the store at {folder} is outdated ({error})") from None
    groups: dict[str, Arrays] = {group: {} for group in GROUPS}
    for name, values in arrays.items():
        group, _, own = name.partition(".")
        if own:
            groups[group][own] = values
    return Graphs(
        node_ptr=np.array(arrays["node_ptr"], dtype=np.int64),
        edge_ptr=np.array(arrays["edge_ptr"], dtype=np.int64),
        edge_index=arrays["edge_index"],
        schema=schema,
        notes=facts["notes"],
        **cast(dict[str, Any], groups),
    )


def is_complete(folder: Path) -> bool:
    """Whether there is a store in a folder, complete and as it was written."""
    try:
        load(folder)
    except Damaged:
        return False
    return True


def open_or_build(folder: Path, build: Callable[[], Graphs | Iterable[Graphs]]) -> Graphs:
    """The store in ``folder``, built first where it is absent, damaged or outdated.

    Safe when several processes ask at once: one builds and the others wait for it.

    Args:
        build: gives what `save` takes.

    Raises:
        UserError: the disk is full, or may not be written to.
    """
    with suppress(Damaged):
        return load(folder)
    with lock(folder.with_name(folder.name + ".lock")):
        try:
            return load(folder)  # another process may have built it while this one waited
        except Damaged as error:
            if folder.exists():
                say(f"{error}: building it again")
        save(build(), folder)
        files.mention_others(folder)
        return load(folder)
