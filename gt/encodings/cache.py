"""Encodings computed once for a dataset and kept beside it."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from gt.data.files import Damaged, lock, read_array, say, write_array
from gt.data.store import Arrays, Graphs, fingerprint
from gt.encodings.base import Encoding, Progress
from gt.errors import UserError


def attach(graphs: Graphs, folder: Path, encodings: Sequence[Encoding], progress: Progress = iter) -> Graphs:
    """The same graphs with each encoding's arrays among ``nodes``, memory-mapped.

    An array is computed where its file is missing or damaged. Safe when several processes ask at once: one computes
    and the others wait for it.

    Args:
        graphs: a whole dataset.
        folder: where that dataset is stored; an array is the file ``<name>-<hash of the encoding's key>.npy`` in it.
        encodings: those that need nothing precomputed are passed over.
        progress: wraps the parts of a computation, to show how far it is.

    Raises:
        UserError: two encodings that differ but would store an array under one name; a disk that is full.
    """
    nodes, taken = dict(graphs.nodes), dict[str, Path]()
    for encoding in encodings:
        key = encoding.key()
        if key is None:
            continue
        facts = fingerprint(key)
        paths = {name: folder / f"{name}-{facts}.npy" for name in encoding.arrays}
        for name, path in paths.items():
            if taken.setdefault(name, path) != path:
                raise UserError(f"two encodings with different options both store '{name}': keep one of them")
        try:
            nodes |= _opened(paths)
        except (FileNotFoundError, Damaged):
            with lock(folder / f"{encoding.arrays[0]}-{facts}.lock"):
                nodes |= _computed(graphs, encoding, paths, progress)
    return replace(graphs, nodes=nodes)


def _opened(paths: Mapping[str, Path]) -> Arrays:
    return {name: read_array(path) for name, path in paths.items()}


def _computed(graphs: Graphs, encoding: Encoding, paths: Mapping[str, Path], progress: Progress) -> Arrays:
    """An encoding's arrays, computed unless another process did so while this one waited."""
    try:
        return _opened(paths)
    except Damaged as error:
        say(f"{error}: computing it again")
    except FileNotFoundError:
        pass
    for name, values in encoding.compute(graphs, progress).items():
        write_array(paths[name], values)
    return _opened(paths)
