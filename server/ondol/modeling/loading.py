"""From a model folder to a model that runs: the one door of this room.

Builds the model on the meta device, allocates it on the target device and streams the weights in.
"""

import importlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ondol.errors import ModelRefused
from ondol.kernels.backend import REFERENCE, Kernels
from ondol.kernels.paged_attention import AttentionMetadata, PagedKVCache
from ondol.modeling.architecture import describe, read_config
from ondol.modeling.checkpoint import Checkpoint
from ondol.modeling.decoder import build_decoder
from ondol.modeling.kernel_module import use_kernels
from ondol.modeling.layer_factory import LayerFactory, PlainLayers
from ondol.modeling.offload_plan import OffloadPlan, offload_notes, plan_offload
from ondol.modeling.offloaded_layers import OffloadedLayers
from ondol.modeling.quantization.on_load import OnLoad, OnLoadLayers
from ondol.modeling.quantization.selection import read_quantization
from ondol.modeling.report import WeightsReport, report_weights
from ondol.modeling.slots import WeightSlot
from ondol.modeling.weight_loader import load_weights

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class Model(Protocol):
    """A model that runs flat ragged batches; `Decoder` and `GenericModel` are two.

    Attributes:
        num_kv_heads, head_dim: shape of the keys and values that it caches.
        can_be_captured: whether a forward pass never waits for the device and always reads the same memory,
            as a CUDA graph needs.
    """

    num_kv_heads: int
    head_dim: int
    can_be_captured: bool

    def decoder_layers(self) -> Sequence[nn.Module]:
        """Its layers in the order in which they run; none where that is not known."""
        ...

    def allocate(self, device: torch.device) -> None:
        """Move what is on the meta device to uninitialized memory."""
        ...

    def slots(self) -> Iterator[WeightSlot]:
        """What it needs from the checkpoint."""
        ...

    def parameters(self) -> Iterator[nn.Parameter]:
        """All weights, in whatever form they are stored."""
        ...

    def named_modules(self) -> Iterator[tuple[str, nn.Module]]:
        """All modules by their paths, itself included."""
        ...

    def prepare(self, max_model_len: int) -> None:
        """Build what depends on the context length, once the weights are in."""
        ...

    def forward(
        self,
        token_ids: Tensor,
        positions: Tensor,
        cache: PagedKVCache,
        metadata: AttentionMetadata,
        logit_rows: Tensor,
    ) -> Tensor:
        """Logits [B, vocab_size], float32, of the chosen rows; see `Decoder.forward`."""
        ...


@dataclass(frozen=True, slots=True)
class LoadedWeights:
    """A model with its weights in, and the numbers that the engine needs.

    Attributes:
        context_length: tokens that the model was made for.
        weights_bytes: memory of all parameters on the device, buffers for those that are not there included.
        host_weights_bytes: host memory of layers that are not on the device; see `OffloadPlan.split`.
        report: how they are stored.
        notes: what a user should know about this load.
    """

    model: Model
    dtype: torch.dtype
    vocab_size: int
    num_layers: int
    num_kv_heads: int
    head_dim: int
    context_length: int
    weights_bytes: int
    host_weights_bytes: int
    report: WeightsReport
    notes: tuple[str, ...]


def choose_dtype(asked: str, config: Any, device: torch.device) -> torch.dtype:
    """The compute dtype: as asked; "auto" is float32 on a CPU, the checkpoint's dtype on a GPU."""
    if asked != "auto":
        return DTYPES[asked]
    if device.type == "cpu":
        return torch.float32
    stored = config.dtype
    return stored if stored in DTYPES.values() else torch.bfloat16


@dataclass(frozen=True, slots=True)
class Blueprint:
    """A model on the meta device: all shapes, no weights.

    Attributes:
        config: transformers' config object.
        dtype: of hidden states and of what is not quantized.
        context_length: tokens that the model was made for.
        ignored: checkpoint tensors that stay unread.
        notes: what a user should know about how the checkpoint is quantized.
    """

    config: Any
    model: Model
    dtype: torch.dtype
    context_length: int
    ignored: frozenset[str]
    notes: tuple[str, ...] = ()


def draw_model(
    folder: Path,
    device: torch.device,
    dtype: str,
    on_load: OnLoad | None = None,
    checkpoint: Checkpoint | None = None,
) -> Blueprint:
    """Build a folder's model without its weights; takes what `load_model` takes.

    Args:
        folder, device, dtype, on_load: as `load_model` takes them.
        checkpoint: what tells how a quantized folder's tensors are stored; None opens the folder's own.

    Raises:
        ModelRefused: names what is wrong with the folder.
    """
    config = read_config(folder)
    quantization = read_quantization(folder)
    if quantization is None:
        return draw_original(folder, device, dtype, on_load)
    if on_load is not None:
        raise ModelRefused(
            f"the checkpoint is quantized already ({quantization.method}): --quantization "
            f"{on_load.method} cannot quantize it again. Leave it at none, or take the original model."
        )
    compute_dtype = choose_dtype(dtype, config, device)
    layers = quantization.layers(checkpoint or Checkpoint(folder), compute_dtype)
    model = build_model(config, layers)
    ignored = _ignored(config) | layers.ignored
    notes = quantization.settings.notes
    return Blueprint(config, model, compute_dtype, _context_length(config), ignored, notes)


