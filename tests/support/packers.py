"""Packs full-precision checkpoints into published quantization formats, from definitions of its own.

A packer turns one weight [N, K] into the format's tensors and says, in float64, what they stand for.
Shares no code with what reads them: words are built by arithmetic on Python-sized integers.
"""

import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from support.checkpoints import save_checkpoint

AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)
NOT_PACKED = ("embed_tokens", "norm", "lm_head", "mlp.gate.", "shared_expert_gate")


def pack_checkpoint(
    folder: Path, family: str, packer: Any, *, plain: tuple[str, ...] = NOT_PACKED, **overrides: Any
) -> tuple[Path, Path]:
    """Two folders: a family's checkpoint packed, and the same dequantized in float64.

    Modules whose name contains one of `plain` stay as they are.
    """
    source = save_checkpoint(folder / "source", family, **overrides)
    packed: dict[str, torch.Tensor] = {}
    dense: dict[str, torch.Tensor] = {}
    source_tensors = load_file(source / "model.safetensors")
    for name, tensor in source_tensors.items():
        if tensor.dim() != 2 or any(part in name for part in plain):
            packed[name], dense[name] = tensor, tensor.double()
            continue
        tensors, dense[name] = packer.pack(name.removesuffix(".weight"), tensor.double())
        packed |= {key: value for key, value in tensors.items() if key not in source_tensors or key == name}
    write_folder(folder / "packed", source, packed, quantization_config=packer.config)
    write_folder(folder / "dense", source, dense)
    return folder / "packed", folder / "dense"


def write_folder(folder: Path, source: Path, tensors: Mapping[str, torch.Tensor], **config: Any) -> None:
    """Tensors with the config.json of another folder, changed."""
    folder.mkdir()
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "model.safetensors")
    raw = json.loads((source / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**raw, **config}))


def pack_words(codes: np.ndarray, bits: int) -> torch.Tensor:
    """[rows, n] integers -> [rows, ceil(n * bits / 32)] int32, the first code in the lowest bits."""
    per_word = 32 // bits
    codes = np.pad(codes, ((0, 0), (0, -codes.shape[1] % per_word))).astype(np.uint64)
    place_values = np.array([2 ** (bits * index) for index in range(per_word)], dtype=np.uint64)
    words = (codes.reshape(codes.shape[0], -1, per_word) * place_values).sum(axis=-1)
    return torch.from_numpy(words.astype(np.uint32).view(np.int32))


@dataclass
class Integers:
    """A weight as unsigned codes, zeros and scales, and what they stand for."""

    codes: np.ndarray
    zeros: np.ndarray
    scales: np.ndarray
    value: torch.Tensor


def to_integers(
    weight: torch.Tensor,
    bits: int,
    groups: np.ndarray,
    *,
    symmetric: bool,
    zero_range: tuple[int, int],
    scale_dtype: Any = np.float16,
) -> Integers:
    """Round to the nearest code; groups [K] gives each column's group."""
    values = weight.numpy()
    num_groups, top = int(groups.max()) + 1, 2**bits - 1
    zeros = np.zeros((values.shape[0], num_groups), dtype=np.int64)
    scales = np.zeros((values.shape[0], num_groups))
    for group in range(num_groups):
        columns = values[:, groups == group]
        if symmetric:
            scale = np.abs(columns).max(axis=1) / (2 ** (bits - 1) - 1)
            zero = np.full(len(values), 2 ** (bits - 1))
        else:
            low, high = np.minimum(columns.min(axis=1), 0), np.maximum(columns.max(axis=1), 0)
            scale = (high - low) / top
            zero = np.clip(np.round(-low / scale), *zero_range)
        scales[:, group] = scale.astype(scale_dtype)
        zeros[:, group] = zero
    codes = np.clip(np.round(values / scales[:, groups]) + zeros[:, groups], 0, top).astype(np.int64)
    value = (codes - zeros[:, groups]) * scales[:, groups]
    return Integers(codes, zeros, scales, torch.from_numpy(value))


def group_of_columns(num_in: int, group_size: int, seed: str | None) -> np.ndarray:
    """[K] each column's group; shuffled if there is a seed."""
    size = num_in if group_size == -1 else group_size
    groups = np.arange(num_in) // size
    if seed is None:
        return groups
    return np.random.default_rng(zlib.crc32(seed.encode())).permutation(groups)


def inputs_name(prefix: str) -> str:
    """Modules of the same name here read the same input: q, k, v or gate, up."""
    module, _, last = prefix.rpartition(".")
    return module + {"o_proj": ".o", "down_proj": ".down"}.get(last, "")


