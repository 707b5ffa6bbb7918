"""Compare all backends, and standard PyG and PyTorch layers, on the same workloads."""

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

MAX_SECONDS = 3.0  # backends expected to take longer are skipped
MAX_ENTRIES = 60_000_000  # entries of (B, H, L, L) above which padded backends are skipped
ROUNDS, MIN_ROUNDS, SECONDS = 7, 3, 1.0  # repeats of each step, fewer if they take longer than SECONDS


@dataclass
class Row:
    """The cost of one workload; times are seconds of a forward and backward pass.

    Attributes:
        nodes, pairs: N and P; density: P over the number of node pairs within graphs.
        times: repeats of each backend; left_out: why other backends were skipped.
        layers: repeats of whole layers, ours as ``gt``; memory: peak bytes of each backend beyond its inputs.
        expected: the choice of ``auto`` by the cost table; chosen: its choice after timing close calls, as runs do.
        floor: roofline, a lower bound of the seconds from the machine's peak throughput and memory bandwidth.
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
        """By how much the chosen backend is slower than the fastest: 0.1 is ten percent."""
        return self.median(self.chosen) / self.median(self.best) - 1

    @property
    def regret_unsettled(self) -> float:
        """The same for the backend that the cost table expects to be fastest."""
        return self.median(self.expected) / self.median(self.best) - 1


def peak_memory(step: Step, device: str) -> int:
    """Peak bytes that a step allocates on top of what was allocated before it."""
    if device == "cuda":
        allocated = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        step()
        return torch.cuda.max_memory_allocated() - allocated
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        step()
    total = peak = 0
    for event in profiler.profiler.kineto_results.events():
        if event.name() == "[memory]":
            total += event.nbytes()
            peak = max(peak, total)
    return peak


@dataclass(frozen=True)
class Peaks:
    """Floating-point operations and bytes per second that this machine reaches."""

    operations: float
    traffic: float


def peaks(device: str, dtype: torch.dtype) -> Peaks:
    """Measure the peaks with a large matrix product, by the fastest available library, and a large copy."""
    size = 8192 if device == "cuda" else 2048
    a = torch.randn(size, size, device=device).to(dtype)
    big = torch.randn(1 << (28 if device == "cuda" else 25), device=device)
    out = torch.empty_like(big)
    product = min(timed(lambda: linear(a, a), device, minimum=5, seconds=0.2))
    copy = min(timed(lambda: out.copy_(big), device, minimum=5, seconds=0.2))
    return Peaks(2 * size**3 / product, 2 * big.numel() * big.element_size() / copy)


def floor(pairs: Pairs, heads: int, channels: int, size: int, peaks: Peaks) -> float:
    """Roofline in seconds: the longer of the necessary products (two forward, five backward) and the memory traffic of
    q, k, v, the result and their gradients."""
    operations = 7 * 2 * pairs.count * heads * channels
    traffic = 8 * pairs.batch.num_nodes * heads * channels * size
    return max(operations / peaks.operations, traffic / peaks.traffic)


def layer_steps(pairs: Pairs, heads: int, channels: int, dtype: torch.dtype) -> dict[str, Step]:
    """Steps of whole layers with projections: ours, PyG's on the pairs as an edge list, PyTorch's on padded rows."""
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
    attn_mask = None
    if pairs.limits != (None, None) and batch.num_graphs * batch.max_nodes**2 * heads <= MAX_ENTRIES:
        attn_mask = (~pairs.safe_dense).expand(-1, heads, -1, -1).flatten(0, 1)

    def padded() -> Tensor:
        dense, real = to_dense_batch(x, batch.batch, batch_size=batch.num_graphs)
        padding_mask = ~real if attn_mask is None else None
        out, _ = layers["MultiheadAttention"](
            dense, dense, dense, key_padding_mask=padding_mask, attn_mask=attn_mask, need_weights=False
        )
        return out[real]

    calls: dict[str, Callable[[], Tensor]] = {"gt": lambda: layers["gt"](State(x), batch, pairs)["x"]}
    if pairs.count * width <= 4 * MAX_ENTRIES:
        for name in ("TransformerConv", "GATv2Conv"):
            calls[name] = lambda layer=layers[name]: layer(x, pairs.edges)  # type: ignore[misc]
    if attn_mask is not None or pairs.limits == (None, None):
        calls["MultiheadAttention"] = padded

    def forward_backward(name: str) -> Step:
        inputs = [x, *layers[name].parameters()]
        return lambda: torch.autograd.grad(calls[name](), inputs, grad, allow_unused=True)

    return {name: forward_backward(name) for name in calls}


def compare(workload: Workload, device: str, dtype: torch.dtype, peak: Peaks, layers: bool = True) -> Row:
    """Measure one workload."""
    pairs = workload.pairs(device)
    heads, channels, batch = workload.heads, workload.channels, pairs.batch
    demand = Demand(device, dtype in (torch.float16, torch.bfloat16), heads, channels)
    tensors = inputs(pairs, heads, channels, dtype)
    candidates = close_calls(explain(pairs, demand))
    timed = side_by_side({name: attention_step(pairs, tensors, name) for name in candidates}, device, *SETTLING)
    row = Row(
        str(workload),
        batch.num_nodes,
        pairs.count,
        pairs.count / int((batch.sizes**2).sum()),
        candidates[0],
        fastest(timed),
        floor(pairs, heads, channels, dtype.itemsize, peak),
    )
    steps = {}
    for name, cost in explain(pairs, demand).items():
        if isinstance(cost, str):
            row.left_out[name] = cost
        elif BACKENDS[name].padded and batch.num_graphs * batch.max_nodes**2 * heads > MAX_ENTRIES:
            row.left_out[name] = "its padded matrices are too large"
        elif cost > MAX_SECONDS:
            row.left_out[name] = f"expected to take {cost:.0f} s"
        else:
            steps[name] = attention_step(pairs, tensors, name)
    row.times = side_by_side(steps, device, ROUNDS, MIN_ROUNDS, SECONDS)
    row.memory = {name: peak_memory(step, device) for name, step in steps.items()}
    if layers:
        row.layers = side_by_side(layer_steps(pairs, heads, channels, dtype), device, ROUNDS, MIN_ROUNDS, SECONDS)
    return row
