"""Checkpoints that compressed-tensors wrote: packed integers, fp8, int8.

Each module has the scheme of the config group that targets it. Only weights are quantized here:
activations, dynamic or static, stay in full precision. Knows nothing about layers.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from ondol.errors import ModelRefused
from ondol.modeling.checkpoint import Checkpoint
from ondol.modeling.quantization.checkpoint_layers import Storage
from ondol.modeling.quantization.options import Options
from ondol.modeling.quantization.packed import PackedWeights
from ondol.modeling.quantization.parts import MatrixPart
from ondol.modeling.quantization.scaled import ScaledWeights

METHOD = "compressed-tensors"
Format = Literal["pack-quantized", "float-quantized", "int-quantized", "naive-quantized"]
FORMATS: tuple[Format, ...] = ("pack-quantized", "float-quantized", "int-quantized", "naive-quantized")
STRATEGIES = ("tensor", "channel", "group", "block")
LINEAR = "Linear"
PATTERN = "re:"
# Scales of activations and of a quantized KV cache.
ACTIVATION_SUFFIXES = (
    ".input_scale",
    ".input_zero_point",
    ".output_scale",
    ".output_zero_point",
    ".k_scale",
    ".v_scale",
)


@dataclass(frozen=True, slots=True)
class Scheme:
    """How the weights of one config group are stored.

    Attributes:
        targets: module names, patterns after "re:", or "Linear".
        format: layout of the tensors.
        is_float: fp8 instead of integers.
        block: (rows, columns) that share a scale; None for a side is all of it.
    """

    targets: tuple[str, ...]
    format: Format
    is_float: bool
    bits: int
    block: tuple[int | None, int | None]
    has_zeros: bool

    def names_module(self, prefix: str) -> bool:
        """Whether a target is this module's name or a pattern that it matches."""
        return any(
            re.match(target.removeprefix(PATTERN), prefix) is not None
            if target.startswith(PATTERN)
            else prefix == target
            for target in self.targets
        )

    def open(self, checkpoint: Checkpoint) -> PackedWeights | ScaledWeights:
        """The scheme over a checkpoint."""
        if self.format == "pack-quantized":
            return PackedWeights(checkpoint, self.bits, self.block[1], self.has_zeros)
        return ScaledWeights(checkpoint, "fp8_e4m3" if self.is_float else "int8", self.block, self.has_zeros)


@dataclass(frozen=True, slots=True)
class CompressedTensorsSettings:
    """The part of quantization_config that says how weights are stored."""

    schemes: tuple[Scheme, ...]
    notes: tuple[str, ...]

    @classmethod
    def from_config(cls, raw: Mapping[str, Any]) -> "CompressedTensorsSettings":
        """Parse; raises ModelRefused for what is not supported."""
        options = Options(METHOD, raw)
        sparsity = options.get("sparsity_config")
        if sparsity and (not isinstance(sparsity, dict) or sparsity.get("format") != "dense"):
            raise options.refused("sparsity_config", "sparse weights are not supported")
        options.must_be_absent("transform_config")
        groups = options.get("config_groups")
        if not isinstance(groups, dict) or not groups:
            raise options.refused("config_groups", "it says how each kind of module is stored")
        schemes = [_scheme(options, name, group) for name, group in groups.items()]
        notes = []
        if any(group.get("input_activations") for group in groups.values()):
            notes.append("the checkpoint's quantization of activations is not applied")
        if options.get("kv_cache_scheme"):
            notes.append("the checkpoint's quantization of the KV cache is not applied")
        return cls(tuple(scheme for scheme in schemes if scheme is not None), tuple(notes))

    def open(self, checkpoint: Checkpoint) -> "CompressedTensorsCheckpoint":
        """The format over a checkpoint."""
        weights = tuple(scheme.open(checkpoint) for scheme in self.schemes)
        return CompressedTensorsCheckpoint(checkpoint, self.schemes, weights)


