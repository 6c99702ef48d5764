"""A GGUF file of the llama architecture, read as the Hugging Face checkpoint it was made from.

Knows nothing about where the file came from or where the result goes. The invariant: nothing is
guessed. A tensor, an architecture or a tokenizer that this module cannot carry over exactly is
refused by name.
"""

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGUFReader
from gguf.gguf_reader import ReaderTensor
from gguf.quants import dequantize
from numpy.typing import NDArray

from ondol.errors import ModelRefused

Float32Array = NDArray[np.float32]

EXACT_TYPES = frozenset({"F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"})

OUTER_NAMES = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
LAYER_NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
LAYER_PATTERN = re.compile(r"blk\.(\d+)\.([a-z_]+)\.weight")


@dataclass(frozen=True, slots=True)
class CheckpointTensor:
    """One weight under its Hugging Face name; `load` computes the float32 values on demand."""

    name: str
    shape: tuple[int, ...]
    load: Callable[[], Float32Array]

    @property
    def num_bytes(self) -> int:
        """Size as float32."""
        return 4 * math.prod(self.shape)


class GGUFCheckpoint:
    """View of one GGUF file; opening it maps the file and reads no weights.

    Raises:
        ModelRefused: not a GGUF file, truncated, or not of the llama architecture.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._reader = GGUFReader(path)
        except (ValueError, IndexError, KeyError, OverflowError) as error:
            raise ModelRefused(f"{path.name} is not a readable GGUF file: {error}") from error
        architecture = self.field("general.architecture")
        if architecture != "llama":
            raise ModelRefused(f"{path.name} is of the architecture {architecture!r}; only 'llama' is known.")
        scaling = [key for key in self._reader.fields if key.startswith("llama.rope.scaling.")]
        if scaling:
            raise ModelRefused(f"{path.name} has a scaled rotary embedding ({scaling[0]}): not known.")

    def field(self, key: str, default: Any = None) -> Any:  # noqa: ANN401 - a GGUF value is of any type
        """A metadata value as a Python object.

        Raises:
            ModelRefused: the key is missing and no default is given.
        """
        found = self._reader.get_field(key)
        if found is not None:
            return found.contents()
        if default is None:
            raise ModelRefused(f"{self._path.name} lacks the metadata key {key}.")
        return default

    def config(self) -> dict[str, Any]:
        """What config.json holds for `LlamaForCausalLM`."""
        num_heads = self.field("llama.attention.head_count")
        hidden_size = self.field("llama.embedding_length")
        head_dim = self.field("llama.attention.key_length", hidden_size // num_heads)
        if self.field("llama.rope.dimension_count", head_dim) != head_dim:
            raise ModelRefused(f"{self._path.name} rotates only a part of each head, which is not converted.")
        return {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "attention_bias": False,
            "attention_dropout": 0.0,
            **self._token_ids(),
            "head_dim": head_dim,
            "hidden_act": "silu",
            "hidden_size": hidden_size,
            "initializer_range": 0.02,
            "intermediate_size": self.field("llama.feed_forward_length"),
            "max_position_embeddings": self.field("llama.context_length"),
            "mlp_bias": False,
            "num_attention_heads": num_heads,
            "num_hidden_layers": self.field("llama.block_count"),
            "num_key_value_heads": self.field("llama.attention.head_count_kv", num_heads),
            "rms_norm_eps": shortest_decimal(self.field("llama.attention.layer_norm_rms_epsilon")),
            "rope_scaling": None,
            "rope_theta": shortest_decimal(self.field("llama.rope.freq_base", 10_000.0)),
            "tie_word_embeddings": all(tensor.name != "output.weight" for tensor in self._reader.tensors),
            "dtype": "float32",
            "use_cache": True,
            "vocab_size": len(self.field("tokenizer.ggml.tokens")),
        }

    def generation_config(self) -> dict[str, Any]:
        """What generation_config.json holds."""
        return dict(self._token_ids())

    def tensors(self) -> Iterator[CheckpointTensor]:
        """Every weight of the file, in the file's order.

        Raises:
            ModelRefused: a tensor has no Hugging Face counterpart or a type that is not known to
                dequantize exactly.
        """
        num_heads = self.field("llama.attention.head_count")
        heads = {"attn_q": num_heads, "attn_k": self.field("llama.attention.head_count_kv", num_heads)}
        for tensor in self._reader.tensors:
            yield self._checkpoint_tensor(tensor, heads)

    def _checkpoint_tensor(self, tensor: ReaderTensor, heads: dict[str, int]) -> CheckpointTensor:
        layer = LAYER_PATTERN.fullmatch(tensor.name)
        kind = layer[2] if layer else ""
        if kind in LAYER_NAMES and layer:
            name = f"model.layers.{layer[1]}.{LAYER_NAMES[kind]}.weight"
        elif tensor.name in OUTER_NAMES:
            name = OUTER_NAMES[tensor.name]
        else:
            raise ModelRefused(f"{self._path.name} holds an unknown tensor: {tensor.name}.")
        if tensor.tensor_type.name not in EXACT_TYPES:
            raise ModelRefused(f"{tensor.name} is of an unknown type: {tensor.tensor_type.name}.")
        shape = tuple(int(size) for size in reversed(tensor.shape))

        def load() -> Float32Array:
            weights = dequantize(tensor.data, tensor.tensor_type).reshape(shape)
            return unpermute_rotary(weights, heads[kind]) if kind in heads else weights

        return CheckpointTensor(name, shape, load)

    def _token_ids(self) -> dict[str, int]:
        ids = {"bos_token_id": "bos", "eos_token_id": "eos", "pad_token_id": "padding"}
        fields = {name: self._reader.get_field(f"tokenizer.ggml.{key}_token_id") for name, key in ids.items()}
        return {name: int(found.contents()) for name, found in fields.items() if found is not None}


def unpermute_rotary(weights: Float32Array, num_heads: int) -> Float32Array:
    """Undo llama.cpp's reordering of query and key rows.

    GGUF's llama rotates neighbouring rows (2i, 2i+1) of a head, Hugging Face's rotates row i with
    row i + head_dim/2; the converter interleaves the halves on the way in.

    Args:
        weights: [num_heads * head_dim, hidden_size].
        num_heads: heads of this projection (key heads for attn_k).
    """
    num_rows, hidden_size = weights.shape
    pairs = weights.reshape(num_heads, num_rows // num_heads // 2, 2, hidden_size)
    return pairs.swapaxes(1, 2).reshape(num_rows, hidden_size)


def shortest_decimal(value: float) -> float:
    """The number that was meant by a float32 metadata value: 9.999999747378752e-06 is 1e-05."""
    return float(str(np.float32(value)))
