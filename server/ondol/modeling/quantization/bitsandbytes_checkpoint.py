"""Checkpoints saved in bitsandbytes' own formats: 4 bit (nf4, fp4) and 8 bit (LLM.int8).

4 bit: `weight` holds the codes, `weight.absmax` the scales, `weight.quant_state.bitsandbytes__nf4` the
rest as JSON; with double quantization `weight.nested_absmax` and `weight.nested_quant_map` too.
8 bit: `weight` int8 rows, `SCB` their absolute maxima. Knows nothing about layers, nor needs the library.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from ondol.kernels.quantized import FP4_VALUES, NESTED_BLOCK_SIZE, NF4_VALUES, QuantizedFormat
from ondol.modeling.checkpoint import Checkpoint
from ondol.modeling.quantization.checkpoint_layers import Storage
from ondol.modeling.quantization.integers import check_integers
from ondol.modeling.quantization.options import Options
from ondol.modeling.quantization.parts import MatrixPart
from ondol.modeling.slots import BadTensor, check_shape, check_weights

INT8_MAX = 127.0
ROW_FORMAT = 0
STATE = "weight.quant_state.bitsandbytes__"
CODEBOOKS: dict[Literal["nf4", "fp4"], tuple[float, ...]] = {"nf4": NF4_VALUES, "fp4": FP4_VALUES}
CODEBOOK_TOLERANCE = 1e-3
# What JSON of another shape than a state raises when it is taken apart.
STATE_ERRORS = (ValueError, TypeError, LookupError, AttributeError, OverflowError, RecursionError)


@dataclass(frozen=True, slots=True)
class BitsAndBytesSettings:
    """The part of quantization_config that says how weights are stored; the rest is with the tensors."""

    bits: int

    @property
    def notes(self) -> tuple[str, ...]:
        """LLM.int8 quantizes activations, we do not."""
        return () if self.bits == 4 else ("activations are not quantized as LLM.int8 does",)

    @classmethod
    def from_config(cls, raw: Mapping[str, Any]) -> "BitsAndBytesSettings":
        """Parse; raises ModelRefused for what is not supported."""
        options = Options("bitsandbytes", raw)
        for bits in (4, 8):
            if options.one_of(f"load_in_{bits}bit", (True, False), False):
                return cls(bits)
            if options.one_of(f"_load_in_{bits}bit", (True, False), False):
                return cls(bits)
        raise options.refused("load_in_4bit", "load_in_4bit or load_in_8bit must be true")

    def open(self, checkpoint: Checkpoint) -> "FourBitCheckpoint | Int8Checkpoint":
        """The format over a checkpoint."""
        return FourBitCheckpoint(checkpoint) if self.bits == 4 else Int8Checkpoint(checkpoint)


@dataclass(frozen=True, slots=True)
class Int8Checkpoint:
    """A CheckpointFormat: int8 rows."""

    checkpoint: Checkpoint

    def is_quantized(self, prefix: str) -> bool:
        """Whether the module has scales or a layout's number."""
        return not self.checkpoint.names.isdisjoint((f"{prefix}.SCB", f"{prefix}.weight_format"))

    def names(self, prefix: str) -> tuple[str, ...]:
        """Codes and scales, and the layout's number if the checkpoint has it."""
        format_name = f"{prefix}.weight_format"
        optional = (format_name,) if format_name in self.checkpoint.names else ()
        return (f"{prefix}.weight", f"{prefix}.SCB", *optional)

    def unused(self) -> frozenset[str]:
        """None."""
        return frozenset()

    def storage(self, prefix: str, num_out: int, num_in: int) -> Storage:
        """The same for all."""
        del prefix, num_out, num_in
        return Storage(QuantizedFormat("int8", group_size=None))

    def fill(self, prefix: str, tensors: Mapping[str, Tensor], part: MatrixPart) -> None:
        """Copy codes; a scale is the row's absolute maximum over 127. Raises BadTensor."""
        name, scales_name, format_name = f"{prefix}.weight", f"{prefix}.SCB", f"{prefix}.weight_format"
        codes, scales = tensors[name], tensors[scales_name]
        if format_name in tensors and bool((tensors[format_name] != ROW_FORMAT).any()):
            raise BadTensor(format_name, "names a layout other than rows; bitsandbytes no longer reads it")
        check_integers(name, codes, part.source_shape, (torch.int8,))
        check_weights(scales_name, scales, part.source_shape[:1])
        part.codes().copy_(codes)
        part.scales().copy_((scales.float() / INT8_MAX)[:, None])


@dataclass(frozen=True, slots=True)
class QuantState:
    """The JSON beside a 4-bit weight; offset is None without double quantization."""

    method: Literal["nf4", "fp4"]
    block_size: int
    shape: tuple[int, ...]
    offset: float | None


