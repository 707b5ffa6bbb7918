"""Ring attention equals attention in one process, in values and gradients."""

from functools import partial
from itertools import accumulate, product

import torch
import torch.distributed as dist
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from gt.attention import attend
from gt.graph import path_graphs
from gt.masks import Causal, Complete
from gt.parallel import ring
from gt.parallel.ring import Ring
from tests.parallel.ranks import run_on_ranks

# nodes of each graph, and of each rank for 2 and for 3 ranks
CASES = {
    "one graph": ((13,), (7, 6), (5, 4, 4)),
    "uneven shares": ((13,), (1, 12), (9, 1, 3)),
    "a rank with no node": ((6,), (0, 6), (3, 0, 3)),
    "last rank with no node": ((6,), (6, 0), (0, 6, 0)),
    "several graphs": ((4, 7, 1, 5), (9, 8), (6, 6, 5)),
    "cut between graphs": ((4, 7, 5), (11, 5), (4, 7, 5)),
    "whole graphs between cut ones": ((3, 2, 2, 4, 2, 3), (9, 7), (1, 8, 7)),
    "one graph over all, another within": ((2, 11, 2), (6, 9), (4, 4, 7)),
    "many single nodes": ((1, 1, 1, 1, 1), (2, 3), (1, 1, 3)),
}


def inputs(nodes: int, dtype: torch.dtype) -> torch.Tensor:
    """(4, nodes, 3, 5) q, k, v and the gradient of the output."""
    return torch.randn(4, nodes, 3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(nodes)).to(dtype)


def output_and_gradients(q, k, v, grad_output, attention):
    """(4, rows, H, D) the output of attention, and the gradients of q, k and v."""
    leaves = [each.clone().requires_grad_() for each in (q, k, v)]
    out = attention(*leaves)
    out.backward(grad_output)
    return torch.stack([out.detach(), *(leaf.grad for leaf in leaves)])


PRECISIONS = [(torch.float64, 1e-12, 2), (torch.float32, 1e-5, 512)]  # dtype, tolerance, tile size


def run_rank(rank, world):
    """This rank's results for all cases, with two ranks and with three."""
    parts, two = {}, dist.new_group([0, 1])
    for name, (sizes, *node_counts) in CASES.items():
        for counts, group in zip(node_counts, (two, None), strict=True):
            bounds = [0, *accumulate(counts)]
            if rank == len(counts):
                continue
            for causal, (dtype, _, ring.TILE) in product((False, True), PRECISIONS):
                ring_attention = Ring.of([0, *accumulate(sizes)], bounds, rank, causal)
                own_inputs = inputs(sum(sizes), dtype)[:, bounds[rank] : bounds[rank + 1]]
                part = output_and_gradients(*own_inputs, partial(ring_attention.attend, group=group))
                parts[name, len(counts), causal, dtype] = part
    return parts, largest_tensor(rank)


class LargestTensor(TorchDispatchMode):
    """Records the number of elements of the largest tensor that an operation returns."""

    elements = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        self.elements = max([self.elements, *(leaf.numel() for leaf in tree_leaves(out) if torch.is_tensor(leaf))])
        return out


def largest_tensor(rank):
    """Elements of the largest tensor in a forward and backward pass over 96 nodes, 32 on each of three ranks."""
    ring.TILE, bounds = 8, (0, 32, 64, 96)
    ring_attention, own_inputs = Ring.of((0, 96), bounds, rank, causal=False), torch.ones(4, 32, 3, 5)
    with LargestTensor() as largest:
        output_and_gradients(*own_inputs, ring_attention.attend)
    return largest.elements


def test_ring_attention_matches_one_process(tmp_path):
    parts, largest = zip(*run_on_ranks(3, tmp_path, run_rank), strict=True)
    assert max(largest) == 4 * 32 * 3 * 5  # that of the results; no scores of all pairs, no rows of all nodes
    for (name, (sizes, *_)), world, causal in product(CASES.items(), (2, 3), (False, True)):
        attention = partial(attend, pairs=(Causal() if causal else Complete())(path_graphs(sizes)), backend="dense")
        expected = output_and_gradients(*inputs(sum(sizes), torch.float64), attention)
        for dtype, tolerance, _ in PRECISIONS:
            joined = torch.cat([part[name, world, causal, dtype] for part in parts[:world]], dim=1)
            case = f"{name}, {world} ranks, causal: {causal}, {dtype}"
            torch.testing.assert_close(
                joined.double(), expected, rtol=0, atol=tolerance, msg=lambda message, case=case: f"{case}: {message}"
            )
