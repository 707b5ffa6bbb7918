"""`gt.linear` with its C kernel: values and gradients against PyTorch, and the cases left to PyTorch."""

import copy

import pytest
import torch
from torch import nn

import gt.linear
from gt.linear import Linear, linear
from gt.lottery.flops import matrix_flops
from gt.native.library import obstacle

ROWS = [0, 1, 7, 8, 9, 33, 511, 512, 513, 1000, 1537]


@pytest.fixture
def calls(monkeypatch):
    """Use the kernel for products of any size, and record the shapes that it multiplies."""
    if reason := obstacle():
        pytest.skip(reason)
    shapes, matmul, outer = [], gt.linear._matmul, gt.linear._outer
    monkeypatch.setattr(gt.linear, "mkl_is_slow", lambda: True)
    for minimum in ("MIN_MULTIPLICATIONS", "MIN_COLUMNS"):
        monkeypatch.setattr(gt.linear, minimum, 0)
    monkeypatch.setattr(gt.linear, "_matmul", lambda x, *a, **k: shapes.append(x.shape) or matmul(x, *a, **k))
    monkeypatch.setattr(gt.linear, "_outer", lambda x, y: shapes.append(x.T.shape) or outer(x, y))
    return shapes


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize(
    ("width", "out", "bias"), [(64, 64, True), (7, 130, False), (130, 7, True), (1, 1, True), (96, 40, True)]
)
def test_values_and_gradients_match_pytorch(calls, rows, width, out, bias):
    torch.manual_seed(rows)
    layer, reference = Linear(width, out, bias), nn.Linear(width, out, bias, dtype=torch.float64)
    reference.load_state_dict(layer.state_dict())
    x, grad = torch.randn(rows, width, requires_grad=True), torch.randn(rows, out)
    exact = x.detach().double().requires_grad_()
    actual, expected = layer(x), reference(exact)
    torch.testing.assert_close(actual, expected.float(), rtol=1e-5, atol=1e-5)
    actual.backward(grad)
    expected.backward(grad.double())
    pairs = zip([x, *layer.parameters()], [exact, *reference.parameters()], strict=True)
    for actual, expected in pairs:
        torch.testing.assert_close(actual.grad, expected.grad.float(), rtol=1e-5, atol=1e-5 * max(1, rows) ** 0.5)
    assert len(calls) == 3


def test_strided_inputs_and_expanded_gradients(calls):
    torch.manual_seed(0)
    layer, storage = Linear(16, 24), torch.randn(100, 40, requires_grad=True)
    for rows in (storage[:, 3:19], storage[::3, :16], storage.T[:, :16]):
        x, exact = rows, rows.detach().double().requires_grad_()
        (actual,) = torch.autograd.grad(layer(x).sum(), storage, retain_graph=True)
        layer.double()(exact).sum().backward()
        layer.float()
        (expected,) = torch.autograd.grad(rows, storage, exact.grad.float())
        torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)
    assert calls


def test_strided_bias(calls):
    x, weight, bias = torch.randn(100, 16), torch.randn(24, 16), torch.randn(24, 2)
    for strided in (bias[:, 0], bias[:1, 0].expand(24)):
        torch.testing.assert_close(linear(x, weight, strided), nn.functional.linear(x, weight, strided))
    assert calls


def test_only_required_gradients_are_computed(calls):
    layer = Linear(8, 8)
    layer.weight.requires_grad_(False)
    x = torch.randn(64, 8)
    layer(x).sum().backward()
    assert len(calls) == 1
    torch.testing.assert_close(layer.bias.grad, torch.full((8,), 64.0))


def test_second_derivatives(calls):
    torch.manual_seed(3)
    x, weight = torch.randn(70, 5, requires_grad=True), torch.randn(4, 5, requires_grad=True)

    def penalty(apply):
        (grad,) = torch.autograd.grad(apply(x, weight).square().sum(), x, create_graph=True)
        return torch.autograd.grad(grad.square().sum(), (x, weight))

    for actual, expected in zip(penalty(linear), penalty(nn.functional.linear), strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-3)
    assert calls


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_dtypes_are_left_to_pytorch(calls, dtype):
    layer = Linear(64, 64, dtype=dtype)
    assert layer(torch.randn(64, 64, dtype=dtype)).dtype == dtype
    assert not calls


def test_autocast_is_left_to_pytorch(calls):
    with torch.autocast("cpu", torch.bfloat16):
        assert Linear(64, 64)(torch.randn(64, 64)).dtype == torch.bfloat16
    assert not calls


