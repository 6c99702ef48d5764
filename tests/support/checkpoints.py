"""Tiny random checkpoints of every family, in Hugging Face layout, and what transformers makes of them.

Weights are drawn wide enough that greedy decoding does not settle into one repeated token.
"""

from pathlib import Path
from typing import Any

import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM
from transformers.utils import logging as transformers_logging

VOCAB_SIZE = 512

SIZES: dict[str, Any] = {
    "vocab_size": VOCAB_SIZE,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": None,
    "initializer_range": 0.2,
    "tie_word_embeddings": False,
}

LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}

SPARSE: dict[str, Any] = {
    "num_experts": 8,
    "num_experts_per_tok": 3,
    "moe_intermediate_size": 32,
    "shared_expert_intermediate_size": 64,
    "norm_topk_prob": False,
    "qkv_bias": True,
}

# name -> (model type, what differs from SIZES)
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {}),
    "llama-2": ("llama", {"num_key_value_heads": 4, "pretraining_tp": 2, "pad_token_id": -1}),
    "llama-tied-biased": (
        "llama",
        {"tie_word_embeddings": True, "attention_bias": True, "mlp_bias": True, "head_dim": 24},
    ),
    "llama-3-rope": ("llama", {"rope_parameters": LLAMA3_ROPE}),
    "mistral": ("mistral", {"sliding_window": 13}),
    "qwen2": ("qwen2", {}),
    "qwen2-sliding": ("qwen2", {"use_sliding_window": True, "sliding_window": 11, "max_window_layers": 1}),
    "qwen2_moe": ("qwen2_moe", SPARSE),
    "qwen2_moe-mixed": ("qwen2_moe", {**SPARSE, "decoder_sparse_step": 2, "mlp_only_layers": [1]}),
    "qwen3": ("qwen3", {"head_dim": 32}),
    "phi3": ("phi3", {"sliding_window": 17}),
    "olmo2": ("olmo2", {}),
}


def save_checkpoint(
    folder: Path, family: str, *, max_shard_size: str = "1GB", stored_dtype: str = "float32", **overrides: Any
) -> Path:
    """Write config.json and random safetensors of a family to `folder`; returns it."""
    transformers_logging.disable_progress_bar()
    model_type, options = FAMILIES[family]
    config = CONFIG_MAPPING[model_type](**{**SIZES, **options, **overrides})
    torch.manual_seed(sum(family.encode()))
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    for name, parameter in model.named_parameters():
        # Norms near 1 and biases away from 0: a loader that drops or swaps them is noticed.
        if "norm" in name:
            torch.nn.init.normal_(parameter, mean=1.0, std=0.2)
        elif name.endswith("bias"):
            torch.nn.init.normal_(parameter, std=0.3)
    model.to(getattr(torch, stored_dtype)).save_pretrained(folder, max_shard_size=max_shard_size)
    return folder


def reference_model(folder: Path) -> Any:
    """transformers' own model of the folder, in float32 with eager attention."""
    transformers_logging.disable_progress_bar()
    return AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager"
    ).eval()


def reference_tokens(model: Any, prompt_ids: list[int], max_tokens: int) -> list[int]:
    """Greedy continuation by transformers' generate(), end tokens ignored."""
    ids = torch.tensor([prompt_ids])
    with torch.no_grad():
        output = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=max_tokens,
            min_new_tokens=max_tokens,
            do_sample=False,
            eos_token_id=None,
            pad_token_id=0,
        )
    return [int(token) for token in output[0, len(prompt_ids) :]]