def draw_original(folder: Path, device: torch.device, dtype: str, on_load: OnLoad | None = None) -> Blueprint:
    """As `draw_model`, but of full-precision weights, whatever the folder's checkpoint holds.

    Of a quantized checkpoint this is the model that it was made from.
    """
    config = read_config(folder)
    compute_dtype = choose_dtype(dtype, config, device)
    make: LayerFactory = (
        PlainLayers(compute_dtype) if on_load is None else OnLoadLayers(on_load, compute_dtype)
    )
    model = build_model(config, make)
    return Blueprint(config, model, compute_dtype, _context_length(config), _ignored(config))


def load_model(
    folder: Path,
    device: torch.device,
    dtype: str,
    *,
    on_load: OnLoad | None = None,
    on_progress: Callable[[int, int], None] | None = None,
    kernels: Kernels = REFERENCE,
    offload_bytes: int = 0,
) -> LoadedWeights:
    """Load a model folder.

    Args:
        folder: Hugging Face layout, safetensors.
        device: where the weights go.
        dtype: "auto", "float32", "bfloat16" or "float16".
        on_load: quantize full-precision weights as they stream in; None leaves them.
        on_progress: called with bytes done and bytes in all.
        kernels: what the model computes with.
        offload_bytes: host memory for layers that stay there and are copied to the device in every step.

    Raises:
        ModelRefused: names what is wrong; before any weight is read where config or header tell.
        DoesNotFit: the host memory cannot be had.
    """
    if kernels.is_deterministic:
        require_determinism(folder)
    blueprint = draw_model(folder, device, dtype, on_load)
    config, model = blueprint.config, blueprint.model
    offload = plan_offload(model.decoder_layers(), offload_bytes)
    offloaded = place_on_host(model, offload, device)
    model.allocate(device)
    use_kernels(model.named_modules(), kernels)
    load_weights(model.slots(), Checkpoint(folder), ignored=blueprint.ignored, on_progress=on_progress)
    if offloaded is not None:
        offloaded.start()
    all_bytes = sum(parameter.nbytes for parameter in model.parameters())
    weights_bytes, host_weights_bytes = offload.split(all_bytes, is_host=device.type == "cpu")
    return LoadedWeights(
        model=model,
        dtype=blueprint.dtype,
        vocab_size=config.vocab_size,
        num_layers=config.num_hidden_layers,
        num_kv_heads=model.num_kv_heads,
        head_dim=model.head_dim,
        context_length=blueprint.context_length,
        weights_bytes=weights_bytes,
        host_weights_bytes=host_weights_bytes,
        report=report_weights(model),
        notes=(*_notes(config, on_load), *blueprint.notes, *offload_notes(offload, offload_bytes)),
    )


def require_determinism(folder: Path) -> None:
    """Refuse a model that cannot keep deterministic mode's promise, by its config.json alone.

    Transformers' own norms and activations compute more rows in another way.

    Raises:
        ModelRefused: it is run by transformers' code, or cannot be served at all.
    """
    config = read_config(folder)
    if describe(config) is None:
        name = config.model_type
        raise ModelRefused(f"{name} cannot be computed deterministically: start without --deterministic.")


def place_on_host(model: Model, offload: OffloadPlan, device: torch.device) -> OffloadedLayers | None:
    """Give the layers that a plan names host memory, before the rest is allocated; None if it names none.

    Their weights are read into that memory; `OffloadedLayers.start` has them compute on `device`.

    Raises:
        DoesNotFit: the host memory cannot be had.
    """
    if not offload.layers:
        return None
    # Copies run beside a step and from one to the next, which a graph of one step cannot hold.
    model.can_be_captured = False
    layers = model.decoder_layers()
    return OffloadedLayers([layers[index] for index in offload.layers], device)


def build_model(config: Any, make: LayerFactory) -> Model:
    """A model without memory, on the meta device; raises ModelRefused for what would run wrongly."""
    arch = describe(config)
    if arch is not None:
        return build_decoder(arch, config, make)
    # transformers' modelling code takes seconds to import, and most models do not need it.
    model: Model = importlib.import_module("ondol.modeling.generic").build_generic(config, make)
    return model


def _ignored(config: Any) -> frozenset[str]:
    return frozenset({"lm_head.weight"}) if config.tie_word_embeddings else frozenset()


def _context_length(config: Any) -> int:
    length = getattr(config, "max_position_embeddings", None)
    if not isinstance(length, int) or length <= 0:
        raise ModelRefused("config.json names no max_position_embeddings")
    return length


def _notes(config: Any, on_load: OnLoad | None) -> tuple[str, ...]:
    notes = []
    if getattr(config, "pretraining_tp", 1) not in (1, None):
        notes.append(
            f"pretraining_tp={config.pretraining_tp} is ignored: it only changes how training rounded"
        )
    if on_load is not None and on_load.quantize_head and config.tie_word_embeddings:
        notes.append("the head stays as it is although it was to be quantized: it is the embedding, tied")
    return tuple(notes)
