"""Writes a model folder's weights again, quantized: what `ondol quantize` does to the tensors.

The model is built on the meta device, only to learn which of its tensors are quantized on load; the same
ones are quantized here. Tensors stream one slot at a time. Knows nothing about tokenizers and where
folders come from.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ondol.errors import ConfigError, ModelRefused
from ondol.modeling.architecture import read_config
from ondol.modeling.checkpoint import Checkpoint
from ondol.modeling.checkpoint_writer import (
    DTYPES_BY_HEADER_NAME,
    SHARD_BYTES,
    CheckpointWriter,
    PlannedTensor,
)
from ondol.modeling.layers import ExpertStack, Linear
from ondol.modeling.loading import Blueprint, draw_model
from ondol.modeling.quantization.on_load import OnLoad
from ondol.modeling.quantization.parts import PartSlot
from ondol.modeling.quantization.saved_formats import SavedFormat, SaveMethod, saved_format
from ondol.modeling.quantization.selection import CONFIG_KEYS
from ondol.modeling.slots import BadTensor, ParameterSlot, WeightSlot, check_weights
from ondol.modeling.weight_loader import Progress, check_names, load_weights

HEAD = "lm_head"
DEFAULT_GROUP_SIZE = 128


@dataclass(frozen=True, slots=True)
class SaveSettings:
    """How to quantize.

    Attributes:
        method: "nf4", "int8" or "int4".
        group_size: int4: weights along K that share a scale; None is one scale per row.
        use_double_quant: nf4: quantize the scales of blocks again.
        skip_modules: as in `OnLoad`.
        quantize_head: quantize lm_head too.
    """

    method: SaveMethod
    group_size: int | None = DEFAULT_GROUP_SIZE
    use_double_quant: bool = True
    skip_modules: tuple[str, ...] = ()
    quantize_head: bool = False

    @property
    def saved_format(self) -> SavedFormat:
        """How the tensors are stored."""
        return saved_format(self.method, use_double_quant=self.use_double_quant, group_size=self.group_size)


@dataclass(frozen=True, slots=True)
class _WriteSlot:
    """Takes a checkpoint's tensors as the model's slot would, and hands them to the writer."""

    slot: WeightSlot
    saved: SavedFormat
    writer: CheckpointWriter

    @property
    def names(self) -> tuple[str, ...]:
        return self.slot.names

    def fill(self, tensors: Mapping[str, Tensor]) -> None:
        if isinstance(self.slot, PartSlot):
            (name,) = self.slot.names
            check_weights(name, tensors[name], self.slot.part.source_shape)  # int4 has no check of its own
            tensors = self.saved.encode(self.slot.prefix, tensors[name])
        else:
            self.slot.fill(tensors)  # on the meta device: checks them and copies nothing
        for name, tensor in tensors.items():
            self.writer.write(name, tensor)


class QuantizationPlan:
    """A full-precision model folder, and what becomes of each of its tensors.

    Args:
        folder: Hugging Face layout, safetensors.
        settings: how to quantize.
        shard_bytes: size of a weights file.

    Attributes:
        source_bytes: of the source's weights files.
        size_bytes: of the tensors that `write` makes of them.
        num_quantized: modules that are quantized; an expert has three.
        num_weights: weights in them.
        unquantized: names of the modules that could have been quantized and are not.
        is_sparse: a mixture of experts.

    Raises:
        ModelRefused: already quantized, or what loading would refuse.
        ConfigError: nothing is left to quantize, or a head that the model does not have.
    """

    def __init__(self, folder: Path, settings: SaveSettings, shard_bytes: int = SHARD_BYTES) -> None:
        self.folder = folder
        self._settings = settings
        self._saved = settings.saved_format
        self._shard_bytes = shard_bytes
        self._raw_config = _read_raw_config(folder)
        blueprint = _draw(folder, settings)
        self._ignored = blueprint.ignored
        self._checkpoint = Checkpoint(folder)
        self.source_bytes = self._checkpoint.size_bytes
        self._slots = list(blueprint.model.slots())
        check_names(
            frozenset(name for slot in self._slots for name in slot.names), self._checkpoint, self._ignored
        )
        self._groups = [self._planned(slot) for slot in self._slots]
        quantized = [slot for slot in self._slots if isinstance(slot, PartSlot)]
        self._check_choice({slot.prefix for slot in quantized})
        self.num_quantized = len(quantized)
        self.num_weights = sum(rows * num_in for rows, num_in in (s.part.source_shape for s in quantized))
        self.unquantized = _unquantized(self._slots)
        if settings.quantize_head is False and HEAD not in self.unquantized:
            self.unquantized.append(HEAD)  # tied: no tensor of its own, yet transformers has the module
        self.is_sparse = any(".experts." in slot.prefix for slot in quantized)
        self.size_bytes = sum(planned.num_bytes for group in self._groups for planned in group)

    def write(self, target: Path, on_progress: Progress | None = None) -> None:
        """Write weights and config.json into an existing folder.

        Args:
            target: where to; incomplete if this raises.
            on_progress: called with bytes of the source done, and bytes in all.

        Raises:
            ModelRefused: names the tensor and the file that cannot be quantized.
        """
        with CheckpointWriter(target, self._groups, self._shard_bytes) as writer:
            slots = [_WriteSlot(slot, self._saved, writer) for slot in self._slots]
            load_weights(slots, self._checkpoint, ignored=self._ignored, on_progress=on_progress)
        dtype = self._raw_config.get("dtype", self._raw_config.get("torch_dtype", "float32"))
        config = {**self._raw_config, "quantization_config": self._saved.config(dtype, self.unquantized)}
        text = json.dumps(config, indent=2, ensure_ascii=False) + "\n"
        (target / "config.json").write_text(text, encoding="utf-8")

    def _planned(self, slot: WeightSlot) -> list[PlannedTensor]:
        try:
            if isinstance(slot, PartSlot):
                return self._saved.layout(slot.prefix, slot.part.source_shape)
            return [self._copied(name) for name in slot.names]
        except BadTensor as error:
            raise ModelRefused(
                f"{error.name} in {self._checkpoint.file_of(error.name)} {error.reason}"
            ) from error

    def _copied(self, name: str) -> PlannedTensor:
        header_name = self._checkpoint.dtype_of(name)
        dtype = DTYPES_BY_HEADER_NAME.get(header_name)
        if dtype is None or not dtype.is_floating_point:
            raise BadTensor(name, f"holds {header_name}, which is not float32, float16 or bfloat16")
        return PlannedTensor(name, dtype, self._checkpoint.shape_of(name))

    def _check_choice(self, quantized: set[str]) -> None:
        if not quantized:
            raise ConfigError("--skip-modules leaves nothing to quantize.")
        if self._settings.quantize_head and HEAD not in quantized:
            raise ConfigError(
                f"--quantize-lm-head: the head of {self.folder.name} is its embeddings, or is skipped."
            )


def _read_raw_config(folder: Path) -> dict[str, Any]:
    read_config(folder)  # refuses what is no configuration
    raw: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    for key in CONFIG_KEYS:
        section = raw.get(key)
        if section is not None:
            method = section.get("quant_method", "unknown") if isinstance(section, dict) else "unknown"
            raise ModelRefused(f"{folder} is quantized already ({method}): take its full-precision original.")
    return raw


def _draw(folder: Path, settings: SaveSettings) -> Blueprint:
    # Which tensors are quantized does not depend on the method.
    choice = OnLoad("nf4", skip_modules=settings.skip_modules, quantize_head=settings.quantize_head)
    return draw_model(folder, torch.device("cpu"), "float32", choice)


def _unquantized(slots: list[WeightSlot]) -> list[str]:
    return [name.removesuffix(".weight") for name in _plain_matrices(slots)]


def _plain_matrices(slots: list[WeightSlot]) -> Iterator[str]:
    for slot in slots:
        is_matrix = isinstance(slot, ParameterSlot) and isinstance(
            slot.module, (Linear, ExpertStack, nn.Linear)
        )
        if is_matrix and slot.names[0].endswith(".weight"):
            yield slot.names[0]
