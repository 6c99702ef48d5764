"""Tiny checkpoints as GGUF files, laid out as llama.cpp's converter lays them out."""

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from gguf import (
    MODEL_ARCH,
    MODEL_ARCH_NAMES,
    GGMLQuantizationType,
    GGUFWriter,
    RopeScalingType,
    TokenType,
    get_tensor_name_map,
)
from gguf.quants import quantize
from safetensors.numpy import load_file
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
    tokenizer: Callable[[GGUFWriter], None] | None = None,
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
    (tokenizer or plain_tokenizer)(writer)
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


def rotary_order(weights: np.ndarray, num_heads: int) -> np.ndarray:
    """Query or key rows as llama.cpp keeps them for its llama architecture."""
    pairs = weights.reshape(num_heads, 2, weights.shape[0] // num_heads // 2, *weights.shape[1:])
    return pairs.swapaxes(1, 2).reshape(weights.shape)


def checkpoint_to_gguf(
    folder: Path,
    path: Path,
    *,
    quantization: GGMLQuantizationType = GGMLQuantizationType.F32,
    tokenizer: Callable[[GGUFWriter], None] | None = None,
) -> Path:
    """A llama or qwen2 folder in float32 as a GGUF file, under the names that the gguf package gives."""
    config = json.loads((folder / "config.json").read_text())
    architecture = {"llama": MODEL_ARCH.LLAMA, "qwen2": MODEL_ARCH.QWEN2}[config["model_type"]]
    num_heads, num_kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    writer = GGUFWriter(path, MODEL_ARCH_NAMES[architecture])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(num_heads)
    writer.add_head_count_kv(num_kv_heads)
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    head_dim = config.get("head_dim") or config["hidden_size"] // num_heads
    rope = config["rope_parameters"]
    writer.add_rope_freq_base(rope["rope_theta"])
    if architecture is MODEL_ARCH.LLAMA:
        writer.add_rope_dimension_count(head_dim)
        writer.add_key_length(head_dim)
        writer.add_value_length(head_dim)
    if rope["rope_type"] in ("linear", "yarn"):
        writer.add_rope_scaling_type(RopeScalingType(rope["rope_type"]))
        writer.add_rope_scaling_factor(rope["factor"])
    if rope["rope_type"] == "yarn":
        writer.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
    (tokenizer or plain_tokenizer)(writer)
    names = get_tensor_name_map(architecture, config["num_hidden_layers"])
    if rope["rope_type"] == "llama3":
        writer.add_tensor("rope_freqs.weight", llama3_factors(rope, head_dim))
    for name, values in load_file(folder / "model.safetensors").items():
        if architecture is MODEL_ARCH.LLAMA and ".q_proj." in name:
            values = rotary_order(values, num_heads)
        if architecture is MODEL_ARCH.LLAMA and ".k_proj." in name:
            values = rotary_order(values, num_kv_heads)
        gguf_name = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if values.ndim == 1:
            writer.add_tensor(gguf_name, values)
        else:
            writer.add_tensor(gguf_name, quantize(values, quantization), raw_dtype=quantization)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def llama3_factors(rope: Mapping[str, float], head_dim: int) -> np.ndarray:
    """What llama.cpp's converter writes as rope_freqs for Llama 3's rope_scaling."""
    low_wavelength = rope["original_max_position_embeddings"] / rope["low_freq_factor"]
    high_wavelength = rope["original_max_position_embeddings"] / rope["high_freq_factor"]
    factors = []
    for index in range(0, head_dim, 2):
        wavelength = 2 * math.pi * rope["rope_theta"] ** (index / head_dim)
        if wavelength < high_wavelength:
            factors.append(1.0)
        elif wavelength > low_wavelength:
            factors.append(rope["factor"])
        else:
            share = rope["original_max_position_embeddings"] / wavelength - rope["low_freq_factor"]
            share /= rope["high_freq_factor"] - rope["low_freq_factor"]
            factors.append(1 / ((1 - share) / rope["factor"] + share))
    return np.array(factors, dtype=np.float32)


def plain_tokenizer(writer: GGUFWriter) -> None:
    """The tokenizer of `write_gguf`."""
    add_tokenizer(writer, "smollm")


def byte_level_vocabulary(tokenizer_json: str) -> Callable[[GGUFWriter, str], None]:
    """Writes the vocabulary of a byte-level tokenizer.json, as llama.cpp's converter does."""
    spec = json.loads(tokenizer_json)
    added = {token["id"]: token for token in spec["added_tokens"]}
    vocabulary = {index: token for token, index in spec["model"]["vocab"].items()}
    vocabulary |= {index: token["content"] for index, token in added.items()}
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in spec["model"]["merges"]]

    def kind(index: int) -> TokenType:
        if index not in added:
            return TokenType.NORMAL
        return TokenType.CONTROL if added[index]["special"] else TokenType.USER_DEFINED

    def write(writer: GGUFWriter, pre_tokenizer: str) -> None:
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre(pre_tokenizer)
        writer.add_token_list([vocabulary[index] for index in range(len(vocabulary))])
        writer.add_token_types([kind(index) for index in range(len(vocabulary))])
        writer.add_token_merges(merges)

    return write
