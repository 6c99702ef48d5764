"""The models that are measured, as numbers: the published sizes, without weights.

Knows config.json's fields, nothing about torch. The figures are those of the models' own config.json.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

QWEN_ROPE_THETA = 1_000_000.0


@dataclass(frozen=True, slots=True)
class ModelShape:
    """One model without weights.

    Attributes:
        name: what results call it.
        model_type: transformers' name of the family.
        config: fields of its config.json.
    """

    name: str
    model_type: str
    config: Mapping[str, Any]


def _llama_2_7b() -> dict[str, Any]:
    return {
        "vocab_size": 32_000,
        "hidden_size": 4096,
        "intermediate_size": 11_008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 32,
        "max_position_embeddings": 4096,
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": False,
    }


def _qwen(**sizes: int) -> dict[str, Any]:
    return {
        "max_position_embeddings": 32_768,
        "rope_parameters": {"rope_type": "default", "rope_theta": QWEN_ROPE_THETA},
        "rms_norm_eps": 1e-6,
        "tie_word_embeddings": False,
        "use_sliding_window": False,
        "sliding_window": None,
        **sizes,
    }


LLAMA_2_7B = ModelShape("Llama-2-7B", "llama", _llama_2_7b())
QWEN2_7B = ModelShape(
    "Qwen2-7B",
    "qwen2",
    _qwen(
        vocab_size=152_064,
        hidden_size=3584,
        intermediate_size=18_944,
        num_hidden_layers=28,
        num_attention_heads=28,
        num_key_value_heads=4,
    ),
)
QWEN1_5_7B = ModelShape(
    "Qwen1.5-7B",
    "qwen2",
    _qwen(
        vocab_size=151_936,
        hidden_size=4096,
        intermediate_size=11_008,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=32,
    ),
)
QWEN1_5_MOE = ModelShape(
    "Qwen1.5-MoE-A2.7B",
    "qwen2_moe",
    {
        **_qwen(
            vocab_size=151_936,
            hidden_size=2048,
            intermediate_size=5632,
            num_hidden_layers=24,
            num_attention_heads=16,
            num_key_value_heads=16,
            num_experts=60,
            num_experts_per_tok=4,
            moe_intermediate_size=1408,
            shared_expert_intermediate_size=5632,
            decoder_sparse_step=1,
        ),
        "norm_topk_prob": False,
        "mlp_only_layers": [],
    },
)

MODELS = (LLAMA_2_7B, QWEN2_7B, QWEN1_5_7B, QWEN1_5_MOE)

# Sizes for --smoke: the same code paths, seconds on a CPU. Groups of 128 weights fit every matrix.
_TINY = {
    "vocab_size": 512,
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 512,
}
TINY_DENSE = ModelShape(
    "tiny-dense", "qwen2", {**QWEN2_7B.config, **_TINY, "num_key_value_heads": 2, "max_window_layers": 2}
)
# Two buffers serve layers in host memory, so there have to be more of them.
TINY_DEEP = ModelShape("tiny-deep", "qwen2", {**TINY_DENSE.config, "num_hidden_layers": 6})
TINY_MOE = ModelShape(
    "tiny-moe",
    "qwen2_moe",
    {
        **QWEN1_5_MOE.config,
        **_TINY,
        "num_key_value_heads": 4,
        "num_experts": 6,
        "moe_intermediate_size": 128,
        "shared_expert_intermediate_size": 256,
    },
)
