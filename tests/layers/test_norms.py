"""Normalisation of rows by their root mean square, in the precisions of a run."""

import warnings

import pytest
import torch
from torch import nn

from gt.norms import RMSNorm


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("rows", [0, 1, 7])
def test_in_32_bits_it_is_that_of_pytorch(rows, affine):
    torch.manual_seed(rows)
    own, other = (kind(12, eps=1e-5, elementwise_affine=affine) for kind in (RMSNorm, nn.RMSNorm))
    if affine:
        nn.init.normal_(own.weight)
    other.load_state_dict(own.state_dict())
    x = torch.randn(rows, 12, requires_grad=True)
    outs = [norm(x) for norm in (own, other)]
    torch.testing.assert_close(*outs, rtol=0, atol=0)
    norms = zip(outs, (own, other), strict=True)
    grads = [torch.autograd.grad(out.sin().sum(), [x, *norm.parameters()]) for out, norm in norms]
    torch.testing.assert_close(*grads, rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_under_autocast_it_is_one_kernel(dtype):
    torch.manual_seed(0)
    norm, x = RMSNorm(12, eps=1e-5), torch.randn(7, 12).to(dtype)
    nn.init.normal_(norm.weight)
    with torch.autocast("cpu", dtype), warnings.catch_warnings():
        warnings.simplefilter("error")  # PyTorch warns where its fused implementation cannot be taken
        out = norm(x)
        out.sum().backward()
    assert out.dtype == dtype
    assert norm.weight.grad.dtype == torch.float32
    exact = x.double() / (x.double().square().mean(1, keepdim=True) + 1e-5).sqrt() * norm.weight.double()
    torch.testing.assert_close(out.double(), exact, rtol=3 * torch.finfo(dtype).eps, atol=0)
