"""Hidden states times plain weights, for the mode in which a row's bits do not depend on other rows.

Elsewhere the vendor's library multiplies, which chooses shapes and splits of its sums by the number of rows.
Knows nothing about layers.

Invariant: a row's result has the same bits whatever other rows there are. There is one program for any number
of rows: 64 of them at a time, absent ones as zeros, blocks of K one after the other into one sum. Its shape
depends on the matrix and the dtype alone. One row costs the products of 64, which should take Hopper's tensor
cores less time than the weights take to arrive; many rows read the weights more often than they would in
larger tiles.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from ondol.kernels.triton.weights import dot_dtype

# What one group of four warps multiplies at once on Hopper.
TILE_ROWS = 64
# Bytes of K that a block takes of each row: one line of what Hopper copies and swizzles.
BLOCK_BYTES = 128
# Columns of a program; with few there must be more programs to fill a GPU.
FEW_COLUMNS, FEW_BLOCK, MANY_BLOCK = 8192, 32, 64


def linear(hidden: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """As `operators.linear`; `weight` [N, K] is contiguous."""
    assert weight.is_contiguous(), "rows lie one after the other"
    rows = hidden.reshape(-1, hidden.shape[-1]).contiguous()
    num_rows, (num_out, num_in) = len(rows), weight.shape
    out = torch.empty((num_rows, num_out), dtype=hidden.dtype, device=hidden.device)
    block_n = FEW_BLOCK if num_out <= FEW_COLUMNS else MANY_BLOCK
    if num_rows:
        _linear_kernel[(triton.cdiv(num_rows, TILE_ROWS), triton.cdiv(num_out, block_n))](
            rows, weight, bias, out, num_rows, NUM_OUT=num_out, NUM_IN=num_in, DOT=dot_dtype(hidden.dtype),
            BLOCK_M=TILE_ROWS, BLOCK_N=block_n, BLOCK_K=BLOCK_BYTES // hidden.itemsize,
            num_warps=4, num_stages=4 if hidden.itemsize == 2 else 3,
        )  # fmt: skip
    return out.view(*hidden.shape[:-1], num_out)


@triton.jit(do_not_specialize=["num_rows"])
def _linear_kernel(
    hidden, weight, bias, out, num_rows,
    NUM_OUT: tl.constexpr, NUM_IN: tl.constexpr, DOT: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    # Programs of the same columns run side by side, so that weights come from memory once.
    row = tl.program_id(0).to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    column = tl.program_id(1).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    is_row, is_column = row < num_rows, column < NUM_OUT
    total = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for start in range(0, NUM_IN, BLOCK_K):
        k = start + tl.arange(0, BLOCK_K)
        is_k = (k < NUM_IN)[None, :]
        inputs = tl.load(hidden + row[:, None] * NUM_IN + k[None, :], mask=is_row[:, None] & is_k, other=0.0)
        weights = tl.load(
            weight + column[:, None] * NUM_IN + k[None, :], mask=is_column[:, None] & is_k, other=0.0
        )
        total = tl.dot(inputs.to(DOT), tl.trans(weights.to(DOT)), total, input_precision="tf32x3")
    if bias is not None:
        total += tl.load(bias + column, mask=is_column, other=0.0).to(tl.float32)[None, :]
    target = out + row[:, None] * NUM_OUT + column[None, :]
    tl.store(target, total.to(out.dtype.element_ty), mask=is_row[:, None] & is_column[None, :])
