"""config.json and generation_config.json out of a GGUF file's metadata.

Knows nothing about weights' values or tokenizers. The invariant: a rotary embedding is stated only if
it reproduces the file's own factors.
"""

import math
from typing import Any

import numpy as np

from ondol.errors import ModelRefused
from ondol.model_manager.gguf.checkpoint import EMBEDDING, HEAD, GGUFCheckpoint, shortest_decimal

TOKEN_IDS = {"bos_token_id": "bos", "eos_token_id": "eos", "pad_token_id": "padding"}
LLAMA_BIASES = {
    "attention_bias": ("attn_q", "attn_k", "attn_v", "attn_output"),
    "mlp_bias": ("ffn_gate", "ffn_up", "ffn_down"),
}
# What every published Llama 3.x has; the factor and the original context differ.
LLAMA3_LOW_FREQ_FACTOR = 1.0
LLAMA3_HIGH_FREQ_FACTOR = 4.0
LLAMA3_ORIGINAL_CONTEXTS = tuple(2**exponent for exponent in range(4, 21))


def model_config(checkpoint: GGUFCheckpoint) -> dict[str, Any]:
    """What config.json holds for `LlamaForCausalLM` or `Qwen2ForCausalLM`.

    Raises:
        ModelRefused: the file says something that such a config cannot.
    """
    num_heads = checkpoint.number("attention.head_count")
    hidden_size = checkpoint.number("embedding_length")
    head_dim = checkpoint.number("attention.key_length", hidden_size // num_heads)
    for key in ("attention.value_length", "rope.dimension_count"):
        if checkpoint.number(key, head_dim) != head_dim:
            raise ModelRefused(f"{checkpoint.name} has a {key} other than its head size: not converted.")
    theta = shortest_decimal(checkpoint.own_field("rope.freq_base", 10_000.0))
    own = _llama_config(checkpoint, head_dim) if checkpoint.architecture == "llama" else _qwen2_config()
    return {
        **own,
        "attention_dropout": 0.0,
        **_token_ids(checkpoint),
        "hidden_act": "silu",
        "hidden_size": hidden_size,
        "initializer_range": 0.02,
        "intermediate_size": checkpoint.number("feed_forward_length"),
        "max_position_embeddings": checkpoint.number("context_length"),
        "num_attention_heads": num_heads,
        "num_hidden_layers": checkpoint.number("block_count"),
        "num_key_value_heads": checkpoint.number("attention.head_count_kv", num_heads),
        "rms_norm_eps": shortest_decimal(checkpoint.own_field("attention.layer_norm_rms_epsilon")),
        "rope_scaling": _rope_scaling(checkpoint, theta, head_dim),
        "rope_theta": theta,
        "tie_word_embeddings": not checkpoint.has_tensor(HEAD),
        "dtype": checkpoint.matrix_dtype(),
        "use_cache": True,
        "vocab_size": checkpoint.shape_of(EMBEDDING)[0],
    }


def generation_config(checkpoint: GGUFCheckpoint) -> dict[str, Any]:
    """What generation_config.json holds: the token ids, with every id that ends an answer."""
    ids: dict[str, Any] = dict(_token_ids(checkpoint))
    ends = [ids[key] for key in ("eos_token_id",) if key in ids]
    ends += [checkpoint.field(f"tokenizer.ggml.{key}_token_id", -1) for key in ("eot", "eom")]
    distinct = list(dict.fromkeys(int(end) for end in ends if end >= 0))
    if len(distinct) > 1:
        ids["eos_token_id"] = distinct
    return ids


def _token_ids(checkpoint: GGUFCheckpoint) -> dict[str, int]:
    found = {
        name: int(checkpoint.field(f"tokenizer.ggml.{key}_token_id", -1)) for name, key in TOKEN_IDS.items()
    }
    return {name: token_id for name, token_id in found.items() if token_id >= 0}


def _llama_config(checkpoint: GGUFCheckpoint, head_dim: int) -> dict[str, Any]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "head_dim": head_dim,
        **{key: _has_biases(checkpoint, kinds) for key, kinds in LLAMA_BIASES.items()},
    }


def _qwen2_config() -> dict[str, Any]:
    return {"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "use_sliding_window": False}


def _has_biases(checkpoint: GGUFCheckpoint, kinds: tuple[str, ...]) -> bool:
    present = [kind for kind in kinds if checkpoint.has_tensor(f"blk.0.{kind}.bias")]
    if present and len(present) != len(kinds):
        raise ModelRefused(
            f"{checkpoint.name} has a bias for {', '.join(present)} alone, which no llama config can say."
        )
    return bool(present)


def _rope_scaling(checkpoint: GGUFCheckpoint, theta: float, head_dim: int) -> dict[str, Any] | None:
    factors = checkpoint.rope_factors()
    kind = checkpoint.own_field("rope.scaling.type", "")
    factor = checkpoint.own_field("rope.scaling.factor", 0.0)
    if factors is not None:
        if kind not in ("", "none"):
            raise ModelRefused(f"{checkpoint.name} scales its rotary embedding twice: not converted.")
        return _llama3_scaling(checkpoint.name, factors, theta, head_dim)
    if kind == "none" or (not kind and not factor):
        return None
    if kind == "linear":
        return {"rope_type": "linear", "factor": shortest_decimal(factor)}
    if kind == "yarn":
        original = checkpoint.number("rope.scaling.original_context_length")
        return {
            "rope_type": "yarn",
            "factor": shortest_decimal(factor),
            "original_max_position_embeddings": original,
        }
    raise ModelRefused(f"{checkpoint.name} has a rope.scaling of an unknown type ({kind!r}).")


def _llama3_scaling(
    name: str, factors: np.ndarray[Any, np.dtype[np.float32]], theta: float, head_dim: int
) -> dict[str, Any] | None:
    """Llama 3's scaling whose factors are these; None if they scale nothing.

    GGUF keeps the factors of the frequencies, config.json the four numbers that they come from.

    Raises:
        ModelRefused: no such numbers give these factors.
    """
    if np.all(factors == 1.0):
        return None
    factor = shortest_decimal(float(factors.max()))
    for original in LLAMA3_ORIGINAL_CONTEXTS:
        expected = _llama3_factors(theta, head_dim, factor, original)
        if expected.shape == factors.shape and np.allclose(expected, factors, rtol=1e-5, atol=0.0):
            return {
                "rope_type": "llama3",
                "factor": factor,
                "low_freq_factor": LLAMA3_LOW_FREQ_FACTOR,
                "high_freq_factor": LLAMA3_HIGH_FREQ_FACTOR,
                "original_max_position_embeddings": original,
            }
    raise ModelRefused(f"{name} scales its rotary embedding by rope_freqs in a way that is not Llama 3's.")


def _llama3_factors(
    theta: float, head_dim: int, factor: float, original_context: int
) -> np.ndarray[Any, np.dtype[np.float64]]:
    """[head_dim / 2] divisors: 1 for short waves, `factor` for long ones, in between a blend.

    After the Llama 3.1 reference code (apply_scaling).
    """
    wavelengths = 2 * math.pi * theta ** (np.arange(0, head_dim, 2) / head_dim)
    low, high = LLAMA3_LOW_FREQ_FACTOR, LLAMA3_HIGH_FREQ_FACTOR
    blend = np.clip((original_context / wavelengths - low) / (high - low), 0.0, 1.0)
    return 1.0 / ((1.0 - blend) / factor + blend)
