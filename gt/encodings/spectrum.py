"""The smallest eigenvalues and eigenvectors of the Laplacians of connected graphs."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np
from scipy.linalg import eigh
from scipy.sparse import csr_matrix, diags, identity
from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh, splu

from gt.encodings.pieces import to_dense

# Measured on 2 CPU cores for 8 eigenvectors: one batched call is fastest up to about 64 nodes, then a few eigenvectors
# of each dense matrix, and above about 1000 nodes Lanczos iteration on the sparse matrix.
MAX_BATCHED = 64
MAX_DENSE = 1000
FEW_CYCLES = 500  # independent ones: without nodes of degree 1 or 2 at most twice as many nodes remain


def laplacian(links: csr_matrix, normalised: bool) -> tuple[csr_matrix, np.ndarray]:
    """The Laplacian and zero mode of the undirected simple graph, without directions, repeated edges and loops.

    Args:
        links: (N, N), an entry for each edge.
        normalised: D^(-1/2) (D - A) D^(-1/2) rather than D - A.

    Returns:
        matrix: (N, N) float64; an isolated node has a row of zeros.
        null: (N,) positive; restricted to any component it is an eigenvector of eigenvalue 0.
    """
    both = (links + links.T).tocoo()
    no_loop = both.row != both.col
    row, col = both.row[no_loop], both.col[no_loop]
    degree = np.bincount(row, minlength=links.shape[0]).astype(np.float64)
    if not normalised:
        return (diags(degree) - csr_matrix((np.ones(len(row)), (row, col)), both.shape)).tocsr(), np.ones(len(degree))
    root = np.sqrt(np.maximum(degree, 1))
    weights = csr_matrix((1 / (root[row] * root[col]), (row, col)), both.shape)
    return (diags(np.minimum(degree, 1)) - weights).tocsr(), root


def smallest_modes(links: csr_matrix, count: int, k: int, normalised: bool) -> tuple[np.ndarray, np.ndarray]:
    """The min(k, n) smallest eigenvalues of B = ``count`` connected graphs of n nodes each.

    Args:
        links: (B * n, B * n), as in `gt.encodings.pieces.Components`.

    Returns:
        values: (B, min(k, n)) float64, ascending; the first is exactly 0, the others are positive.
        vectors: (B, n, min(k, n)) float64, of norm 1, the largest entry positive (the first one in a tie).
    """
    size = links.shape[0] // count
    k = min(k, size)
    matrix, null = laplacian(links, normalised)
    if size <= MAX_BATCHED:
        values, vectors = (part[..., :k] for part in np.linalg.eigh(to_dense(matrix, count)))
    else:
        if size <= MAX_DENSE:
            modes = [eigh(dense, subset_by_index=(0, k - 1)) for dense in to_dense(matrix, count)]
        else:
            blocks = [slice(low, low + size) for low in range(0, count * size, size)]
            modes = [_sparse_modes(matrix[block, block], null[block], k) for block in blocks]
        values, vectors = (np.stack(parts) for parts in zip(*modes, strict=True))
    values = np.maximum(values, np.finfo(np.float32).tiny)
    values[:, 0] = 0
    weight = np.abs(vectors)
    largest = (weight >= weight.max(1, keepdims=True) * (1 - 1e-6)).argmax(1)[:, None]  # ties up to rounding
    return values, vectors * np.sign(np.take_along_axis(vectors, largest, 1))


def _sparse_modes(matrix: csr_matrix, null: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """One large graph: the zero mode is known, the others are the largest of a flipped operator that deflates it.

    Lanczos iteration on the matrix itself takes about ``sqrt(top / gap)`` steps. It fails only if eigenvalues cluster
    at 0; such a graph, like a path, has small separators (Cheeger) and is cheap to factorise. A graph with few cycles
    always is, while with a hub, which raises ``top``, Lanczos would take very many steps.
    """
    null = (null / np.linalg.norm(null))[:, None]
    if k == 1:
        return np.zeros(1), null
    top = 2 * matrix.diagonal().max()  # upper bound of the eigenvalues
    cycles = (matrix.nnz - len(null)) // 2 - (len(null) - 1)  # independent ones: edges in excess of a tree
    if cycles > FEW_CYCLES:
        steps = int(100 * np.sqrt(top / 2))
        with suppress(ArpackNoConvergence):
            values, vectors = _largest(matrix, lambda x: top * x - matrix @ x, null, k, top, maxiter=steps)
            return np.append(0.0, values), np.hstack([null, vectors])
    shifted = (matrix + 1e-6 * top * identity(len(null))).tocsc()
    solve = splu(shifted, "MMD_AT_PLUS_A", diag_pivot_thresh=0, options={"SymmetricMode": True}).solve
    values, vectors = _largest(matrix, solve, null, k, top)
    return np.append(0.0, values), np.hstack([null, vectors])


def _largest(
    matrix: csr_matrix, apply: Callable[[np.ndarray], np.ndarray], null: np.ndarray, k: int, top: float, **limits: Any
) -> tuple[np.ndarray, np.ndarray]:
    """The k - 1 largest modes of an operator, with their eigenvalues of the matrix, ascending; ``null`` is deflated.

    Lanczos iteration finds only one vector of a repeated eigenvalue, and others by rounding alone. So modes are
    deflated once found, and the search is repeated until it finds none that precedes the last of them.
    """
    rng = np.random.default_rng(0)

    def modes(count: int, found: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        def deflate(x: np.ndarray) -> np.ndarray:
            return x - found @ (found.T @ x)

        deflated = LinearOperator(matrix.shape, lambda x: deflate(apply(deflate(x.ravel()))), dtype=np.float64)
        start, basis_size = rng.standard_normal(len(null)), min(len(null), 4 * k + 20)
        _, vectors = eigsh(deflated, count, which="LA", v0=start, ncv=basis_size, **limits)
        return np.einsum("nk,nk->k", vectors, matrix @ vectors), vectors

    values, vectors = modes(k - 1, null)
    while k < len(null):
        value, vector = modes(1, np.hstack([null, vectors]))
        if value[0] >= values.max() - 1e-10 * top:
            break
        last = values.argmax()
        values[last], vectors[:, last] = value[0], vector[:, 0]
    order = values.argsort()
    return values[order], vectors[:, order]
