"""Matrix products on the CPU whose rows do not depend on each other: rows go through in tiles of tried sizes.

A library chooses how it sums by the number of rows: measured on MKL 2024.2, a row's last bits differ between
one row, a few and many, and with two threads between 64 and 128 too. In a call of one shape the order of sums
is the same each time; so rows are cut into tiles of few sizes, the last one filled up with zeros, and a size
is used only if it was seen to sum as the base size does, at every place of the tile. Knows nothing about
layers. Invariant: which sizes are used depends on the shapes and the machine alone, never on the rows.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

# The base: large enough that prompts are not slow, small enough that one row is not either.
BASE_ROWS = 16
SIZES = (2, 4, 16, 64)
# A row by itself is always computed alike: what is left where no place of the base is like the others.
SINGLE = (1,)
# Results that are compared, at least: that many do not agree by chance where the order of sums differs.
NUM_COMPARED = 256

# Where a matrix begins in memory counts up to this: a library may sum otherwise from the middle of a vector.
ALIGNMENT_BYTES = 64

MatrixKey = tuple[torch.Size, tuple[int, ...], torch.dtype, int]


class RowTiles:
    """Multiplies rows by matrices; remembers what it found out about each shape of matrix."""

    def __init__(self) -> None:
        self._sizes: dict[MatrixKey, tuple[int, ...]] = {}

    def multiply(self, rows: Tensor, matrix: Tensor) -> Tensor:
        """rows [.., n, K] times the matrix [.., K, N] of the same dtype: [.., n, N]."""
        sizes = self._sizes_for(matrix)
        products = [_multiply_padded(piece, matrix, sizes) for piece in torch.split(rows, sizes[-1], dim=-2)]
        return products[0] if len(products) == 1 else torch.cat(products, dim=-2)

    def _sizes_for(self, matrix: Tensor) -> tuple[int, ...]:
        key = (matrix.shape, matrix.stride(), matrix.dtype, matrix.data_ptr() % ALIGNMENT_BYTES)
        if key not in self._sizes:
            self._sizes[key] = find_sizes(matrix)
        return self._sizes[key]


def find_sizes(matrix: Tensor) -> tuple[int, ...]:
    """Numbers of rows, ascending, for which a row's product has the same bits at any place.

    Args:
        matrix: [.., K, N]; how it lies in memory counts, what it holds does not.
    """
    generator = torch.Generator().manual_seed(0)
    probed = matrix
    if 2 * int(matrix.count_nonzero()) < matrix.numel():
        # Zeros sum to the same in every order.
        probed = torch.empty_strided(matrix.shape, matrix.stride(), dtype=matrix.dtype)
        probed.copy_(torch.randn(matrix.shape, generator=generator))
    num_results = probed.numel() // probed.shape[-2]
    num_probes = -(-NUM_COMPARED // num_results)
    row = torch.randn((*probed.shape[:-2], num_probes, probed.shape[-2]), generator=generator)
    probes = [probe.to(probed.dtype) for probe in torch.split(row, 1, dim=-2)]
    expected = [_repeated(probe, BASE_ROWS, probed)[..., :1, :] for probe in probes]

    def agrees(size: int) -> bool:
        return all(
            bool((_repeated(probe, size, probed) == known).all())
            for probe, known in zip(probes, expected, strict=True)
        )

    return tuple(filter(agrees, SIZES)) if agrees(BASE_ROWS) else SINGLE


def _repeated(row: Tensor, size: int, matrix: Tensor) -> Tensor:
    return torch.matmul(row.repeat_interleave(size, dim=-2), matrix)


def _multiply_padded(rows: Tensor, matrix: Tensor, sizes: tuple[int, ...]) -> Tensor:
    num_rows = rows.shape[-2]
    size = next(size for size in sizes if size >= num_rows)
    # A copy even where nothing is to be filled up: where a tensor begins in memory may change the sums too.
    tile = F.pad(rows, (0, 0, 0, size - num_rows)) if size > num_rows else rows.clone()
    return torch.matmul(tile.contiguous(), matrix)[..., :num_rows, :]
