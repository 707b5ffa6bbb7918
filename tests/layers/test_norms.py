"""`RMSNorm` against PyTorch's in float32, and against its formula under autocast."""

import warnings

import pytest
import torch
from torch import nn

from gt.norms import RMSNorm


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("rows", [0, 1, 7])
def test_float32_matches_pytorch(rows, affine):
    torch.manual_seed(rows)
    norm, reference = (kind(12, eps=1e-5, elementwise_affine=affine) for kind in (RMSNorm, nn.RMSNorm))
    if affine:
        nn.init.normal_(norm.weight)
    reference.load_state_dict(norm.state_dict())
    x = torch.randn(rows, 12, requires_grad=True)
    outs = [module(x) for module in (norm, reference)]
    torch.testing.assert_close(*outs, rtol=0, atol=0)
    modules = zip(outs, (norm, reference), strict=True)
    grads = [torch.autograd.grad(out.sin().sum(), [x, *module.parameters()]) for out, module in modules]
    torch.testing.assert_close(*grads, rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_uses_the_fused_kernel(dtype):
    torch.manual_seed(0)
    norm, x = RMSNorm(12, eps=1e-5), torch.randn(7, 12).to(dtype)
    nn.init.normal_(norm.weight)
    with torch.autocast("cpu", dtype), warnings.catch_warnings():
        warnings.simplefilter("error")  # PyTorch warns if its fused implementation cannot be used
        out = norm(x)
        out.sum().backward()
    assert out.dtype == dtype
    assert norm.weight.grad.dtype == torch.float32
    exact = x.double() / (x.double().square().mean(1, keepdim=True) + 1e-5).sqrt() * norm.weight.double()
    torch.testing.assert_close(out.double(), exact, rtol=3 * torch.finfo(dtype).eps, atol=0)
