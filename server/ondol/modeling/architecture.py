"""What a checkpoint's config.json says, reduced to what building and running it needs.

Reads JSON and transformers' config classes, no weights. Refuses by name what Ondol would run
wrongly. Invariant: everything an `Architecture` promises is implemented in `decoder.py`.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from transformers import CONFIG_MAPPING

from ondol.errors import ModelRefused

# Keys that would steer transformers' own code paths; a checkpoint has no say in those
# (CVE-2026-4372 got remote code run this way).
IGNORED_KEYS = (
    "auto_map",
    "_attn_implementation",
    "_attn_implementation_internal",
    "_attn_implementation_autoset",
    "_experts_implementation",
    "_experts_implementation_internal",
    "attn_implementation",
    "experts_implementation",
    # Read by modeling/quantization; transformers must not act on them.
    "quantization_config",
    "compression_config",
)

# Rotary embeddings whose frequencies do not depend on the sequence length.
STATIC_ROPE_TYPES = ("default", "linear", "llama3", "yarn")


@dataclass(frozen=True, slots=True)
class MixtureOfExperts:
    """Sizes of a sparse feed-forward block with a shared expert (Qwen1.5-MoE)."""

    num_experts: int
    num_experts_per_token: int
    intermediate_size: int
    shared_intermediate_size: int
    normalize_weights: bool


@dataclass(frozen=True, slots=True)
class LayerKind:
    """What distinguishes one decoder layer from the next.

    Attributes:
        sliding_window: tokens a row sees, itself included; None is full attention.
        is_sparse: mixture of experts instead of one dense feed-forward block.
    """

    sliding_window: int | None
    is_sparse: bool


@dataclass(frozen=True, slots=True)
class Architecture:
    """A decoder-only transformer of the llama kind, in numbers."""

    model_type: str
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    rms_norm_eps: float
    max_position_embeddings: int
    qkv_bias: bool
    output_bias: bool
    mlp_bias: bool
    tie_word_embeddings: bool
    layers: tuple[LayerKind, ...]
    experts: MixtureOfExperts | None


def read_config(folder: Path) -> Any:
    """Parse config.json into transformers' config object.

    Raises:
        ModelRefused: unreadable, of an unknown model type, or with values that
            transformers' own validation rejects.
    """
    path = folder / "config.json"
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelRefused(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(raw, dict) or not isinstance(raw.get("model_type"), str):
        raise ModelRefused(f"{path} names no model_type; is this a Hugging Face model folder?")
    model_type = raw["model_type"]
    if model_type not in CONFIG_MAPPING:
        remote = " It brings its own code, which Ondol never runs." if "auto_map" in raw else ""
        raise ModelRefused(f"model type '{model_type}' is not known to this transformers.{remote}")
    values = {key: value for key, value in raw.items() if key not in IGNORED_KEYS}
    try:
        return CONFIG_MAPPING[model_type].from_dict(values)
    except (ValueError, TypeError, KeyError, StrictDataclassError) as error:
        reason = " ".join(str(error).split())
        raise ModelRefused(f"{path} is not a valid {model_type} configuration: {reason}") from error


def rope_type(config: Any) -> str:
    """The rotary embedding's kind; raises ModelRefused if it depends on the sequence length."""
    parameters = config.rope_parameters
    if "rope_type" not in parameters:
        raise ModelRefused("rotary embeddings that differ between layers are not supported")
    kind = str(parameters["rope_type"])
    if kind not in STATIC_ROPE_TYPES:
        raise ModelRefused(
            f"rope type '{kind}' is not supported: its frequencies depend on the sequence length"
        )
    return kind


def describe(config: Any) -> Architecture | None:
    """The architecture of one of the families that `decoder.py` implements; None for others.

    Raises:
        ModelRefused: one of these families with an option that is not implemented.
    """
    build = {
        "llama": _llama,
        "mistral": _mistral,
        "qwen2": _qwen2,
        "qwen2_moe": _qwen2_moe,
    }.get(config.model_type)
    if build is None:
        return None
    if config.hidden_act != "silu":
        raise ModelRefused(f"activation '{config.hidden_act}' is not supported in {config.model_type}")
    rope_type(config)
    if config.rope_parameters.get("partial_rotary_factor", 1.0) != 1.0:
        raise ModelRefused(f"partial rotary embeddings are not supported in {config.model_type}")
    return build(config)


def _llama(config: Any) -> Architecture:
    layers = (LayerKind(None, False),) * config.num_hidden_layers
    bias = bool(config.attention_bias)
    return _dense(config, layers, qkv_bias=bias, output_bias=bias, mlp_bias=bool(config.mlp_bias))


def _mistral(config: Any) -> Architecture:
    layers = (LayerKind(config.sliding_window, False),) * config.num_hidden_layers
    return _dense(config, layers)


def _qwen2(config: Any) -> Architecture:
    layers = tuple(LayerKind(window, False) for window in _windows(config))
    return _dense(config, layers, qkv_bias=True)


def _qwen2_moe(config: Any) -> Architecture:
    layers = tuple(
        LayerKind(window, _is_sparse(config, index)) for index, window in enumerate(_windows(config))
    )
    experts = MixtureOfExperts(
        num_experts=config.num_experts,
        num_experts_per_token=config.num_experts_per_tok,
        intermediate_size=config.moe_intermediate_size,
        shared_intermediate_size=config.shared_expert_intermediate_size,
        normalize_weights=bool(config.norm_topk_prob),
    )
    return _dense(config, layers, qkv_bias=bool(config.qkv_bias), experts=experts)


def _is_sparse(config: Any, layer_index: int) -> bool:
    if layer_index in config.mlp_only_layers or config.num_experts == 0:
        return False
    return bool((layer_index + 1) % config.decoder_sparse_step == 0)


def _windows(config: Any) -> list[int | None]:
    return [config.sliding_window if kind == "sliding_attention" else None for kind in config.layer_types]


def _dense(
    config: Any,
    layers: tuple[LayerKind, ...],
    *,
    qkv_bias: bool = False,
    output_bias: bool = False,
    mlp_bias: bool = False,
    experts: MixtureOfExperts | None = None,
) -> Architecture:
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return Architecture(
        model_type=config.model_type,
        vocab_size=config.vocab_size,
        hidden_size=config.hidden_size,
        intermediate_size=config.intermediate_size,
        num_heads=config.num_attention_heads,
        num_kv_heads=config.num_key_value_heads,
        head_dim=head_dim,
        rms_norm_eps=config.rms_norm_eps,
        max_position_embeddings=config.max_position_embeddings,
        qkv_bias=qkv_bias,
        output_bias=output_bias,
        mlp_bias=mlp_bias,
        tie_word_embeddings=bool(config.tie_word_embeddings),
        layers=layers,
        experts=experts,
    )
