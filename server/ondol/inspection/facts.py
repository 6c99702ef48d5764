"""The numbers that describe a model: sizes, parameters, context, what a token costs.

Counted over the model as it would be built in full precision, so that they are those of the original where
a checkpoint is quantized. Knows nothing about devices. The invariant: tied weights are counted once.
"""

from dataclasses import dataclass
from typing import Any

import torch

from ondol.inspection.outline import ModelOutline, read_raw_config
from ondol.modeling.architecture import MixtureOfExperts, describe, read_config
from ondol.modeling.footprint import measure_footprint
from ondol.modeling.loading import draw_original

PROJECTIONS_PER_EXPERT = 3


@dataclass(frozen=True, slots=True)
class Rope:
    """Rotary position embedding; factor is None without scaling."""

    theta: float
    kind: str
    factor: float | None

    def __str__(self) -> str:
        scaling = "" if self.kind == "default" else f", {self.kind}"
        return f"theta {self.theta:.15g}{scaling}" + (f" x {self.factor:g}" if self.factor else "")


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What config.json means.

    Attributes:
        architecture: transformers' class.
        num_active_parameters: that one token's computation uses; all of them unless there are experts.
        sliding_window: tokens that a row sees at most, in some layers at least; None sees all.
        kv_values_per_token: elements of keys and values that one token leaves, all layers.
        stored_dtype: of the checkpoint's full-precision weights, as config.json says; None if it does not.
        quantization: method and bits, as "gptq 4-bit"; None in full precision.
    """

    name: str
    origin: str
    licence: str
    architecture: str
    model_type: str
    num_parameters: int
    num_active_parameters: int
    num_layers: int
    hidden_size: int
    intermediate_size: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    vocab_size: int
    context_length: int
    sliding_window: int | None
    rope: Rope
    norm: str
    norm_eps: float
    activation: str
    is_tied: bool
    experts: MixtureOfExperts | None
    kv_values_per_token: int
    stored_dtype: str | None
    quantization: str | None

    def kv_bytes_per_token(self, dtype: torch.dtype) -> int:
        """Bytes of one token's keys and values."""
        return self.kv_values_per_token * dtype.itemsize


def read_facts(outline: ModelOutline) -> ModelFacts:
    """Raises ModelRefused for a model that cannot be served."""
    config, raw = read_config(outline.folder), read_raw_config(outline.folder)
    blueprint = draw_original(outline.folder, torch.device("cpu"), "float16")
    model, footprint = blueprint.model, measure_footprint(blueprint)
    num_parameters = sum(parameter.numel() for parameter in model.parameters())
    architecture = describe(config)
    windows = (
        [kind.sliding_window for kind in architecture.layers if kind.sliding_window] if architecture else []
    )
    return ModelFacts(
        name=outline.name,
        origin=outline.origin,
        licence=outline.licence,
        architecture=class_name(config, raw),
        model_type=config.model_type,
        num_parameters=num_parameters,
        num_active_parameters=num_parameters - _idle_parameters(config),
        num_layers=config.num_hidden_layers,
        hidden_size=config.hidden_size,
        intermediate_size=footprint.intermediate_size,
        num_heads=config.num_attention_heads,
        num_kv_heads=model.num_kv_heads,
        head_dim=model.head_dim,
        vocab_size=config.vocab_size,
        context_length=blueprint.context_length,
        sliding_window=windows[0] if windows else None,
        rope=_rope(config),
        norm="RMSNorm" if hasattr(config, "rms_norm_eps") else "LayerNorm",
        norm_eps=float(
            getattr(config, "rms_norm_eps", None) or getattr(config, "layer_norm_eps", 0.0) or 0.0
        ),
        activation=str(getattr(config, "hidden_act", "")),
        is_tied=bool(config.tie_word_embeddings),
        experts=architecture.experts if architecture else None,
        kv_values_per_token=footprint.num_kv_values,
        stored_dtype=None if config.dtype is None else str(config.dtype).removeprefix("torch."),
        quantization=_quantization(raw),
    )


def class_name(config: Any, raw: dict[str, Any]) -> str:  # noqa: ANN401 - transformers' configurations have no common type
    """The model's class in transformers: as published, or from the model type."""
    published = raw.get("architectures")
    if isinstance(published, list) and published and isinstance(published[0], str):
        return published[0]
    return f"{config.model_type.title().replace('_', '')}ForCausalLM"


def _idle_parameters(config: Any) -> int:  # noqa: ANN401 - as above
    """Parameters of the experts that a token is not sent to."""
    architecture = describe(config)
    if architecture is None or architecture.experts is None:
        return 0
    experts = architecture.experts
    num_sparse = sum(layer.is_sparse for layer in architecture.layers)
    expert_size = PROJECTIONS_PER_EXPERT * architecture.hidden_size * experts.intermediate_size
    return num_sparse * (experts.num_experts - experts.num_experts_per_token) * expert_size


def _rope(config: Any) -> Rope:  # noqa: ANN401 - as above
    parameters = config.rope_parameters
    factor = parameters.get("factor")
    kind = str(parameters.get("rope_type", "default"))
    return Rope(float(parameters["rope_theta"]), kind, None if factor is None else float(factor))


def _quantization(raw: dict[str, Any]) -> str | None:
    settings = raw.get("quantization_config") or raw.get("compression_config")
    if not isinstance(settings, dict):
        return None
    bits = settings.get("bits") or settings.get("w_bit")
    if bits is None and settings.get("load_in_4bit"):
        bits = 4
    if bits is None and settings.get("load_in_8bit"):
        bits = 8
    method = str(settings.get("quant_method", "bitsandbytes" if bits else "quantized"))
    return method if bits is None else f"{method} {bits}-bit"
