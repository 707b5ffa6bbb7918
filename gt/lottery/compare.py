"""Every backend, and what one would run without this package, side by side on the same workloads."""

import statistics
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile
from torch_geometric.nn import GATv2Conv, TransformerConv
from torch_geometric.utils import to_dense_batch

from gt.attention import BACKENDS, Demand, explain
from gt.attention.settled import close_calls, fastest
from gt.layers import Attention, State
from gt.linear import linear
from gt.lottery.timing import SETTLING, Step, attention_step, side_by_side, timed
from gt.lottery.workloads import Workload, inputs
from gt.masks import Pairs

TOO_LONG = 3.0  # seconds that a backend is expected to take above which it is left out
TOO_LARGE = 60_000_000  # entries of (B, L, L) above which padded ways are left out
ROUNDS, LEAST, SECONDS = 7, 3, 1.0  # repeats of each step, or the fewer where they take longer than this


@dataclass
class Row:
    """What one workload costs; times are seconds, forward and backward.

    Attributes:
        nodes, pairs: N and P; density: P over all pairs of nodes of the same graph.
        times: the repeats of each backend; left_out: why the others did not run.
        layers: the repeats of whole layers, ours under ``gt``; memory: peak bytes of each backend beyond its inputs.
        expected: what ``auto`` takes by the cost table; chosen: once a run has settled its close calls.
        floor: seconds below which no program can be, from the machine's peak of products and of memory traffic.
    """

    workload: str
    nodes: int
    pairs: int
    density: float
    expected: str
    chosen: str
    floor: float
    times: dict[str, list[float]] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    layers: dict[str, list[float]] = field(default_factory=dict)
    memory: dict[str, int] = field(default_factory=dict)

    def median(self, name: str) -> float:
        return statistics.median(self.times[name] if name in self.times else self.layers[name])

    @property
    def best(self) -> str:
        """The fastest backend."""
        return min(self.times, key=self.median)

    @property
    def regret(self) -> float:
        """How much slower the chosen backend is than the fastest: 0.1 is ten percent."""
        return self.median(self.chosen) / self.median(self.best) - 1

    @property
    def regret_unsettled(self) -> float:
        """The same of the backend that the cost table expects to be fastest."""
        return self.median(self.expected) / self.median(self.best) - 1


def peak_memory(step: Step, device: str) -> int:
    """Bytes that a step holds at most beyond what was held before it."""
    if device == "cuda":
        held = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        step()
        return torch.cuda.max_memory_allocated() - held
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        step()
    total = most = 0
    for event in recorded.profiler.kineto_results.events():
        if event.name() == "[memory]":
            total += event.nbytes()
            most = max(most, total)
    return most


@dataclass(frozen=True)
class Peaks:
    """Floating-point operations and bytes a second that this machine reaches."""

    operations: float
    traffic: float


def peaks(device: str, dtype: torch.dtype) -> Peaks:
    """Measured by a large matrix product, of the fastest library that is at hand, and by a large copy."""
    size = 8192 if device == "cuda" else 2048
    a = torch.randn(size, size, device=device).to(dtype)
    big = torch.randn(1 << (28 if device == "cuda" else 25), device=device)
    out = torch.empty_like(big)
    product = min(timed(lambda: linear(a, a), device, least=5, seconds=0.2))
    copy = min(timed(lambda: out.copy_(big), device, least=5, seconds=0.2))
    return Peaks(2 * size**3 / product, 2 * big.numel() * big.element_size() / copy)


def floor(pairs: Pairs, heads: int, channels: int, size: int, peaks: Peaks) -> float:
    """Seconds for the products that no program can leave out (two forward, five backward), or the traffic of q, k, v,
    the result and their gradients, whichever takes longer."""
    operations = 7 * 2 * pairs.count * heads * channels
    traffic = 8 * pairs.batch.num_nodes * heads * channels * size
    return max(operations / peaks.operations, traffic / peaks.traffic)


def layer_steps(pairs: Pairs, heads: int, channels: int, dtype: torch.dtype) -> dict[str, Step]:
    """Whole layers, projections included: ours, PyG's on the pairs as an edge list, PyTorch's on padded rows."""
    width, batch, device = heads * channels, pairs.batch, pairs.batch.device
    x, grad = (torch.randn(batch.num_nodes, width, device=device, dtype=dtype) for _ in range(2))
    x.requires_grad_()
    layers: dict[str, nn.Module] = {
        "gt": Attention(width, heads),
        "TransformerConv": TransformerConv(width, channels, heads, root_weight=False),
        "GATv2Conv": GATv2Conv(width, channels, heads, add_self_loops=False),
        "MultiheadAttention": nn.MultiheadAttention(width, heads, batch_first=True),
    }
    layers = {name: layer.to(device, dtype) for name, layer in layers.items()}
    hidden = None
    if pairs.limits != (None, None) and batch.num_graphs * batch.max_nodes**2 * heads <= TOO_LARGE:
        hidden = (~pairs.safe_dense).expand(-1, heads, -1, -1).flatten(0, 1)

    def padded() -> Tensor:
        wide, real = to_dense_batch(x, batch.batch, batch_size=batch.num_graphs)
        hides = ~real if hidden is None else None
        out, _ = layers["MultiheadAttention"](
            wide, wide, wide, key_padding_mask=hides, attn_mask=hidden, need_weights=False
        )
        return out[real]

    calls: dict[str, Callable[[], Tensor]] = {"gt": lambda: layers["gt"](State(x), batch, pairs)["x"]}
    if pairs.count * width <= 4 * TOO_LARGE:
        for name in ("TransformerConv", "GATv2Conv"):
            calls[name] = lambda layer=layers[name]: layer(x, pairs.edges)  # type: ignore[misc]
    if hidden is not None or pairs.limits == (None, None):
        calls["MultiheadAttention"] = padded

    def both(name: str) -> Step:
        inputs = [x, *layers[name].parameters()]
        return lambda: torch.autograd.grad(calls[name](), inputs, grad, allow_unused=True)

    return {name: both(name) for name in calls}


def compare(workload: Workload, device: str, dtype: torch.dtype, peak: Peaks, layers: bool = True) -> Row:
    """Measure one workload."""
    pairs = workload.pairs(device)
    heads, channels, batch = workload.heads, workload.channels, pairs.batch
    demand = Demand(device, dtype in (torch.float16, torch.bfloat16), heads, channels)
    given = inputs(pairs, heads, channels, dtype)
    close = close_calls(explain(pairs, demand))
    timed = side_by_side({name: attention_step(pairs, given, name) for name in close}, device, *SETTLING)
    row = Row(
        str(workload),
        batch.num_nodes,
        pairs.count,
        pairs.count / int((batch.sizes**2).sum()),
        close[0],
        fastest(timed),
        floor(pairs, heads, channels, dtype.itemsize, peak),
    )
    steps = {}
    for name, cost in explain(pairs, demand).items():
        if isinstance(cost, str):
            row.left_out[name] = cost
        elif BACKENDS[name].padded and batch.num_graphs * batch.max_nodes**2 * heads > TOO_LARGE:
            row.left_out[name] = "its padded matrices are too large"
        elif cost > TOO_LONG:
            row.left_out[name] = f"expected to take {cost:.0f} s"
        else:
            steps[name] = attention_step(pairs, given, name)
    row.times = side_by_side(steps, device, ROUNDS, LEAST, SECONDS)
    row.memory = {name: peak_memory(step, device) for name, step in steps.items()}
    if layers:
        row.layers = side_by_side(layer_steps(pairs, heads, channels, dtype), device, ROUNDS, LEAST, SECONDS)
    return row
