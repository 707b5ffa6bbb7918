"""Encodings computed once for a dataset and kept beside it."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from gt.data.store import Graphs, fingerprint, lock, read_array, write_array
from gt.encodings.base import Encoding, Progress
from gt.errors import UserError


def attach(graphs: Graphs, folder: Path, encodings: Sequence[Encoding], progress: Progress = iter) -> Graphs:
    """The same graphs with each encoding's arrays among ``nodes``, memory-mapped; computed where a file is missing.

    Safe when several processes ask at once: one computes and the others wait for it.

    Args:
        graphs: a whole dataset.
        folder: where that dataset is stored; an array is the file ``<name>-<hash of the encoding's key>.npy`` in it.
        encodings: those that need nothing precomputed are passed over.
        progress: wraps the parts of a computation, to show how far it is.

    Raises:
        UserError: two encodings that differ but would store an array under one name.
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
        if not _all_there(paths):
            with lock(folder / f"{encoding.arrays[0]}-{facts}.lock"):
                if not _all_there(paths):  # another process may have computed it while this one waited
                    for name, values in encoding.compute(graphs, progress).items():
                        write_array(paths[name], values)
        nodes |= {name: read_array(path) for name, path in paths.items()}
    return replace(graphs, nodes=nodes)


def _all_there(paths: dict[str, Path]) -> bool:
    return all(path.exists() for path in paths.values())
