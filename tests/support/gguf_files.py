"""Tiny llama checkpoints as GGUF files, laid out as llama.cpp's converter lays them out."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType, GGUFWriter, TokenType
from gguf.quants import quantize
from tokenizers.pre_tokenizers import ByteLevel

HIDDEN_SIZE = 64
NUM_LAYERS = 2
NUM_HEADS = 4
NUM_KV_HEADS = 2
HEAD_DIM = HIDDEN_SIZE // NUM_HEADS
INTERMEDIATE_SIZE = 96
SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
MERGES = (("h", "e"), ("l", "l"), ("he", "ll"), ("hell", "o"), ("Ġ", "hello"), ("1", "2"))
CHAT_TEMPLATE = "{% for message in messages %}<|im_start|>{{ message['content'] }}<|im_end|>{% endfor %}"


def vocabulary() -> list[str]:
    merged = ["".join(pair) for pair in MERGES]
    return [*SPECIAL_TOKENS, *sorted(ByteLevel.alphabet()), *merged]


def random_weights(*, tied: bool = True, seed: int = 0) -> dict[str, np.ndarray]:
    """Weights by GGUF name, with query and key rows in GGUF's order."""
    generator = np.random.default_rng(seed)

    def matrix(*shape: int) -> np.ndarray:
        return (generator.standard_normal(shape) * 0.2).astype(np.float32)

    kv_size = NUM_KV_HEADS * HEAD_DIM
    weights = {"token_embd.weight": matrix(len(vocabulary()), HIDDEN_SIZE)}
    for layer in range(NUM_LAYERS):
        shapes = {
            "attn_norm": (HIDDEN_SIZE,),
            "attn_q": (HIDDEN_SIZE, HIDDEN_SIZE),
            "attn_k": (kv_size, HIDDEN_SIZE),
            "attn_v": (kv_size, HIDDEN_SIZE),
            "attn_output": (HIDDEN_SIZE, HIDDEN_SIZE),
            "ffn_norm": (HIDDEN_SIZE,),
            "ffn_gate": (INTERMEDIATE_SIZE, HIDDEN_SIZE),
            "ffn_up": (INTERMEDIATE_SIZE, HIDDEN_SIZE),
            "ffn_down": (HIDDEN_SIZE, INTERMEDIATE_SIZE),
        }
        weights |= {f"blk.{layer}.{kind}.weight": matrix(*shape) for kind, shape in shapes.items()}
    weights["output_norm.weight"] = matrix(HIDDEN_SIZE)
    if not tied:
        weights["output.weight"] = matrix(len(vocabulary()), HIDDEN_SIZE)
    return weights


def write_gguf(
    path: Path,
    weights: Mapping[str, np.ndarray],
    quantization: GGMLQuantizationType = GGMLQuantizationType.F32,
    *,
    architecture: str = "llama",
    pre_tokenizer: str = "smollm",
    rope_scaling: float | None = None,
) -> Path:
    """Write a complete file; matrices are stored in the given type, vectors in float32."""
    writer = GGUFWriter(path, architecture)
    writer.add_block_count(NUM_LAYERS)
    writer.add_context_length(128)
    writer.add_embedding_length(HIDDEN_SIZE)
    writer.add_feed_forward_length(INTERMEDIATE_SIZE)
    writer.add_head_count(NUM_HEADS)
    writer.add_head_count_kv(NUM_KV_HEADS)
    writer.add_rope_freq_base(100_000.0)
    writer.add_rope_dimension_count(HEAD_DIM)
    writer.add_layer_norm_rms_eps(1e-5)
    if rope_scaling:
        writer.add_rope_scaling_factor(rope_scaling)
    add_tokenizer(writer, pre_tokenizer)
    for name, values in weights.items():
        if values.ndim == 1:
            writer.add_tensor(name, values)
        else:
            writer.add_tensor(name, quantize(values, quantization), raw_dtype=quantization)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def add_tokenizer(writer: GGUFWriter, pre_tokenizer: str) -> None:
    tokens = vocabulary()
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre_tokenizer)
    writer.add_token_list(tokens)
    writer.add_token_types(
        [TokenType.CONTROL if token in SPECIAL_TOKENS else TokenType.NORMAL for token in tokens]
    )
    writer.add_token_merges([" ".join(pair) for pair in MERGES])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_add_bos_token(False)
    writer.add_chat_template(CHAT_TEMPLATE)