@dataclass(frozen=True, slots=True)
class CompressedTensorsCheckpoint:
    """A CheckpointFormat: each module by its scheme."""

    checkpoint: Checkpoint
    schemes: tuple[Scheme, ...]
    weights: tuple[PackedWeights | ScaledWeights, ...]

    def is_quantized(self, prefix: str) -> bool:
        """Whether the module is targeted and its quantized tensors are there."""
        weights = self._find(prefix)
        return weights is not None and weights.is_quantized(prefix)

    def names(self, prefix: str) -> tuple[str, ...]:
        """What its scheme needs."""
        return self._weights(prefix).names(prefix)

    def storage(self, prefix: str, num_out: int, num_in: int) -> Storage:
        """As its scheme says."""
        return self._weights(prefix).storage(prefix, num_out, num_in)

    def fill(self, prefix: str, tensors: Mapping[str, Tensor], part: MatrixPart) -> None:
        """As its scheme does; raises BadTensor."""
        self._weights(prefix).fill(prefix, tensors, part)

    def unused(self) -> frozenset[str]:
        """Scales of activations and of the KV cache."""
        return frozenset(name for name in self.checkpoint.names if name.endswith(ACTIVATION_SUFFIXES))

    def _find(self, prefix: str) -> PackedWeights | ScaledWeights | None:
        """By name before by class, as compressed-tensors does."""
        pairs = list(zip(self.schemes, self.weights, strict=True))
        named = [weights for scheme, weights in pairs if scheme.names_module(prefix)]
        by_class = [weights for scheme, weights in pairs if LINEAR in scheme.targets]
        return next(iter(named + by_class), None)

    def _weights(self, prefix: str) -> PackedWeights | ScaledWeights:
        weights = self._find(prefix)
        if weights is None:
            raise ModelRefused(f"{self.checkpoint.folder}: no config group says how {prefix} is quantized")
        return weights


def _scheme(options: Options, name: str, group: Any) -> Scheme | None:
    """Parse one config group; None if it leaves weights alone."""
    if not isinstance(group, dict):
        raise options.refused("config_groups", f"{name} is no object")
    targets, weights = group.get("targets", []), group.get("weights")
    if weights is None:
        return None
    if not isinstance(weights, dict) or not _are_targets(targets):
        raise options.refused("config_groups", f"{name} has no valid targets and weights")
    layout = Options(METHOD, {"format": group.get("format") or options.get("format")})
    kind = layout.one_of("format", FORMATS, "pack-quantized")
    args = Options(f"{METHOD} {kind}", weights)
    bits = args.one_of("num_bits", (4, 8) if kind == "pack-quantized" else (8,), 8)
    numbers = {"pack-quantized": ("int",), "float-quantized": ("float",), "int-quantized": ("int",)}
    is_float = args.one_of("type", numbers.get(kind, ("int", "float")), "int") == "float"
    is_symmetric = args.one_of("symmetric", (True,) if is_float else (True, False), True)
    block = _block(args)
    if kind == "pack-quantized" and block[0] != 1:
        raise args.refused("strategy", "packed weights have scales per row or group")
    return Scheme(tuple(targets), kind, is_float, bits, block, not is_symmetric)


def _are_targets(targets: Any) -> bool:
    if not isinstance(targets, list) or not all(isinstance(target, str) for target in targets):
        return False
    try:
        for target in targets:
            re.compile(target.removeprefix(PATTERN))
    except re.error:
        return False
    return True


def _block(args: Options) -> tuple[int | None, int | None]:
    """(rows, columns) that share a scale."""
    group_size = args.group_size(default=0)
    inferred = {0: "tensor", None: "channel"}.get(group_size, "group")
    strategy = args.one_of("strategy", STRATEGIES, inferred)
    if strategy == "block":
        size = args.get("block_structure")
        if not isinstance(size, list) or len(size) != 2 or any(type(n) is not int or n < 1 for n in size):
            raise args.refused("block_structure", "it is two positive numbers")
        return size[0], size[1]
    if strategy == "group":
        if not group_size:
            raise args.refused("group_size", "groups need a size")
        return 1, group_size
    return (None if strategy == "tensor" else 1), None
