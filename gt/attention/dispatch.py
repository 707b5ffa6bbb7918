"""Which way to compute attention: one operator, several backends, the choice never changes a result."""

from collections.abc import Callable

from torch import Tensor

from gt.attention.dense import attend_dense, attend_sdpa
from gt.attention.sparse import attend_sparse
from gt.masks import Pairs

Backend = Callable[[Tensor, Tensor, Tensor, Pairs, Tensor | None, float], Tensor]

BACKENDS: dict[str, Backend] = {"dense": attend_dense, "sdpa": attend_sdpa, "sparse": attend_sparse}

# Measured on 2 CPU cores, forward and backward: a listed pair costs as much as about 6 entries of a dense matrix,
# and PyTorch's fused kernel overtakes plain matrix products at about 80 nodes a graph.
PAIR_COST = 6
FUSED_FROM = 80


def choose(pairs: Pairs, dropout: float = 0.0) -> str:
    """The backend expected to be fastest; decided by Python integers, so that no device is waited for."""
    batch = pairs.batch
    entries = batch.num_graphs * batch.max_nodes**2
    if PAIR_COST * pairs.count < entries:
        return "sparse"
    fused = batch.max_nodes >= FUSED_FROM and not (dropout and batch.device.type == "cpu")  # there it is not fused
    return "sdpa" if fused else "dense"


def prepare(pairs: Pairs) -> None:
    """Compute, while still on the CPU, each index that the chosen backend will ask for."""
    if choose(pairs) == "sparse":
        _ = pairs.rowptr, pairs.by_source, pairs.colptr, pairs.edge_heads, pairs.dense_entry
    else:
        _ = pairs.safe_dense, pairs.all_read


def check_bias(bias: Tensor, pairs: Pairs, heads: int) -> None:
    """Refuse a bias of neither shape that `attend` takes: a backend might read a wrong one without a complaint."""
    graphs, size = pairs.batch.num_graphs, pairs.batch.max_nodes
    if bias.dim() == 4:
        fits = bias.shape[1] in (1, heads) and bias.shape == (graphs, bias.shape[1], size, size)
    else:
        fits = bias.shape == (pairs.edges.shape[1], heads)
    if not fits:
        right = f"({pairs.edges.shape[1]}, {heads}) or ({graphs}, 1 or {heads}, {size}, {size})"
        raise ValueError(f"a bias of these pairs is {right}, not {tuple(bias.shape)}")


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    pairs: Pairs,
    bias: Tensor | None = None,
    dropout: float = 0.0,
    backend: str = "auto",
) -> Tensor:
    """Scaled dot-product attention over allowed pairs: message passing on the graph that the mask draws.

    ``out_i = sum_j softmax_j(q_i . k_j / sqrt(D) + bias_ij) v_j`` over the j that i reads (Vaswani et al. 2017).

    Args:
        q, k, v: (N, H, D) packed nodes, no padding.
        pairs: who reads whom, ``mask(batch)``; a mask for each head needs H heads.
        bias: added to the scores before the softmax: (P, H) in the order of ``pairs.edges``, or (B, 1 or H, L, L).
        dropout: probability of dropping each attention weight.
        backend: ``auto``, or one of `BACKENDS`: the numbers are the same, the speed is not.

    Returns:
        (N, H, D); zeros for a node that reads nobody.

    Raises:
        ValueError: an unknown backend, or shapes that do not fit one another.
    """
    if backend != "auto" and backend not in BACKENDS:
        raise ValueError(f"no backend is called '{backend}'; there are auto, {', '.join(BACKENDS)}")
    if q.shape != k.shape or q.shape[:2] != v.shape[:2] or q.shape[0] != pairs.batch.num_nodes:
        shapes = f"q {tuple(q.shape)}, k {tuple(k.shape)}, v {tuple(v.shape)}"
        raise ValueError(f"attention over {pairs.batch.num_nodes} nodes cannot take {shapes}")
    if pairs.heads not in (1, q.shape[1]):
        raise ValueError(f"the mask tells {pairs.heads} heads apart, the layer has {q.shape[1]}")
    if bias is not None:
        check_bias(bias, pairs, q.shape[1])
    return BACKENDS[choose(pairs, dropout) if backend == "auto" else backend](q, k, v, pairs, bias, dropout)
