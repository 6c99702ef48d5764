"""Checkpoints in GPTQ's format: 4 and 8 bit, groups along K, columns in any order (desc_act).

qweight int32 [K * bits / 32, N], qzeros int32 [groups, N * bits / 32], scales [groups, N], g_idx [K].
Zero points are stored minus one, except in version 2 of the format. Knows nothing about layers.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ondol.kernels.quantized import QuantizedFormat
from ondol.modeling.checkpoint import Checkpoint
from ondol.modeling.quantization.checkpoint_layers import Storage, scale_dtype
from ondol.modeling.quantization.integers import (
    IntegerWeights,
    check_integers,
    check_symmetric,
    order_of_groups,
    unpack,
    words,
)
from ondol.modeling.quantization.options import Options
from ondol.modeling.quantization.parts import MatrixPart
from ondol.modeling.slots import check_weights

SUFFIXES = ("qweight", "qzeros", "scales")


@dataclass(frozen=True, slots=True)
class GPTQSettings:
    """The part of quantization_config that says how weights are stored."""

    bits: int
    group_size: int | None
    is_symmetric: bool
    zero_offset: int

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user should know."""
        return ()

    @classmethod
    def from_config(cls, raw: Mapping[str, Any]) -> "GPTQSettings":
        """Parse; raises ModelRefused for what is not supported."""
        options = Options("gptq", raw)
        options.must_be_absent("is_marlin_format")
        options.one_of("pack_dtype", ("int32",), "int32")
        skips = options.get("dynamic") or {}
        if not isinstance(skips, dict) or not all(str(pattern).startswith("-:") for pattern in skips):
            raise options.refused("dynamic", "every module must be stored alike")
        version = options.one_of("format", ("gptq", "gptq_v2"), "gptq")
        version = options.one_of("checkpoint_format", ("gptq", "gptq_v2"), version)
        return cls(
            bits=options.one_of("bits", (4, 8), 4),
            group_size=options.group_size(default=128),
            is_symmetric=options.one_of("sym", (True, False), True),
            zero_offset=0 if version == "gptq_v2" else 1,
        )

    def open(self, checkpoint: Checkpoint) -> "GPTQCheckpoint":
        """The format over a checkpoint."""
        return GPTQCheckpoint(self, checkpoint)


@dataclass(frozen=True, slots=True)
class GPTQCheckpoint:
    """A CheckpointFormat."""

    settings: GPTQSettings
    checkpoint: Checkpoint

    def is_quantized(self, prefix: str) -> bool:
        """Whether any of the module's quantized tensors is there."""
        return any(f"{prefix}.{suffix}" in self.checkpoint.names for suffix in SUFFIXES)

    def names(self, prefix: str) -> tuple[str, ...]:
        """Codes, zeros, scales; g_idx if the checkpoint has it."""
        group_name = f"{prefix}.g_idx"
        optional = (group_name,) if group_name in self.checkpoint.names else ()
        return (*(f"{prefix}.{suffix}" for suffix in SUFFIXES), *optional)

    def unused(self) -> frozenset[str]:
        """None."""
        return frozenset()

    def storage(self, prefix: str, num_out: int, num_in: int) -> Storage:
        """Reads g_idx."""
        del num_out
        name = f"{prefix}.g_idx"
        order = None
        if name in self.checkpoint.names:
            order = self._order({name: self.checkpoint.tensor(name)}, name, num_in)
        fmt = QuantizedFormat(
            "int4" if self.settings.bits == 4 else "int8",
            self.settings.group_size,
            has_zeros=not self.settings.is_symmetric,
            scale_dtype=scale_dtype(self.checkpoint, f"{prefix}.scales"),
        )
        return Storage(fmt, column_order=Storage.order_key(order))

    def fill(self, prefix: str, tensors: Mapping[str, Tensor], part: MatrixPart) -> None:
        """Unpack, sort the columns by group, store; raises BadTensor."""
        codes_name, zeros_name, scales_name = (f"{prefix}.{suffix}" for suffix in SUFFIXES)
        bits = self.settings.bits
        num_out, num_in = part.source_shape
        num_groups = part.matrix.fmt.num_groups(num_in)
        qweight, qzeros, scales = tensors[codes_name], tensors[zeros_name], tensors[scales_name]
        check_integers(codes_name, qweight, (words(num_in, bits), num_out))
        check_integers(zeros_name, qzeros, (num_groups, words(num_out, bits)))
        check_weights(scales_name, scales, (num_groups, num_out))
        zeros = unpack(qzeros, bits)[:, :num_out].to(torch.int16) + self.settings.zero_offset
        if self.settings.is_symmetric:
            check_symmetric(zeros_name, zeros, bits)
        IntegerWeights(
            bits=bits,
            codes=unpack(qweight.T, bits)[:, :num_in],
            scales=scales.T,
            zeros=None if self.settings.is_symmetric else zeros.T,
            column_order=self._order(tensors, f"{prefix}.g_idx", num_in),
        ).store(part)

    def _order(self, tensors: Mapping[str, Tensor], name: str, num_in: int) -> Tensor | None:
        if name not in tensors:
            return None
        return order_of_groups(name, tensors[name], num_in, self.settings.group_size)
