"""Checkpoints with `quant_method: fp8`: e4m3 weights, scaled in blocks (as DeepSeek's) or per tensor.

Only weights stay in 8 bits: activations are not quantized. Knows nothing about layers.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ondol.modeling.checkpoint import Checkpoint
from ondol.modeling.quantization.checkpoint_layers import Storage
from ondol.modeling.quantization.options import Options
from ondol.modeling.quantization.parts import MatrixPart
from ondol.modeling.quantization.scaled import ScaledWeights

ACTIVATION_SUFFIXES = (".input_scale", ".activation_scale", ".k_scale", ".v_scale")


@dataclass(frozen=True, slots=True)
class FP8Settings:
    """The part of quantization_config that says how weights are stored."""

    block: tuple[int | None, int | None]
    activations: str

    @property
    def notes(self) -> tuple[str, ...]:
        """Activations stay in full precision."""
        return (f"the checkpoint's {self.activations} quantization of activations is not applied",)

    @classmethod
    def from_config(cls, raw: Mapping[str, Any]) -> "FP8Settings":
        """Parse; raises ModelRefused for what is not supported."""
        options = Options("fp8", raw)
        options.one_of("fmt", ("e4m3",), "e4m3")
        options.one_of("scale_fmt", ("float",), "float")
        options.one_of("expert_dtype", ("fp8",), "fp8")
        options.must_be_absent("modules_to_convert")
        block: tuple[int | None, int | None] = (None, None)
        size = options.get("weight_block_size")
        if size is not None:
            if not isinstance(size, list) or len(size) != 2 or any(type(n) is not int or n < 1 for n in size):
                raise options.refused("weight_block_size", "it is two positive numbers")
            block = (size[0], size[1])
        return cls(block, options.one_of("activation_scheme", ("dynamic", "static"), "dynamic"))

    def open(self, checkpoint: Checkpoint) -> "FP8Checkpoint":
        """The format over a checkpoint."""
        names = ("weight_scale_inv", "weight_scale")
        return FP8Checkpoint(checkpoint, ScaledWeights(checkpoint, "fp8_e4m3", self.block, scale_names=names))


@dataclass(frozen=True, slots=True)
class FP8Checkpoint:
    """A CheckpointFormat."""

    checkpoint: Checkpoint
    weights: ScaledWeights

    def is_quantized(self, prefix: str) -> bool:
        """Whether the module's weight is e4m3 or has a scale."""
        return self.weights.is_quantized(prefix)

    def names(self, prefix: str) -> tuple[str, ...]:
        """Weight and scale."""
        return self.weights.names(prefix)

    def storage(self, prefix: str, num_out: int, num_in: int) -> Storage:
        """Reads headers only."""
        return self.weights.storage(prefix, num_out, num_in)

    def fill(self, prefix: str, tensors: Mapping[str, Tensor], part: MatrixPart) -> None:
        """Copy and spread; raises BadTensor."""
        self.weights.fill(prefix, tensors, part)

    def unused(self) -> frozenset[str]:
        """Scales of activations."""
        return frozenset(name for name in self.checkpoint.names if name.endswith(ACTIVATION_SUFFIXES))
