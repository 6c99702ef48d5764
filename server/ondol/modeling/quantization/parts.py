"""One source tensor's share of a quantized matrix, and the slot that fills it.

The seam between formats and layers: a format says which checkpoint tensors make up a projection and how
they become codes and scales (`PartSource`); layers say where in which matrix that goes (`MatrixPart`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from ondol.kernels.quantized import QuantizedMatrix


@dataclass(frozen=True, slots=True)
class MatrixPart:
    """The rows of one source tensor in a matrix, or in one expert's matrix of a stack."""

    matrix: QuantizedMatrix
    index: int
    expert: int | None = None

    @property
    def source_shape(self) -> tuple[int, int]:
        """[rows, K] of the source tensor before quantization."""
        rows = self._rows()
        num_rows = self.matrix.shape[0] if len(self.matrix.part_rows) == 1 else rows.stop - rows.start
        return num_rows, self.matrix.shape[1]

    def codes(self) -> Tensor:
        """View of this part's codes."""
        return self._of(self.matrix.codes)[self._rows()]

    def scales(self) -> Tensor:
        """View of this part's scales [rows, num_groups]; only without nested scales."""
        assert self.matrix.scales is not None
        return self._of(self.matrix.scales)[self._rows()]

    def zeros(self) -> Tensor:
        """View of this part's zeros [rows, num_groups], int16."""
        assert self.matrix.zeros is not None
        return self._of(self.matrix.zeros)[self._rows()]

    def column_order(self) -> Tensor:
        """View of the column order [K], int64, which all parts of a matrix share."""
        assert self.matrix.column_order is not None
        return self._of(self.matrix.column_order)

    def set_nested_scales(self, codes: Tensor, absmax: Tensor, offset: Tensor, values: Tensor) -> None:
        """Store doubly quantized scales: codes [rows * num_groups], absmax per 256, offset, 256 values."""
        nested = self.matrix.nested
        assert nested is not None
        target = self._of(nested.codes)[self._rows()]
        target.copy_(codes.view(target.shape))
        start = sum(nested.num_blocks[: self.index])
        self._of(nested.absmax)[start : start + nested.num_blocks[self.index]].copy_(absmax)
        self._of(nested.offsets)[self.index].copy_(offset)
        nested.values.copy_(values)

    def _rows(self) -> slice:
        start = sum(self.matrix.part_rows[: self.index])
        return slice(start, start + self.matrix.part_rows[self.index])

    def _of(self, stacked: Tensor) -> Tensor:
        return stacked if self.expert is None else stacked[self.expert]


class PartSource(Protocol):
    """A format that projections come in."""

    def names(self, prefix: str) -> tuple[str, ...]:
        """The checkpoint tensors that make up the projection `prefix`, biases apart."""
        ...

    def fill(self, prefix: str, tensors: Mapping[str, Tensor], part: MatrixPart) -> None:
        """Turn them into codes and scales in `part`; raises BadTensor."""
        ...


@dataclass(frozen=True, slots=True)
class PartSlot:
    """Fills one part from its source."""

    prefix: str
    source: PartSource
    part: MatrixPart

    @property
    def names(self) -> tuple[str, ...]:
        """The tensors that the source needs."""
        return self.source.names(self.prefix)

    def fill(self, tensors: Mapping[str, Tensor]) -> None:
        """Hand them to the source; raises BadTensor."""
        self.source.fill(self.prefix, tensors, self.part)
