"""compressed-tensors' packed integers: eight 4-bit or four 8-bit codes to a word, along K.

weight_packed int32 [N, K * bits / 32], weight_scale [N, groups], weight_shape [2]; where asymmetric,
weight_zero_point, packed along N or plain int8; weight_g_idx [K] if columns were sorted. Codes and zeros
are signed values plus 2^(bits - 1). Knows nothing about config.json.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ondol.kernels.quantized import QuantizedFormat
from ondol.modeling.checkpoint import Checkpoint
from ondol.modeling.quantization.checkpoint_layers import Storage, scale_dtype
from ondol.modeling.quantization.integers import (
    IntegerWeights,
    check_integers,
    midpoint,
    order_of_groups,
    unpack,
    words,
)
from ondol.modeling.quantization.parts import MatrixPart
from ondol.modeling.slots import BadTensor, check_shape, check_weights

INTEGERS = (torch.int64, torch.int32)


@dataclass(frozen=True, slots=True)
class PackedWeights:
    """A CheckpointFormat, but for `unused`.

    Attributes:
        bits: 4 or 8.
        group_size: columns that share a scale; None is one scale per row.
    """

    checkpoint: Checkpoint
    bits: int
    group_size: int | None
    has_zeros: bool

    def is_quantized(self, prefix: str) -> bool:
        """Whether the module has codes or scales."""
        names = self.checkpoint.names
        return f"{prefix}.weight_packed" in names or f"{prefix}.weight_scale" in names

    def names(self, prefix: str) -> tuple[str, ...]:
        """Codes, scales, shape; zeros and g_idx where they belong."""
        zeros = (f"{prefix}.weight_zero_point",) if self.has_zeros else ()
        group_name = f"{prefix}.weight_g_idx"
        groups = (group_name,) if group_name in self.checkpoint.names else ()
        return (
            f"{prefix}.weight_packed",
            f"{prefix}.weight_scale",
            f"{prefix}.weight_shape",
            *zeros,
            *groups,
        )

    def storage(self, prefix: str, num_out: int, num_in: int) -> Storage:
        """Reads g_idx."""
        del num_out
        name = f"{prefix}.weight_g_idx"
        order = None
        if name in self.checkpoint.names:
            order = self._order({name: self.checkpoint.tensor(name)}, name, num_in)
        fmt = QuantizedFormat(
            "int4" if self.bits == 4 else "int8",
            self.group_size,
            has_zeros=self.has_zeros,
            scale_dtype=scale_dtype(self.checkpoint, f"{prefix}.weight_scale"),
        )
        return Storage(fmt, column_order=Storage.order_key(order))

    def fill(self, prefix: str, tensors: Mapping[str, Tensor], part: MatrixPart) -> None:
        """Unpack, sort the columns by group, store; raises BadTensor."""
        num_out, num_in = part.source_shape
        shape_name, codes_name = f"{prefix}.weight_shape", f"{prefix}.weight_packed"
        scales_name, zeros_name = f"{prefix}.weight_scale", f"{prefix}.weight_zero_point"
        check_integers(shape_name, tensors[shape_name], (2,), INTEGERS)
        if tuple(tensors[shape_name].tolist()) != (num_out, num_in):
            raise BadTensor(
                shape_name, f"says {tensors[shape_name].tolist()}, the model needs {[num_out, num_in]}"
            )
        packed, scales = tensors[codes_name], tensors[scales_name]
        check_integers(codes_name, packed, (num_out, words(num_in, self.bits)))
        check_weights(scales_name, scales, (num_out, part.matrix.fmt.num_groups(num_in)))
        zeros = self._zeros(zeros_name, tensors[zeros_name], scales) if self.has_zeros else None
        IntegerWeights(
            bits=self.bits,
            codes=unpack(packed, self.bits)[:, :num_in],
            scales=scales,
            zeros=zeros,
            column_order=self._order(tensors, f"{prefix}.weight_g_idx", num_in),
        ).store(part)

    def _zeros(self, name: str, zeros: Tensor, scales: Tensor) -> Tensor:
        """[rows, num_groups] int16, in the range of the unsigned codes."""
        num_out, num_groups = scales.shape
        if zeros.dtype is torch.int32:
            check_integers(name, zeros, (words(num_out, self.bits), num_groups))
            return unpack(zeros.T, self.bits)[:, :num_out].T.to(torch.int16)
        check_shape(name, zeros, (num_out, num_groups))
        middle = midpoint(self.bits)
        if zeros.is_floating_point() or int(zeros.min()) < -middle or int(zeros.max()) >= middle:
            raise BadTensor(name, f"holds zero points that are no {self.bits}-bit integers")
        return zeros.to(torch.int16) + middle

    def _order(self, tensors: Mapping[str, Tensor], name: str, num_in: int) -> Tensor | None:
        if name not in tensors or bool((tensors[name] == -1).all()):  # -1: columns were never sorted
            return None
        return order_of_groups(name, tensors[name], num_in, self.group_size)
