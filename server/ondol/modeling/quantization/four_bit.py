"""Four-bit codes of floating-point weights, bit for bit as bitsandbytes' operators choose them.

bitsandbytes searches the 15 bounds between values anew for each weight, which takes most of a load's
time; here a fine grid of cells narrows the search to one comparison. Knows nothing about files or layers.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

# So fine that no cell holds two of the bounds, which lie at least 0.0026 apart (FP4, around zero).
CELLS_PER_UNIT = 1024
# Weights quantized at once: what the caches of a processor hold together with all intermediates.
PIECE_WEIGHTS = 1 << 16
SMALLEST_SCALE = 1e-38


@dataclass(frozen=True, slots=True)
class CodeTable:
    """Codes of scaled weights in [-1, 1].

    Attributes:
        edges: [cells] float32, the bound inside each cell, infinity where there is none.
        codes: [2 * cells] uint8, for each cell the code up to its edge and the code beyond.
    """

    edges: Tensor
    codes: Tensor

    @classmethod
    def build(cls, values: Tensor) -> "CodeTable":
        """From the [16] float32 values of the codes; a code covers what is nearest to its value."""
        order = torch.argsort(values)
        bounds = (values[order[:-1]] + values[order[1:]]) / 2
        cells = _cells(bounds)
        num_cells = 2 * CELLS_PER_UNIT + 1
        edges = torch.full((num_cells,), torch.inf)
        edges[cells] = bounds
        num_below = torch.bincount(cells, minlength=num_cells).cumsum(0).roll(1)
        num_below[0] = 0
        ranks = torch.stack((num_below, (num_below + 1).clamp(max=len(values) - 1)), dim=1)
        return cls(edges, order[ranks].to(torch.uint8).flatten())

    def lookup(self, scaled: Tensor) -> Tensor:
        """Codes [n] uint8 of [n] float32 in [-1, 1].

        Exact: rounding is monotonic, so a weight beyond a bound never lands in a cell before the bound's.
        """
        cells = _cells(scaled)
        is_beyond = scaled > self.edges.index_select(0, cells)
        return self.codes.index_select(0, cells.mul_(2).add_(is_beyond))


def quantize_blocks(weights: Tensor, values: Tensor, block_size: int, packed: Tensor) -> Tensor:
    """Quantize whole blocks.

    Args:
        weights: [n] floating point, finite; n is a multiple of the even block size.
        values: [16] float32, the codes' values.
        block_size: weights that share a scale.
        packed: [n / 2] uint8, takes the codes, the even one in the high half.

    Returns:
        [n / block_size] float32: the largest magnitude of each block.
    """
    table = CodeTable.build(values)
    absmax = torch.empty(weights.numel() // block_size)
    for start in range(0, weights.numel(), PIECE_WEIGHTS):
        piece = weights[start : start + PIECE_WEIGHTS]
        blocks = piece.float().view(-1, block_size)
        largest = blocks.abs().amax(dim=-1)
        scaled = (blocks * (1.0 / largest.clamp(min=SMALLEST_SCALE))[:, None]).clamp_(-1, 1)
        pairs = table.lookup(scaled.view(-1)).view(-1, 2)
        packed[start // 2 : (start + piece.numel()) // 2].copy_((pairs[:, 0] << 4) | pairs[:, 1])
        absmax[start // block_size : (start + piece.numel()) // block_size].copy_(largest)
    return absmax


def _cells(scaled: Tensor) -> Tensor:
    return scaled.add(1.0).mul_(CELLS_PER_UNIT).to(torch.int32)
