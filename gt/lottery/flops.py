"""What a step computes, counted."""

from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode, mm_flop, sdpa_backward_flop_count, sdpa_flop_count

from gt.lottery.timing import Step
from gt.native.library import OPERATIONS


def matrix_flops(step: Step) -> int:
    """Floating point operations of the matrix products of a step, which runs once; of sparse ones, of their entries."""
    before = OPERATIONS.total()
    with FlopCounterMode(display=False, custom_mapping=PRODUCTS) as counter:
        step()
    return counter.get_total_flops() + OPERATIONS.total() - before


def _product(a: Tensor, b: Tensor, *_: Any, **__: Any) -> int:
    """``a @ b``, which PyTorch counts as if no entry of a sparse matrix were 0."""
    if a.layout is torch.sparse_csr:
        return 2 * a.values().numel() * b.shape[1]
    return mm_flop(a.shape, b.shape)


def _sum(_: Tensor, a: Tensor, b: Tensor, *__: Any, **___: Any) -> int:
    """A matrix and ``a @ b``."""
    return _product(a, b)


def _sampled(sample: Tensor, a: Tensor, *_: Any, **__: Any) -> int:
    """The entries of a product that ``sample`` has."""
    return 2 * sample.values().numel() * a.shape[1]


def _weighted_runs(rows: Tensor, index: Tensor, *others: Any, **_: Any) -> int:
    """Sums of rows that have weights are the product with a sparse matrix; those without are no products."""
    weighted = len(others) > WEIGHTS and others[WEIGHTS] is not None
    return 2 * index.numel() * rows.shape[1] if weighted else 0


def _attention(query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> int:
    """Both products of PyTorch's fused attention on a CPU, which its own counter does not know."""
    return sdpa_flop_count(query.shape, key.shape, value.shape)


def _attention_backward(grad: Tensor, query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> int:
    """The five products of its backward pass, scores that are worked out again among them."""
    return sdpa_backward_flop_count(grad.shape, query.shape, key.shape, value.shape)


WEIGHTS = 4  # which argument of an embedding bag after rows and index its weights are
aten = torch.ops.aten
PRODUCTS: dict[Any, Any] = {
    aten.mm: _product,
    aten.addmm: _sum,
    aten.sparse_sampled_addmm: _sampled,
    aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
    aten._embedding_bag: _weighted_runs,
    aten._embedding_bag_forward_only: _weighted_runs,
}
for _function in PRODUCTS.values():
    _function._get_raw = True  # tensors rather than their shapes
