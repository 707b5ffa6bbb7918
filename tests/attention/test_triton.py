"""The fused kernel against dense matrices in float64, on a GPU or else in Triton's interpreter."""

import math
import os
import subprocess
import sys
from dataclasses import dataclass

import pytest
import torch

from gt.attention import Demand, attend
from gt.attention import triton as host
from gt.graph import GraphBatch
from gt.masks import Causal, Complete, Hops, Mask, PerHead
from tests.attention.masks import Neighbours, Nobody
from tests.graphs import SIZES, random_batch

pytest.importorskip("triton")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@dataclass(frozen=True)
class Far(Mask):
    """Edges that span more than 35 positions: a hub reads nobody in its first blocks of pairs."""

    def keys(self, batch):
        source, target = batch.edge_index[:, (batch.edge_index[0] - batch.edge_index[1]).abs() > 35]
        return target * batch.num_nodes + source


PER_HEAD = PerHead((Neighbours(), Causal()))
BIASES = ("none", "pairs", "dense", "shared")


def star(leaves: int) -> GraphBatch:
    """Node 0 and every other node read each other; one additional node is isolated."""
    hub, leaf = torch.zeros(leaves, dtype=torch.long), torch.arange(1, leaves + 1)
    edges = torch.stack([torch.cat([leaf, hub]), torch.cat([hub, leaf])])
    return GraphBatch(ptr=torch.tensor([0, leaves + 2]), edge_index=edges, max_nodes=leaves + 2)


def inputs(pairs, heads, channels, values=None, bias="none", seed=0):
    """q, k, v and a bias or None, in float64."""
    torch.manual_seed(seed)
    nodes, graphs, size = pairs.batch.num_nodes, pairs.batch.num_graphs, pairs.batch.max_nodes
    widths = (channels, channels, values or channels)
    shapes = {
        "pairs": (pairs.edges.shape[1], heads),
        "dense": (graphs, heads, size, size),
        "shared": (graphs, 1, size, size),
    }
    tensors = [torch.randn(nodes, heads, width, dtype=torch.float64) for width in widths]
    if bias != "none":
        tensors.append(torch.randn(shapes[bias], dtype=torch.float64))
    return [t.to(pairs.batch.device) for t in tensors]


def results(tensors, pairs, backend, dtype=torch.float64):
    """The output, and the gradients of a random weighted sum of it for each of ``tensors``."""
    leaves = [t.detach().to(dtype).requires_grad_() for t in tensors]
    out = attend(*leaves[:3], pairs, *leaves[3:], backend=backend)
    assert out.dtype == dtype
    torch.manual_seed(1)
    weights = torch.randn(out.shape, dtype=torch.float64).to(out)
    return [out, *torch.autograd.grad((out * weights).sum(), leaves, allow_unused=True, materialize_grads=True)]


def assert_close(actual, expected, tolerance):
    for name, a, b in zip(("out", "q", "k", "v", "bias"), actual, expected, strict=False):
        torch.testing.assert_close(
            a.double(), b.double(), rtol=tolerance, atol=tolerance, msg=lambda text, n=name: f"{n}: {text}"
        )


def check(mask, batch, heads, channels, values=None, bias="none", dtype=torch.float64, tolerance=1e-10):
    """Compare values and all gradients with the dense backend in float64."""
    pairs = mask(batch.to(DEVICE))
    tensors = [t.to(dtype).double() for t in inputs(pairs, heads, channels, values, bias)]
    assert_close(results(tensors, pairs, "triton", dtype), results(tensors, pairs, "dense"), tolerance)


@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("mask", [Neighbours(), PER_HEAD], ids=str)
def test_awkward_batches(mask, sizes):
    batch = random_batch(sizes, density=0.2)
    check(mask, batch, 2, 3, bias="pairs")


@pytest.mark.parametrize("mask", [Complete(), Neighbours(), Nobody(), PerHead((Nobody(), Hops(1)))], ids=str)
@pytest.mark.parametrize("bias", BIASES)
def test_biases(mask, bias):
    check(mask, random_batch((3, 1)), 2, 2, bias=bias)


