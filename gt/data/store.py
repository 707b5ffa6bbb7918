"""Packed graphs on disk: flat arrays in ``.npy`` files and a JSON file of metadata, memory-mapped when read.

A store is a folder named by a hash of its inputs. It is written to a temporary folder, chunk by chunk to bound memory,
and moved to its final path when complete: a killed build leaves nothing that could be mistaken for data. A lock makes
one of several concurrent processes build it. Checksums detect damage, upon which it is built again. Nothing is pickled.
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
from gt.data.files import Damaged, Seal, lock, print_line, writing
from gt.data.packed import GROUPS, Arrays, Graphs
from gt.data.store_writer import Writer
from gt.schema import Schema


def fingerprint(values: Mapping[str, Any]) -> str:
    """A hash of JSON-serialisable values, as sixteen hexadecimal digits."""
    text = json.dumps(dict(values), sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def save(graphs: Graphs | Iterable[Graphs], folder: Path) -> None:
    """Write a store and move it to ``folder`` atomically; not safe for concurrent processes, see `open_or_build`.

    Args:
        graphs: all graphs, or chunks of consecutive ones, of which only one is in memory at a time. Chunks hold the
            same arrays; splits, schema and notes are those of the last chunk, ``max_nodes`` is the largest of all.

    Raises:
        ValueError: an array does not match the others.
        UserError: the disk is full or not writable.
    """
    part = folder.with_name(folder.name + ".part")
    for leftover in folder.parent.glob(f"{escape(part.name)}*"):  # of processes that were killed
        files.discard(leftover)
    writer = Writer(part)
    chunks = iter((graphs,) if isinstance(graphs, Graphs) else graphs)
    try:
        with writing(folder.parent, lambda: 0):
            part.mkdir(parents=True)
        for chunk in chunks:
            with writing(folder.parent, lambda: writer.bytes):
                writer.append(chunk)
            del chunk  # frees its memory for the next one
        with writing(folder.parent, lambda: writer.bytes):
            writer.finish()
        if folder.exists() or folder.is_symlink():  # moved away first, so that no partial store is ever visible
            old = folder.with_name(part.name + "-old")
            os.replace(folder, old)
            files.discard(old)
        os.replace(part, folder)
        files.sync(folder.parent)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        if isinstance(chunks, Generator):
            chunks.close()  # now, not when the error is garbage-collected: it may hold worker processes
        raise


def load(folder: Path) -> Graphs:
    """Open a store; its arrays are memory-mapped and read lazily.

    Raises:
        Damaged: the store has changed, or was written by another version.
    """
    try:
        metadata = files.read_metadata(folder / "facts.json")
        seals: dict[str, Seal] = metadata["arrays"]
        fully = sum(seal["bytes"] for seal in seals.values()) <= files.FULL_CHECK_LIMIT
        for name, seal in seals.items():
            files.check(folder / f"{name}.npy", seal, fully)
        arrays = {name: mapped_array(folder / f"{name}.npy") for name in seals}
        schema = Schema.from_dict(metadata["schema"])
    except Damaged as error:
        raise Damaged(f"the store at {folder} {error}") from None
    except FileNotFoundError as error:
        raise Damaged(f"the store at {folder} is damaged ({Path(error.filename).name} is missing)") from None
    except (KeyError, TypeError, ValueError) as error:
        raise Damaged(f"the store at {folder} is outdated ({error})") from None
    groups: dict[str, Arrays] = {group: {} for group in GROUPS}
    for name, values in arrays.items():
        group, _, array_name = name.partition(".")
        if array_name:
            groups[group][array_name] = values
    return Graphs(
        node_ptr=np.array(arrays["node_ptr"], dtype=np.int64),
        edge_ptr=np.array(arrays["edge_ptr"], dtype=np.int64),
        edge_index=arrays["edge_index"],
        schema=schema,
        notes=metadata["notes"],
        **cast(dict[str, Any], groups),
    )


def is_complete(folder: Path) -> bool:
    """Whether a folder holds a complete, undamaged store."""
    try:
        load(folder)
    except Damaged:
        return False
    return True


def open_or_build(folder: Path, build: Callable[[], Graphs | Iterable[Graphs]]) -> Graphs:
    """Open the store in ``folder``, building it first if it is missing, damaged or outdated.

    Safe for concurrent processes: one builds and the others wait.

    Args:
        build: returns the argument of `save`.

    Raises:
        UserError: the disk is full or not writable.
    """
    with suppress(Damaged):
        return load(folder)
    with lock(folder.with_name(folder.name + ".lock")):
        try:
            return load(folder)  # another process may have built it while this one waited
        except Damaged as error:
            if folder.exists():
                print_line(f"{error}: building it again")
        save(build(), folder)
        files.mention_others(folder)
        return load(folder)
