"""Checkpoints in AWQ's format, version gemm: 4 bit, groups along K.

qweight int32 [K, N / 8], qzeros int32 [groups, N / 8], scales [groups, N]. The eight codes of a word belong
to columns 0, 2, 4, 6, 1, 3, 5, 7; zero points are stored as they are. Knows nothing about layers.
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
    unpack,
    words,
)
from ondol.modeling.quantization.options import Options
from ondol.modeling.quantization.parts import MatrixPart
from ondol.modeling.slots import check_weights

BITS = 4
# Where in a word the codes of columns 0, 1, 2, ... lie.
SLOTS = (0, 4, 1, 5, 2, 6, 3, 7)
SUFFIXES = ("qweight", "scales", "qzeros")


@dataclass(frozen=True, slots=True)
class AWQSettings:
    """The part of quantization_config that says how weights are stored."""

    group_size: int | None
    has_zeros: bool

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user should know."""
        return ()

    @classmethod
    def from_config(cls, raw: Mapping[str, Any]) -> "AWQSettings":
        """Parse; raises ModelRefused for what is not supported."""
        options = Options("awq", raw)
        options.one_of("bits", (BITS,), BITS)
        options.one_of("w_bit", (BITS,), BITS)
        options.one_of("version", ("gemm",), "gemm")
        options.one_of("format", ("gemm",), "gemm")
        if options.get("backend") == "llm-awq":
            raise options.refused("backend", "")
        group_size = options.group_size("q_group_size", default=128)
        return cls(
            group_size=options.group_size(default=group_size),
            has_zeros=options.one_of("zero_point", (True, False), True),
        )

    def open(self, checkpoint: Checkpoint) -> "AWQCheckpoint":
        """The format over a checkpoint."""
        return AWQCheckpoint(self, checkpoint)


@dataclass(frozen=True, slots=True)
class AWQCheckpoint:
    """A CheckpointFormat."""

    settings: AWQSettings
    checkpoint: Checkpoint

    def is_quantized(self, prefix: str) -> bool:
        """Whether any of the module's quantized tensors is there."""
        return any(f"{prefix}.{suffix}" in self.checkpoint.names for suffix in SUFFIXES)

    def names(self, prefix: str) -> tuple[str, ...]:
        """Codes and scales; zeros if they are asymmetric or the checkpoint has them."""
        zeros_name = f"{prefix}.qzeros"
        needs_zeros = self.settings.has_zeros or zeros_name in self.checkpoint.names
        return (f"{prefix}.qweight", f"{prefix}.scales", *((zeros_name,) if needs_zeros else ()))

    def unused(self) -> frozenset[str]:
        """None."""
        return frozenset()

    def storage(self, prefix: str, num_out: int, num_in: int) -> Storage:
        """Reads headers only."""
        del num_out, num_in
        fmt = QuantizedFormat(
            "int4",
            self.settings.group_size,
            has_zeros=self.settings.has_zeros,
            scale_dtype=scale_dtype(self.checkpoint, f"{prefix}.scales"),
        )
        return Storage(fmt)

    def fill(self, prefix: str, tensors: Mapping[str, Tensor], part: MatrixPart) -> None:
        """Unpack and store; raises BadTensor."""
        codes_name, scales_name, zeros_name = (f"{prefix}.{suffix}" for suffix in SUFFIXES)
        num_out, num_in = part.source_shape
        num_groups = part.matrix.fmt.num_groups(num_in)
        qweight, scales = tensors[codes_name], tensors[scales_name]
        check_integers(codes_name, qweight, (num_in, words(num_out, BITS)))
        check_weights(scales_name, scales, (num_groups, num_out))
        zeros = None
        if zeros_name in tensors:
            qzeros = tensors[zeros_name]
            check_integers(zeros_name, qzeros, (num_groups, words(num_out, BITS)))
            zeros = unpack(qzeros, BITS, SLOTS)[:, :num_out].to(torch.int16)
            if not self.settings.has_zeros:
                check_symmetric(zeros_name, zeros, BITS)
        IntegerWeights(
            bits=BITS,
            codes=unpack(qweight, BITS, SLOTS)[:, :num_out].T,
            scales=scales.T,
            zeros=zeros.T if zeros is not None and self.settings.has_zeros else None,
            column_order=None,
        ).store(part)
