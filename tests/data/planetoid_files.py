"""A synthetic citation graph in the raw files of Planetoid (Yang et al. 2016)."""

import pickle
from pathlib import Path

import numpy as np
from scipy.sparse import csr_matrix

TRAIN, VALID, TEST, CLASSES, WORDS = 6, 500, 10, 3, 8  # the reader always takes 500 validation papers


def write_planetoid(raw: Path, name: str) -> None:
    """Write papers on a ring, each with the word of its class and a random one; test papers come last."""
    draw = np.random.default_rng(0)
    papers = TRAIN + VALID + TEST
    classes = np.arange(papers) % CLASSES
    words = np.zeros((papers, WORDS), np.float32)
    words[np.arange(papers), classes] = 1
    words[np.arange(papers), draw.integers(CLASSES, WORDS, papers)] = 1
    known, first = np.eye(CLASSES, dtype=np.int32)[classes], TRAIN + VALID
    parts = {
        "x": csr_matrix(words[:TRAIN]),
        "tx": csr_matrix(words[first:]),
        "allx": csr_matrix(words[:first]),
        "y": known[:TRAIN],
        "ty": known[first:],
        "ally": known[:first],
        "graph": {n: [(n - 1) % papers, (n + 1) % papers] for n in range(papers)},
    }
    raw.mkdir(parents=True)
    for part, values in parts.items():
        with open(raw / f"ind.{name}.{part}", "wb") as file:
            pickle.dump(values, file)
    (raw / f"ind.{name}.test.index").write_text("\n".join(map(str, range(first, papers))))