@pytest.mark.parametrize(("channels", "values"), [(1, 1), (5, 5), (16, 16), (24, 24), (3, 24), (16, 1), (256, 2)])
def test_head_sizes(channels, values):
    check(PER_HEAD, random_batch((1, 5)), 2, channels, values)


@pytest.mark.parametrize("bias", ["none", "pairs"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float16, 4e-3), (torch.bfloat16, 2e-2)])
def test_lower_precision(dtype, tolerance, bias):
    check(PER_HEAD, random_batch((1, 6, 3)), 2, 16, 5, bias=bias, dtype=dtype, tolerance=tolerance)


@pytest.mark.parametrize("mask", [Neighbours(), PerHead((Far(), Neighbours()))], ids=str)
def test_hubs_take_several_blocks_as_readers_and_as_sources(mask):
    batch = star(40)
    pairs = mask(batch)
    block = host._sizes(4, 4, pairs.edges.shape[1], batch.num_nodes)["BLOCK_P"]
    assert 2 * block < 40
    assert 40 % block
    check(mask, batch, mask.heads, 4, bias="pairs")


def test_large_scores_do_not_overflow():
    pairs = Complete()(random_batch((40,)).to(DEVICE))
    tensors = [400 * t for t in inputs(pairs, 1, 8)[:2]] + inputs(pairs, 1, 8)[2:]
    actual, expected = (results(tensors, pairs, backend) for backend in ("triton", "dense"))
    assert_close(actual, expected, 1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rows_that_read_nobody_get_zeros_and_pass_no_gradient(dtype):
    pairs = PER_HEAD(random_batch((1, 4, 5), density=0.2).to(DEVICE))
    isolated = pairs.batch.in_degree == 0
    assert isolated.any()
    assert not isolated.all()
    out, grad_q, *rest = results(inputs(pairs, 2, 3, bias="pairs"), pairs, "triton", dtype)
    assert (out[~isolated, 0] != 0).all()
    assert (out[isolated, 0] == 0).all()
    assert (grad_q[isolated, 0] == 0).all()
    assert (grad_q[~isolated] != 0).any()
    assert all(t.isfinite().all() for t in rest)


def test_a_bias_of_minus_infinity_hides_a_pair():
    batch = random_batch((1, 4, 5), density=0.2).to(DEVICE)
    hidden, pairs = Neighbours()(batch), Complete()(batch)
    tensors = inputs(pairs, 2, 3)
    allowed = Neighbours().allows(batch, *pairs.edges)
    bias = torch.zeros_like(allowed, dtype=torch.float64).masked_fill(~allowed, -torch.inf).expand(-1, 2)
    actual = results([*tensors, bias], pairs, "triton")
    assert_close(actual[:4], results(tensors, hidden, "dense"), 1e-10)
    assert (actual[4][~allowed[:, 0]] == 0).all()


@pytest.mark.parametrize(("bias", "fast"), [("none", True), ("pairs", False), ("dense", True)])
def test_gradcheck(bias, fast):
    pairs = PER_HEAD(random_batch((1, 2), seed=1).to(DEVICE))
    leaves = [t.requires_grad_() for t in inputs(pairs, 2, 1, 1, bias)]

    def function(*tensors):
        return attend(*tensors[:3], pairs, *tensors[3:], backend="triton")

    assert torch.autograd.gradcheck(function, leaves, fast_mode=fast)


def test_a_bias_that_asks_for_no_gradient_gets_none():
    pairs = Hops(1)(random_batch((4,)).to(DEVICE))
    *qkv, bias = inputs(pairs, 2, 3, bias="pairs")
    leaves = [t.requires_grad_() for t in qkv]
    actual = torch.autograd.grad(attend(*leaves, pairs, bias, backend="triton").square().sum(), leaves)
    expected = torch.autograd.grad(attend(*leaves, pairs, bias, backend="dense").square().sum(), leaves)
    assert_close(actual, expected, 1e-10)


def test_views_are_read_where_they_stand():
    pairs = Neighbours()(random_batch((3, 4)).to(DEVICE))
    torch.manual_seed(0)
    joined = torch.randn(7, 3, 2, 6, dtype=torch.float64, device=DEVICE)
    heads_first = torch.randn(2, 7, 6, dtype=torch.float64, device=DEVICE).transpose(0, 1)
    every_other = torch.randn(7, 2, 12, dtype=torch.float64, device=DEVICE)[..., ::2]
    for q, k, v in [joined.unbind(1), (heads_first, every_other, heads_first), (every_other,) * 3]:
        actual, expected = [], []
        for backend, values in (("triton", actual), ("dense", expected)):
            leaves = [t.detach().requires_grad_() for t in (q, k, v)]
            out = attend(*leaves, pairs, backend=backend)
            values += [out, *torch.autograd.grad(out.sum(), leaves)]  # the gradient is expanded: all its strides are 0
        assert_close(actual, expected, 1e-10)


def test_autocast_leaves_the_dtype_of_the_inputs():
    pairs = Hops(1)(random_batch((5, 2)).to(DEVICE))
    tensors = inputs(pairs, 2, 8, bias="pairs")
    with torch.autocast(DEVICE, torch.bfloat16):
        actual = results(tensors, pairs, "triton", torch.float32)
    assert_close(actual, results(tensors, pairs, "dense"), 1e-5)


def test_a_bias_of_more_precision_than_half_inputs_keeps_its_dtype():
    pairs = Hops(1)(random_batch((5, 2)).to(DEVICE))
    *qkv, bias = inputs(pairs, 2, 8, bias="pairs")
    half, bias = [t.bfloat16() for t in qkv], bias.float().requires_grad_()
    weights = torch.randn_like(half[2])
    out = attend(*half, pairs, bias, backend="triton")
    (grad,) = torch.autograd.grad((out * weights).sum(), bias)
    exact = attend(*(t.double() for t in half), pairs, bias, backend="dense")
    (expected,) = torch.autograd.grad((exact * weights).sum(), bias)
    assert (out.dtype, grad.dtype) == (torch.bfloat16, torch.float32)
    torch.testing.assert_close(grad, expected, rtol=2e-2, atol=2e-2)


def test_nothing_but_rows_is_kept_for_the_backward_pass():
    pairs, heads, channels = Complete()(random_batch((6,)).to(DEVICE)), 2, 4
    saved = []
    leaves = [t.requires_grad_() for t in inputs(pairs, heads, channels)]
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t.numel()) or t, lambda t: t):
        attend(*leaves, pairs, backend="triton")
    assert sum(saved) == 6 * heads * (4 * channels + 1)  # q, k, v, the output, and a log-sum-exp


