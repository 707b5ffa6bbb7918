"""Halo exchange: rows of other ranks arrive in order, and their gradients are returned."""

import torch

from gt.parallel.halo import Halo
from tests.parallel.ranks import run_on_ranks

NODES = 12
SHARES = {
    "even": (0, 4, 8, 12),
    "uneven": (0, 1, 11, 12),
    "a rank with no node": (0, 5, 5, 12),
    "one rank": (0, 0, 0, 12),
}


def edges(case: str) -> torch.Tensor:
    """(2, E) random sources and readers, with duplicates."""
    return torch.randint(NODES, (2, 30), generator=torch.Generator().manual_seed(len(case)))


def rows() -> torch.Tensor:
    return torch.randn(NODES, 2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def aggregate(x: torch.Tensor, source: torch.Tensor, reader: torch.Tensor) -> torch.Tensor:
    """(N, ...) what each node reads: a function that is non-linear and depends on the source."""
    return torch.zeros_like(x).index_add(0, reader, (x[source] * (source + 1)[:, None, None]).sin())


def run_rank(rank, world):
    """For each case: the halo's nodes, what this rank's nodes read, and the gradient of its rows."""
    parts = {}
    for case, bounds in SHARES.items():
        low, high = bounds[rank : rank + 2]
        source, reader = edges(case)
        ranks = sum((reader >= bound).long() for bound in bounds[1:-1])
        halo = Halo.of(bounds, rank, ranks, source)
        own_rows = rows()[low:high].requires_grad_()
        nodes = torch.cat([halo.nodes[: halo.before], torch.arange(low, high), halo.nodes[halo.before :]])
        own_edges = (reader >= low) & (reader < high)
        x = torch.zeros_like(rows()).index_copy(0, nodes, halo.exchange(own_rows))
        out = aggregate(x, source[own_edges], reader[own_edges])[low:high]
        out.square().sum().backward()
        parts[case] = nodes, out.detach(), own_rows.grad
    empty = Halo.of((0, 4, 8, 12), rank, torch.tensor([0, 1]), torch.tensor([3, 4]))
    return parts, empty.idle


def test_halo_exchange_matches_one_process(tmp_path):
    parts = run_on_ranks(3, tmp_path, run_rank)
    for case, bounds in SHARES.items():
        x, (source, reader) = rows().requires_grad_(), edges(case)
        out = aggregate(x, source, reader)
        out.square().sum().backward()
        joined = [torch.cat([part[0][case][place] for part in parts]) for place in (1, 2)]
        torch.testing.assert_close(joined[0], out.detach(), rtol=0, atol=1e-12)
        torch.testing.assert_close(joined[1], x.grad, rtol=0, atol=1e-12)
        for rank in range(3):
            low, high = bounds[rank : rank + 2]
            own_edges = (reader >= low) & (reader < high)
            expected_nodes = sorted({*range(low, high), *source[own_edges].tolist()})
            assert parts[rank][0][case][0].tolist() == expected_nodes  # only the rows that it reads
    assert all(idle for _, idle in parts)  # each rank reads only its own nodes