@dataclass
class GPTQ:
    """AutoGPTQ's layout; `order` None, "shared" by modules with the same input, or "own"."""

    bits: int = 4
    group_size: int = 128
    sym: bool = True
    version: int = 1
    order: str | None = None
    has_g_idx: bool = True
    zero_biases: bool = False
    scale_dtype: torch.dtype = torch.float16
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def config(self) -> dict[str, Any]:
        return {
            "quant_method": "gptq",
            "bits": self.bits,
            "group_size": self.group_size,
            "damp_percent": 0.01,
            "desc_act": self.order is not None,
            "static_groups": False,
            "sym": self.sym,
            "true_sequential": True,
            **({"checkpoint_format": "gptq_v2"} if self.version == 2 else {}),
            **self.options,
        }

    def pack(self, prefix: str, weight: torch.Tensor) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        seed = {None: None, "shared": inputs_name(prefix), "own": prefix}[self.order]
        groups = group_of_columns(weight.shape[1], self.group_size, seed)
        stored_less = 1 if self.version == 1 else 0
        zero_range = (stored_less, 2**self.bits - 1 + stored_less)
        integers = to_integers(weight, self.bits, groups, symmetric=self.sym, zero_range=zero_range)
        tensors = {
            f"{prefix}.qweight": pack_words(integers.codes, self.bits).T,
            f"{prefix}.qzeros": pack_words(integers.zeros.T - stored_less, self.bits),
            f"{prefix}.scales": torch.from_numpy(integers.scales.T).to(self.scale_dtype),
        }
        if self.has_g_idx:
            tensors[f"{prefix}.g_idx"] = torch.from_numpy(groups).to(torch.int32)
        if self.zero_biases:
            tensors[f"{prefix}.bias"] = torch.zeros(weight.shape[0], dtype=torch.float16)
        return tensors, integers.value


@dataclass
class AWQ:
    """AutoAWQ's layout, version gemm."""

    group_size: int = 32
    zero_point: bool = True
    has_zeros: bool = True
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def config(self) -> dict[str, Any]:
        return {
            "quant_method": "awq",
            "bits": 4,
            "group_size": self.group_size,
            "zero_point": self.zero_point,
            "version": "gemm",
            "modules_to_not_convert": ["gate"],
            **self.options,
        }

    def pack(self, prefix: str, weight: torch.Tensor) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        groups = group_of_columns(weight.shape[1], self.group_size, None)
        integers = to_integers(weight, 4, groups, symmetric=not self.zero_point, zero_range=(0, 15))
        tensors = {
            f"{prefix}.qweight": self._words(integers.codes.T),
            f"{prefix}.scales": torch.from_numpy(integers.scales.T).half(),
        }
        if self.has_zeros:
            tensors[f"{prefix}.qzeros"] = self._words(integers.zeros.T)
        return tensors, integers.value

    def _words(self, codes: np.ndarray) -> torch.Tensor:
        eights = codes.reshape(codes.shape[0], -1, 8)
        return pack_words(eights[..., AWQ_ORDER].reshape(codes.shape), 4)


@dataclass
class PackQuantized:
    """compressed-tensors' packed integers."""

    bits: int = 4
    strategy: str = "group"
    group_size: int | None = 32
    symmetric: bool = True
    order: str | None = None
    plain_zeros: bool = False
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def config(self) -> dict[str, Any]:
        weights = {
            "num_bits": self.bits,
            "type": "int",
            "symmetric": self.symmetric,
            "strategy": self.strategy,
            "group_size": self.group_size,
            "actorder": None if self.order is None else "group",
            "dynamic": False,
            "block_structure": None,
        }
        group = {"targets": ["Linear"], "weights": weights, "input_activations": None}
        return {
            "quant_method": "compressed-tensors",
            "format": "pack-quantized",
            "config_groups": {"group_0": group},
            "ignore": ["lm_head", "re:.*mlp.gate$", "re:.*shared_expert_gate$"],
            "quantization_status": "compressed",
            "kv_cache_scheme": None,
            **self.options,
        }

    def pack(self, prefix: str, weight: torch.Tensor) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        seed = {None: None, "shared": inputs_name(prefix), "own": prefix}[self.order]
        groups = group_of_columns(weight.shape[1], self.group_size or -1, seed)
        integers = to_integers(
            weight, self.bits, groups, symmetric=self.symmetric, zero_range=(0, 2**self.bits - 1)
        )
        tensors = {
            f"{prefix}.weight_packed": pack_words(integers.codes, self.bits),
            f"{prefix}.weight_scale": torch.from_numpy(integers.scales).half(),
            f"{prefix}.weight_shape": torch.tensor(weight.shape),
        }
        if not self.symmetric:
            signed = integers.zeros - 2 ** (self.bits - 1)
            tensors[f"{prefix}.weight_zero_point"] = (
                torch.from_numpy(signed).to(torch.int8)
                if self.plain_zeros
                else pack_words(integers.zeros.T, self.bits).T
            )
        if self.order is not None:
            tensors[f"{prefix}.weight_g_idx"] = torch.from_numpy(groups).to(torch.int32)
        return tensors, integers.value


@dataclass
class IntQuantized:
    """compressed-tensors' int8 rows, one byte each."""

    symmetric: bool = True

    @property
    def config(self) -> dict[str, Any]:
        weights = {"num_bits": 8, "type": "int", "symmetric": self.symmetric, "strategy": "channel"}
        activations = {"num_bits": 8, "type": "int", "dynamic": True, "strategy": "token"}
        group = {"targets": ["Linear"], "weights": weights, "input_activations": activations}
        return {
            "quant_method": "compressed-tensors",
            "format": "int-quantized",
            "config_groups": {"group_0": group},
            "ignore": ["lm_head"],
        }

    def pack(self, prefix: str, weight: torch.Tensor) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        groups = group_of_columns(weight.shape[1], -1, None)
        integers = to_integers(weight, 8, groups, symmetric=self.symmetric, zero_range=(0, 255))
        tensors = {
            f"{prefix}.weight": torch.from_numpy(integers.codes - 128).to(torch.int8),
            f"{prefix}.weight_scale": torch.from_numpy(integers.scales).half(),
        }
        if not self.symmetric:
            tensors[f"{prefix}.weight_zero_point"] = torch.from_numpy(integers.zeros - 128).to(torch.int8)
        return tensors, integers.value