def test_small_narrow_and_batched_products_are_left_to_pytorch(calls, monkeypatch):
    assert Linear(8, 8)(torch.randn(4, 64, 8)).shape == (4, 64, 8)
    monkeypatch.setattr(gt.linear, "MIN_MULTIPLICATIONS", 96 * 8 * 8)
    Linear(8, 8)(torch.randn(95, 8))
    monkeypatch.setattr(gt.linear, "MIN_COLUMNS", 9)
    for shape in ((8, 20), (20, 8)):
        Linear(*shape)(torch.randn(96, shape[0]))
    assert not calls
    Linear(9, 9)(torch.randn(96, 9))
    assert len(calls) == 1


def test_thread_count_does_not_change_results(calls):
    layer, x, threads, results = Linear(64, 72), torch.randn(1100, 64, requires_grad=True), torch.get_num_threads(), []
    try:
        for count in (1, 2, 5):
            torch.set_num_threads(count)
            out = layer(x)
            results.append((out, *torch.autograd.grad(out.square().sum(), [x, layer.weight])))
    finally:
        torch.set_num_threads(threads)
    for result in results[1:]:
        for a, b in zip(result, results[0], strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=0)
    assert calls


def test_long_sums_stay_accurate(calls):
    torch.manual_seed(0)
    layer, x, grad = Linear(32, 8, bias=False), torch.rand(100_000, 32), torch.rand(100_000, 8)
    (actual,) = torch.autograd.grad(layer(x), layer.weight, grad)
    torch.testing.assert_close(actual, (grad.double().T @ x.double()).float(), rtol=2e-6, atol=0)
    assert calls


def test_func_transforms_and_tracing_are_left_to_pytorch(calls):
    layer, x = Linear(8, 8), torch.randn(64, 8)
    (expected,) = torch.autograd.grad(nn.functional.linear(x, layer.weight, layer.bias).square().sum(), layer.weight)
    grad = torch.func.grad(lambda weight: linear(x, weight, layer.bias).square().sum())(layer.weight)
    torch.testing.assert_close(grad, expected)
    rows = torch.vmap(lambda each: linear(each, layer.weight, layer.bias))(x.view(2, 32, 8))
    torch.testing.assert_close(rows.view(64, 8), layer(x))
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(x, x)
        assert torch.autograd.forward_ad.unpack_dual(layer(dual)).tangent.shape == (64, 8)
    calls.clear()
    traced = torch.jit.trace(layer, x, check_trace=False)
    torch.testing.assert_close(traced(x[:40]), nn.functional.linear(x[:40], layer.weight, layer.bias))
    assert not calls


def test_compiler_sees_pytorchs_linear(calls):
    layer, x, targets = Linear(8, 8), torch.randn(64, 8), []

    def backend(graph, _):
        targets.extend(str(node.target) for node in graph.graph.nodes)
        return graph.forward

    torch.testing.assert_close(torch.compile(layer, backend=backend, fullgraph=True)(x), layer(x))
    assert any("linear" in name for name in targets)
    assert not any("autograd" in name for name in targets)


def test_shape_mismatch_raises_pytorchs_error(calls):
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        Linear(8, 8)(torch.randn(64, 9))
    assert not calls


def test_state_dict_and_initialisation_match_pytorch(calls):
    layer = copy.deepcopy(Linear(64, 32))
    assert list(layer.state_dict()) == ["weight", "bias"]
    torch.manual_seed(5)
    weight = Linear(3, 4).weight
    torch.manual_seed(5)
    torch.testing.assert_close(nn.Linear(3, 4).weight, weight, rtol=0, atol=0)


def test_products_of_the_kernel_count_as_flops(calls):
    layer, x = Linear(32, 24), torch.randn(96, 32, requires_grad=True)
    assert matrix_flops(lambda: layer(x)) == 2 * 96 * 32 * 24
    assert matrix_flops(lambda: layer(x).sum().backward()) == 3 * 2 * 96 * 32 * 24
    assert len(calls) == 4


@pytest.mark.parametrize(
    ("cpuinfo", "capability", "slow"),
    [
        ("vendor_id\t: AuthenticAMD\ncpu family\t: 26\n", "AVX512", True),
        ("vendor_id\t: AuthenticAMD\ncpu family\t: 25\n", "AVX512", False),
        ("vendor_id\t: AuthenticAMD\ncpu family\t: 26\n", "AVX2", False),
        ("vendor_id\t: GenuineIntel\ncpu family\t: 6\n", "AVX512", False),
        ("vendor_id\t: GenuineIntel\ncpu family\t: 26\n", "AVX512", False),
        ("", "AVX512", False),
        (None, "AVX512", False),
    ],
)
def test_mkl_is_slow_on_amd_with_avx512(monkeypatch, tmp_path, cpuinfo, capability, slow):
    path = tmp_path / "cpuinfo"
    if cpuinfo is not None:
        path.write_text(cpuinfo)
    monkeypatch.setattr(gt.linear, "CPUINFO", path)
    monkeypatch.setattr("torch.backends.cpu.get_cpu_capability", lambda: capability)
    assert gt.linear.mkl_is_slow.__wrapped__() == slow
