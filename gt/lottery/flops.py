"""Count the floating-point operations of a step."""

from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode, mm_flop, sdpa_backward_flop_count, sdpa_flop_count

from gt.lottery.timing import Step
from gt.native.library import OPERATIONS


def matrix_flops(step: Step) -> int:
    """Run a step once and count the operations of its matrix products; sparse ones count by their entries."""
    before = OPERATIONS.total()
    with FlopCounterMode(display=False, custom_mapping=FLOP_FORMULAS) as counter:
        step()
    return counter.get_total_flops() + OPERATIONS.total() - before


def _matmul(a: Tensor, b: Tensor, *_: Any, **__: Any) -> int:
    """``a @ b``; PyTorch's counter treats sparse matrices as dense."""
    if a.layout is torch.sparse_csr:
        return 2 * a.values().numel() * b.shape[1]
    return mm_flop(a.shape, b.shape)


def _addmm(_: Tensor, a: Tensor, b: Tensor, *__: Any, **___: Any) -> int:
    """``c + a @ b``."""
    return _matmul(a, b)


def _sampled_matmul(sample: Tensor, a: Tensor, *_: Any, **__: Any) -> int:
    """The entries of ``a @ b`` at the sparsity pattern of ``sample``."""
    return 2 * sample.values().numel() * a.shape[1]


def _embedding_bag(rows: Tensor, index: Tensor, *others: Any, **_: Any) -> int:
    """Weighted segment sums are a product with a sparse matrix; unweighted ones are no products."""
    weighted = len(others) > WEIGHTS and others[WEIGHTS] is not None
    return 2 * index.numel() * rows.shape[1] if weighted else 0


def _sdpa(query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> int:
    """The two products of PyTorch's fused CPU attention, which its own counter lacks."""
    return sdpa_flop_count(query.shape, key.shape, value.shape)


def _sdpa_backward(grad: Tensor, query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> int:
    """The five products of its backward pass, including the recomputed scores."""
    return sdpa_backward_flop_count(grad.shape, query.shape, key.shape, value.shape)


WEIGHTS = 4  # position of an embedding bag's weights among its arguments after rows and index
aten = torch.ops.aten
FLOP_FORMULAS: dict[Any, Any] = {
    aten.mm: _matmul,
    aten.addmm: _addmm,
    aten.sparse_sampled_addmm: _sampled_matmul,
    aten._scaled_dot_product_flash_attention_for_cpu: _sdpa,
    aten._scaled_dot_product_flash_attention_for_cpu_backward: _sdpa_backward,
    aten._embedding_bag: _embedding_bag,
    aten._embedding_bag_forward_only: _embedding_bag,
}
for _function in FLOP_FORMULAS.values():
    _function._get_raw = True  # pass tensors rather than their shapes