@dataclass(frozen=True, slots=True)
class FourBitCheckpoint:
    """A CheckpointFormat: nf4 or fp4 in blocks."""

    checkpoint: Checkpoint

    def is_quantized(self, prefix: str) -> bool:
        """Whether the module has scales or a state."""
        names = self.checkpoint.names
        return f"{prefix}.weight.absmax" in names or self._state_name(prefix) in names

    def names(self, prefix: str) -> tuple[str, ...]:
        """Codes, scales, codebook, state; those of double quantization if the checkpoint has them."""
        nested = (f"{prefix}.weight.nested_absmax", f"{prefix}.weight.nested_quant_map")
        return (
            f"{prefix}.weight",
            f"{prefix}.weight.absmax",
            f"{prefix}.weight.quant_map",
            self._state_name(prefix),
            *(() if self.checkpoint.names.isdisjoint(nested) else nested),
        )

    def unused(self) -> frozenset[str]:
        """None."""
        return frozenset()

    def storage(self, prefix: str, num_out: int, num_in: int) -> Storage:
        """Reads the state and the codebooks."""
        del num_out
        tensors = {
            name: self.checkpoint.tensor(name)
            for name in self.names(prefix)
            if not name.endswith((".weight", "absmax"))
        }
        state = self._state(prefix, tensors)
        codebook_name = f"{prefix}.weight.quant_map"
        check_weights(codebook_name, tensors[codebook_name], (len(NF4_VALUES),))
        codebook = torch.tensor(CODEBOOKS[state.method])
        if not torch.allclose(tensors[codebook_name].float(), codebook, rtol=0, atol=CODEBOOK_TOLERANCE):
            raise BadTensor(codebook_name, f"is not the codebook of {state.method}")
        nested_values = None
        if state.offset is not None:
            nested_name = f"{prefix}.weight.nested_quant_map"
            if nested_name not in tensors:
                raise BadTensor(self._state_name(prefix), f"needs {nested_name}, which is missing")
            check_weights(nested_name, tensors[nested_name], (NESTED_BLOCK_SIZE,))
            nested_values = tensors[nested_name].float().numpy().tobytes()
        fmt = QuantizedFormat(state.method, state.block_size, has_nested_scales=state.offset is not None)
        return Storage(fmt, num_in % state.block_size != 0, nested_values=nested_values)

    def fill(self, prefix: str, tensors: Mapping[str, Tensor], part: MatrixPart) -> None:
        """Copy codes and scales; raises BadTensor."""
        state = self._state(prefix, tensors)
        if state.shape != part.source_shape:
            raise BadTensor(
                self._state_name(prefix),
                f"says shape {list(state.shape)}, the model needs {list(part.source_shape)}",
            )
        name, scales_name = f"{prefix}.weight", f"{prefix}.weight.absmax"
        packed = tensors[name].flatten().view(torch.uint8)  # any dtype serves as container
        num_weights = math.prod(part.source_shape)
        check_shape(name, packed, (-(-num_weights // 2),))
        part.codes().copy_(packed.view(part.codes().shape))
        scales = tensors[scales_name]
        num_blocks = (-(-num_weights // state.block_size),)
        if state.offset is None:
            check_weights(scales_name, scales, num_blocks)
            part.scales().copy_(scales.view(part.scales().shape))
            return
        check_integers(scales_name, scales, num_blocks, (torch.uint8,))
        nested_name = f"{prefix}.weight.nested_absmax"
        nested = tensors[nested_name]
        check_weights(nested_name, nested, (-(-num_blocks[0] // NESTED_BLOCK_SIZE),))
        values = tensors[f"{prefix}.weight.nested_quant_map"]
        part.set_nested_scales(scales, nested, torch.tensor(state.offset), values)

    def _state_name(self, prefix: str) -> str:
        fp4 = f"{prefix}.{STATE}fp4"
        return fp4 if fp4 in self.checkpoint.names else f"{prefix}.{STATE}nf4"

    def _state(self, prefix: str, tensors: Mapping[str, Tensor]) -> QuantState:
        name = self._state_name(prefix)
        try:
            raw = json.loads(bytes(tensors[name].flatten().tolist()))
            offset = raw.get("nested_offset")
            block_size, shape = int(raw["blocksize"]), tuple(int(size) for size in raw["shape"])
            nested_size = int(raw.get("nested_blocksize", NESTED_BLOCK_SIZE))
            offset = None if offset is None else float(offset)
        except STATE_ERRORS as error:
            raise BadTensor(name, f"is not the JSON of a quantization state: {error!r}") from error
        if raw.get("quant_type") != name.removeprefix(f"{prefix}.{STATE}"):
            raise BadTensor(name, f"says quant_type={raw.get('quant_type')!r}")
        if block_size < 1 or nested_size != NESTED_BLOCK_SIZE:
            raise BadTensor(name, f"has blocks of {block_size} and {nested_size}, which are not supported")
        if offset is not None and not math.isfinite(offset):
            raise BadTensor(name, f"has the offset {offset}")
        return QuantState("fp4" if name.endswith("fp4") else "nf4", block_size, shape, offset)
