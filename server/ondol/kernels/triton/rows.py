"""Which rows a program multiplies, and by whose weights: rows in their order, or pairs of row and expert.

Knows nothing about weights. Invariant: a program takes tiles of 16 rows, one or two; how many there are
decides how often weights are read, never how a row is summed.
"""

from dataclasses import dataclass

import triton
import triton.language as tl
from torch import Tensor

TILE_ROWS = 16
# Four spill registers: 64 rows are two programs, at as many instructions and twice the occupancy.
MAX_ROW_TILES = 2

_TILE_ROWS = tl.constexpr(TILE_ROWS)


@dataclass(frozen=True, slots=True)
class Rows:
    """Which rows each program multiplies, and by which expert's weights.

    Without `experts`: rows in their order, by the only matrix. With `experts` alone: each (row, slot) pair by
    itself. With `tiles`: pairs in the order of their experts.

    Attributes:
        num_tiles: programs along the rows.
        row_tiles: how many tiles of 16 rows a program takes.
        experts: [num_pairs] expert of every pair, int64.
        pairs: [num_pairs] pair numbers by expert, int32.
        tiles: [num_tiles, 3] int32: expert (-1 for none), its first place in `pairs`, how many.
        top_k: pairs per row; pair p reads row p // top_k.
    """

    num_tiles: int
    row_tiles: int
    experts: Tensor | None = None
    pairs: Tensor | None = None
    tiles: Tensor | None = None
    top_k: int = 1

    @classmethod
    def contiguous(cls, num_rows: int) -> "Rows":
        """All rows by one matrix."""
        row_tiles = row_tiles_for(num_rows)
        return cls(triton.cdiv(num_rows, row_tiles * TILE_ROWS), row_tiles)


def row_tiles_for(num_rows: int) -> int:
    """Tiles of 16 rows that a program takes so that weights are decoded as seldom as possible: 1 or 2."""
    return min(-(-num_rows // TILE_ROWS), MAX_ROW_TILES)


@triton.jit
def routed(experts, tiles, num_rows, ROW_TILES: tl.constexpr):
    """This program's expert, its first place and how many places are left from there; int64."""
    index = tl.program_id(0).to(tl.int64)
    if tiles is not None:
        entry = tiles + index * 3
        expert = tl.load(entry).to(tl.int64)
        first = tl.load(entry + 1).to(tl.int64)
        count = tl.load(entry + 2).to(tl.int64)
    elif experts is not None:
        expert = tl.load(experts + index)
        first = index
        count = index * 0 + 1
    else:
        expert = index * 0
        first = index * ROW_TILES * _TILE_ROWS
        count = num_rows - first
    return expert, first, count


@triton.jit
def places(pairs, first, count, ROW_TILES: tl.constexpr):
    """Row or pair numbers of each tile of 16, and which of them exist."""
    numbers = ()
    are_rows = ()
    for tile in tl.static_range(ROW_TILES):
        place = tile * _TILE_ROWS + tl.arange(0, _TILE_ROWS)
        is_row = place < count
        number = first + place
        if pairs is not None:
            number = tl.load(pairs + number, mask=is_row, other=0).to(tl.int64)
        numbers = numbers + (number,)  # type: ignore[assignment]
        are_rows = are_rows + (is_row,)  # type: ignore[assignment]
    return numbers, are_rows
