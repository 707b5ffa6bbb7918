"""Dropout on a CPU: drop rate, scale of the kept elements, gradients, and independence of elements."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from gt import dropout as dropout_module
from gt.dropout import Dropout, dropout
from gt.native.library import obstacle, random_seed
from tests.native_numbers import random_numbers


@pytest.fixture(autouse=True, params=["by a kernel", "by bits"])
def implementation(request, monkeypatch):
    """Run each test with both implementations; without a compiler only with the second."""
    if request.param == "by bits":
        monkeypatch.setattr(dropout_module, "obstacle", lambda: "no kernels in this test")
    elif reason := obstacle():
        pytest.skip(reason)
    return request.param


def test_kernel_follows_the_reference_generator(implementation):
    if implementation == "by bits":
        pytest.skip("needs the kernel")
    x, chunk, p = torch.rand(4096 + 37).add(1), 4096, 0.3
    torch.manual_seed(6)
    seed = random_seed()
    torch.manual_seed(6)
    out = dropout(x, p)
    draws = torch.tensor(random_numbers(seed, 0, chunk) + random_numbers(seed, 1, len(x) - chunk))
    torch.testing.assert_close(out, torch.where(draws < round(p * 2**32), 0.0, x / (1 - p)))


def test_kernel_saves_no_tensors_and_ignores_thread_count(implementation):
    x, saved_tensors, threads, results = torch.rand(3, 40_001, requires_grad=True), [], torch.get_num_threads(), []
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            torch.manual_seed(7)
            with torch.autograd.graph.saved_tensors_hooks(lambda t: saved_tensors.append(t) or t, lambda t: t):
                out = dropout(x, 0.5)
            results += [(out, *torch.autograd.grad(out.sum(), x))]
    finally:
        torch.set_num_threads(threads)
    assert (saved_tensors == []) == (implementation == "by a kernel")
    for a, b in zip(*results, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("p", [0.1, 0.2, 0.5, 0.9])
def test_drop_rate_scale_and_independence(p):
    torch.manual_seed(0)
    x = torch.rand(401, 499) + 1
    out = dropout(x, p)
    kept = out != 0
    assert float(kept.float().mean()) == pytest.approx(1 - p, abs=5 * (p * (1 - p) / x.numel()) ** 0.5)
    torch.testing.assert_close(out[kept], x[kept] / (1 - p), rtol=2e-4, atol=0)
    # elements are dropped independently, across columns, rows and the four elements that share a random number
    centred = (kept.float() - kept.float().mean()).flatten()
    for lag in (1, 2, 3, 4, 5, 8, 499):
        assert abs(float((centred[lag:] * centred[:-lag]).mean())) < 5 * p * (1 - p) / len(centred) ** 0.5
    for lane in range(4):
        share = float(kept.flatten()[lane::4].float().mean())
        assert share == pytest.approx(1 - p, abs=10 * (p * (1 - p) / x.numel()) ** 0.5)


def test_drop_rate_over_the_whole_range():
    torch.manual_seed(1)
    shares = [float((dropout(torch.ones(2**18), p) == 0).float().mean()) for p in np.linspace(0.02, 0.98, 25)]
    np.testing.assert_allclose(shares, np.linspace(0.02, 0.98, 25), atol=0.005)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(), (0, 3), (1,), (5, 7), (3, 2, 2), (1, 1001)])
def test_gradients_reach_only_kept_elements(dtype, shape):
    torch.manual_seed(2)
    x = torch.rand(shape, dtype=dtype).add(1).requires_grad_()
    out = dropout(x, 0.3)
    assert out.dtype == dtype
    assert out.shape == x.shape
    out.sum().backward()
    torch.testing.assert_close(x.grad * x, out)
    assert ((x.grad != 0) == (out != 0)).all()


def test_second_derivatives_reach_only_kept_elements():
    x = torch.rand(50).add(1).requires_grad_()
    out = dropout(x, 0.5)
    results = []
    for output in (out, x * (out != 0) * 2):
        (grad,) = torch.autograd.grad((output**3).sum() + (x**2).sum(), x, create_graph=True)
        results.append((grad, *torch.autograd.grad((grad**2).sum(), x)))
    torch.testing.assert_close(*results, rtol=1e-3, atol=0)


def test_non_contiguous_input():
    x = torch.rand(6, 8).add(1).T.requires_grad_()
    out = dropout(x, 0.5)
    out.square().sum().backward()
    kept = out != 0
    torch.testing.assert_close(out[kept], 2 * x[kept])
    torch.testing.assert_close(x.grad, 2 * out * kept * 2)


def test_mask_follows_the_seed_and_differs_between_calls():
    x = torch.ones(1000)
    torch.manual_seed(3)
    first, second = dropout(x, 0.5), dropout(x, 0.5)
    torch.manual_seed(3)
    assert torch.equal(dropout(x, 0.5), first)
    assert not torch.equal(first, second)


@pytest.mark.parametrize("p", [0.0, 1.0])
def test_probabilities_zero_and_one(p):
    x = torch.rand(9, requires_grad=True)
    out = dropout(x, p)
    torch.testing.assert_close(out, x * (1 - p))
    (grad,) = torch.autograd.grad(out.sum(), x)
    torch.testing.assert_close(grad, torch.full_like(x, 1 - p))


def test_eval_is_identity_and_invalid_rates_are_rejected():
    x, layer = torch.rand(9), Dropout(0.7)
    assert torch.equal(layer.eval()(x), x)
    assert not torch.equal(layer.train()(x), x)
    for p in (-0.1, 1.1):
        with pytest.raises(ValueError, match="probability"):
            dropout(x, p)


def test_compiled_code_uses_pytorch_dropout(monkeypatch):
    calls = []
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    monkeypatch.setattr(F, "dropout", lambda x, *args: calls.append(args) or x)
    dropout(torch.rand(3), 0.5)
    assert calls == [(0.5, True)]