def test_a_call_that_cannot_be_served_says_why(monkeypatch):
    from gt.attention import triton_kernels

    pairs = Complete()(random_batch((3,)).to(DEVICE))
    q = torch.zeros(3, 1, 4, device=DEVICE)
    assert host.triton_obstacle(Demand(device=DEVICE)) is None
    with pytest.raises(ValueError, match=r"^the backend 'triton' cannot be used here: it does not support dropout$"):
        attend(q, q, q, pairs, dropout=0.5, backend="triton")
    wide = torch.zeros(3, 1, 257, device=DEVICE)
    with pytest.raises(ValueError, match="cannot be used here: a head has 257 channels, it supports 256 at most"):
        attend(wide, wide, wide, pairs, backend="triton")
    assert host.triton_obstacle(Demand(device="meta")) == "it does not run on meta"
    monkeypatch.setattr(triton_kernels, "INTERPRETED", False)
    reason = host.triton_obstacle(Demand())
    assert reason == "on a CPU it needs TRITON_INTERPRET=1, set before triton is first imported"


WITHOUT = """
import sys
sys.modules["triton"] = None  # importing it raises, as if it were not installed
import torch
from gt.attention import attend
from gt.masks import Complete
from tests.graphs import random_batch
q = torch.zeros(3, 1, 4)
pairs = Complete()(random_batch((3,)))
assert attend(q, q, q, pairs).shape == q.shape
try:
    attend(q, q, q, pairs, backend="triton")
except ValueError as error:
    print(error)
"""

