"""Tables for a terminal, aligned by the width that characters really take.

Knows nothing about what stands in the cells. Invariant: a Hangul syllable counts as two columns.
"""

from collections.abc import Sequence

from wcwidth import wcswidth

COLUMN_GAP = "  "


def table(headers: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> str:
    """The lines of a table, without a trailing newline; columns whose index is in `right` align right."""
    lines = [headers, *rows]
    widths = [max(_width(cells[column]) for cells in lines) for column in range(len(headers))]
    return "\n".join(
        COLUMN_GAP.join(
            _padded(cell, width, is_right=column in right)
            for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ).rstrip()
        for cells in lines
    )


def _padded(cell: str, width: int, *, is_right: bool) -> str:
    padding = " " * (width - _width(cell))
    return padding + cell if is_right else cell + padding


def _width(cell: str) -> int:
    width: int = wcswidth(cell)
    return width if width >= 0 else len(cell)  # control characters have no width
