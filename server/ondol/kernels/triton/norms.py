"""Root-mean-square norms, alone and with the residual's addition before: one row per program.

Knows nothing about layers. Invariant: rounds where the torch reference rounds, so that only the order of the
sum of squares differs.
"""

import triton
import triton.language as tl
from torch import Tensor, empty_like

# Up to this width a row keeps 4 warps busy; the number may depend on the width, which a model fixes.
WIDE_ROW = 4096


def rms_norm(hidden: Tensor, weight: Tensor, eps: float) -> Tensor:
    """As `operators.rms_norm`; `hidden` [T, H] is contiguous."""
    normed = empty_like(hidden)
    _launch(hidden, hidden, weight, normed, eps, has_branch=False)
    return normed


def add_rms_norm(branch: Tensor, residual: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """As `operators.add_rms_norm`, in place: the norm replaces `branch`, the sum `residual`."""
    _launch(branch, residual, weight, branch, eps, has_branch=True)
    return branch, residual


def _launch(
    branch: Tensor, residual: Tensor, weight: Tensor, normed: Tensor, eps: float, *, has_branch: bool
) -> None:
    assert all(tensor.is_contiguous() for tensor in (branch, residual)), "rows lie one after the other"
    num_rows, width = residual.shape
    if num_rows:
        block = triton.next_power_of_2(width)
        num_warps = 4 if width <= WIDE_ROW else 8
        _norm_kernel[(num_rows,)](
            branch, residual, weight, normed, width, eps, has_branch, block, num_warps=num_warps
        )


@triton.jit
def _norm_kernel(
    branch: tl.tensor,
    residual: tl.tensor,
    weight: tl.tensor,
    normed: tl.tensor,
    width: int,
    eps: float,
    HAS_BRANCH: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    columns = tl.arange(0, BLOCK)
    inside = columns < width
    offsets = tl.program_id(0).to(tl.int64) * width + columns
    total = tl.load(residual + offsets, mask=inside, other=0.0)
    dtype = total.dtype
    if HAS_BRANCH:
        added = total.to(tl.float32) + tl.load(branch + offsets, mask=inside, other=0.0).to(tl.float32)
        total = added.to(dtype)
        tl.store(residual + offsets, total, mask=inside)
    wide = total.to(tl.float32)
    scale = tl.rsqrt(tl.sum(wide * wide, axis=0) / width + eps)
    rounded = (wide * scale).to(dtype).to(tl.float32)
    weights = tl.load(weight + columns, mask=inside, other=0.0).to(tl.float32)
    tl.store(normed + offsets, (rounded * weights).to(dtype), mask=inside)