# The interpreter runs code that the compiler rejects, so kernels are also compiled, for a device that need not exist.
COMPILED = """
import re
import torch, triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.backends.nvidia.driver import CudaDriver
from triton.runtime import driver

class Absent(CudaDriver):
    def __init__(self): pass
    def get_current_target(self): return GPUTarget("cuda", 90, 32)
    def get_current_device(self): return 0
    def get_current_stream(self, device=0): return 0

driver.set_active(Absent())
from gt.attention import triton_kernels as kernels
from gt.attention.triton import _rows, _sizes

def check(dtype, channels, values, biased, apart):
    nodes, heads, count = 10, 2, 130
    q = _rows(torch.zeros(nodes, heads, channels, dtype=dtype))
    v = _rows(torch.zeros(nodes, heads, values, dtype=dtype))
    bias = torch.zeros(count, heads, dtype=dtype) if biased else None
    exact = dtype == torch.float64
    sums = torch.zeros(nodes, heads, dtype=torch.float64 if exact else torch.float32)
    index = torch.zeros(count, dtype=torch.long)
    given = (q, q, v, _rows(bias), torch.ones(count, heads, dtype=torch.bool) if apart else None)
    sizes = dict(HEADS=heads, ACC=tl.float64 if exact else tl.float32, **_sizes(channels, values, count, nodes))
    for kernel, rest in (
        (kernels.forward, (index, index, v, sums)),
        (kernels.backward_by_target, (index, index, v, sums, v, sums, q, bias)),
        (kernels.backward_by_source, (index, index, index, sums, v, sums, q, v)),
    ):
        ptx = kernel.warmup(*given, *rest, grid=(nodes * heads,), **sizes).asm["ptx"]
        assert ".entry" in ptx
        assert not re.search(r"\b(atom|red)\.", ptx)

check(torch.bfloat16, 24, 5, True, True)
check(torch.float64, 1, 1, False, False)
print("compiled")
"""


def run(code, **environment):
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"} | environment
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert not result.returncode, result.stderr
    return result.stdout.strip().splitlines()[-1]


def test_the_package_works_without_triton():
    assert run(WITHOUT) == "the backend 'triton' cannot be used here: triton is not installed"


def test_kernels_compile_for_a_gpu_and_add_nothing_atomically(tmp_path):
    assert run(COMPILED, TRITON_CACHE_DIR=str(tmp_path)) == "compiled"


def large(nodes, count, device):
    """One graph with random edges, one hub among the readers and another among the sources."""
    generator = torch.Generator().manual_seed(0)
    edges = torch.randint(nodes, (2, count), generator=generator)
    edges[1, : count // 20] = 3
    edges[0, count // 20 : count // 10] = 7
    keys = torch.unique(edges[1] * nodes + edges[0])
    index = torch.stack([keys % nodes, keys // nodes])
    return GraphBatch(ptr=torch.tensor([0, nodes]), edge_index=index, max_nodes=nodes).to(device)


@pytest.mark.gpu
@pytest.mark.skipif(DEVICE == "cpu", reason="needs a GPU")
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-4), (torch.bfloat16, 5e-2)]
)
def test_a_large_graph(dtype, tolerance):
    here, there = (Neighbours()(large(17_000, 222_000, device)) for device in ("cpu", DEVICE))
    tensors = [t.to(dtype).double() for t in inputs(here, 4, 16, bias="pairs")]
    actual = results([t.to(DEVICE) for t in tensors], there, "triton", dtype)
    again = results([t.to(DEVICE) for t in tensors], there, "triton", dtype)
    assert all(a.equal(b) for a, b in zip(actual, again, strict=True))
    for name, a, b in zip(("out", "q", "k", "v", "bias"), actual, results(tensors, here, "sparse"), strict=True):
        scale = max(1.0, b.abs().max().item() / math.sqrt(tensors[0].shape[2]))
        error = (a.double().cpu() - b).abs().max().item()
        assert error < tolerance * scale, f"{name}: {error}"
