"""A GGUF file read as the Hugging Face checkpoint that it was made from: metadata and weights.

Knows nothing about where the file came from or where the result goes. The invariant: nothing is
guessed. An architecture, a metadata key, a tensor or a quantization type that cannot be carried over
exactly is refused by name.
"""

import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFReader
from gguf.gguf_reader import ReaderTensor
from gguf.quants import dequantize
from numpy.typing import NDArray

from ondol.errors import ModelRefused

StoredDtype = Literal["F32", "F16", "BF16"]

ARCHITECTURES = ("llama", "qwen2")
# The architecture's own keys whose meaning is carried over; any other key with a value is refused.
KNOWN_KEYS = frozenset(
    {
        "attention.head_count",
        "attention.head_count_kv",
        "attention.key_length",
        "attention.layer_norm_rms_epsilon",
        "attention.value_length",
        "block_count",
        "context_length",
        "embedding_length",
        "feed_forward_length",
        "rope.dimension_count",
        "rope.freq_base",
        "rope.scaling.factor",
        "rope.scaling.finetuned",
        "rope.scaling.original_context_length",
        "rope.scaling.type",
        "tensor_data_layout",
        "vocab_size",
    }
)

EMBEDDING = "token_embd.weight"
HEAD = "output.weight"
# Factors of Llama 3's scaled rotary embedding: part of config.json in the Hugging Face layout.
ROPE_FACTORS = "rope_freqs.weight"
OUTER_NAMES = {
    EMBEDDING: "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    HEAD: "lm_head.weight",
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
LAYER_PATTERN = re.compile(r"blk\.(\d+)\.([a-z_]+)\.(weight|bias)")
# These two are stored as they are, every other type is unpacked to float32.
KEPT_DTYPES: dict[str, StoredDtype] = {"F16": "F16", "BF16": "BF16"}
DTYPE_BYTES = {"F32": 4, "F16": 2, "BF16": 2}
# Weights unpacked at a time: bounds the memory of a conversion, whatever the size of a matrix.
CHUNK_WEIGHTS = 1 << 24


@dataclass(frozen=True, slots=True)
class CheckpointTensor:
    """One tensor under its Hugging Face name.

    Attributes:
        dtype: as a safetensors header spells it.
        chunks: reads the values anew at every call, as whole rows in order: float32, float16, or
            uint16 with the bits of bfloat16.
    """

    name: str
    shape: tuple[int, ...]
    dtype: StoredDtype
    chunks: Callable[[], Iterator[NDArray[Any]]]

    @property
    def num_bytes(self) -> int:
        """Size of the values."""
        return DTYPE_BYTES[self.dtype] * math.prod(self.shape)


class GGUFCheckpoint:
    """View of one GGUF file; opening it maps the file and reads no weights.

    Attributes:
        name: of the file, for messages.
        architecture: one of ARCHITECTURES.

    Raises:
        ModelRefused: not a GGUF file, truncated, in parts, or of an unknown kind.
    """

    def __init__(self, path: Path) -> None:
        self.name = path.name
        try:
            self._reader = GGUFReader(path)
        except (ValueError, IndexError, KeyError, OverflowError) as error:
            raise ModelRefused(f"{self.name} is not a readable GGUF file: {error}") from error
        self.architecture: str = self.field("general.architecture")
        if self.architecture not in ARCHITECTURES:
            raise ModelRefused(
                f"{self.name} is of the architecture {self.architecture!r}; "
                f"known are {' and '.join(ARCHITECTURES)}."
            )
        if self.field("split.count", 0) > 1:
            raise ModelRefused(
                f"{self.name} is one part of several: join them first with llama.cpp's gguf-split --merge."
            )
        for key in self._reader.fields:
            group, _, own_key = key.partition(".")
            if group == self.architecture and own_key not in KNOWN_KEYS and self.field(key):
                raise ModelRefused(f"{self.name} has the metadata key {key}, which is not converted.")

    def field(self, key: str, default: Any = None) -> Any:  # noqa: ANN401 - a GGUF value is of any type
        """A metadata value as a Python object.

        Raises:
            ModelRefused: the key is missing and no default is given.
        """
        found = self._reader.get_field(key)
        if found is not None:
            return found.contents()
        if default is None:
            raise ModelRefused(f"{self.name} lacks the metadata key {key}.")
        return default

    def own_field(self, key: str, default: Any = None) -> Any:  # noqa: ANN401 - as `field`
        """A metadata value of the architecture: `own_field("block_count")` is llama.block_count."""
        return self.field(f"{self.architecture}.{key}", default)

    def number(self, key: str, default: int | None = None) -> int:
        """A whole number of the architecture; refuses one that differs between layers."""
        value = self.own_field(key, default)
        if isinstance(value, list):
            raise ModelRefused(f"{self.name} has a {key} for each layer, which is not converted.")
        return int(value)

    def shape_of(self, name: str) -> tuple[int, ...]:
        """A tensor's shape, rows first, by its GGUF name; raises ModelRefused if there is none."""
        for tensor in self._reader.tensors:
            if tensor.name == name:
                return _shape(tensor)
        raise ModelRefused(f"{self.name} lacks the tensor {name}.")

    def has_tensor(self, name: str) -> bool:
        """Whether the file has a tensor of this GGUF name."""
        return any(tensor.name == name for tensor in self._reader.tensors)

    def rope_factors(self) -> NDArray[np.float32] | None:
        """[head_dim / 2] divisors of the rotary frequencies; None without scaling by this tensor."""
        for tensor in self._reader.tensors:
            if tensor.name == ROPE_FACTORS:
                return np.asarray(tensor.data, dtype=np.float32)
        return None

    def matrix_dtype(self) -> str:
        """The dtype, as config.json spells it, that all matrices of the checkpoint have in common."""
        types = {tensor.tensor_type.name for tensor in self._reader.tensors if len(tensor.shape) > 1}
        return {("F16",): "float16", ("BF16",): "bfloat16"}.get(tuple(types), "float32")

    def tensors(self) -> Iterator[CheckpointTensor]:
        """Every weight of the file, in the file's order.

        Raises:
            ModelRefused: a tensor has no Hugging Face counterpart or cannot be unpacked.
        """
        num_heads = self.number("attention.head_count")
        rotated = {"attn_q": num_heads, "attn_k": self.number("attention.head_count_kv", num_heads)}
        if self.architecture != "llama":
            rotated = {}  # only llama's rows are reordered by llama.cpp
        for tensor in self._reader.tensors:
            if tensor.name != ROPE_FACTORS:
                yield self._checkpoint_tensor(tensor, rotated)

    def _checkpoint_tensor(self, tensor: ReaderTensor, rotated: dict[str, int]) -> CheckpointTensor:
        layer = LAYER_PATTERN.fullmatch(tensor.name)
        kind = layer[2] if layer else ""
        if layer and kind in LAYER_NAMES:
            name = f"model.layers.{layer[1]}.{LAYER_NAMES[kind]}.{layer[3]}"
        elif tensor.name in OUTER_NAMES:
            name = OUTER_NAMES[tensor.name]
        else:
            raise ModelRefused(f"{self.name} holds an unknown tensor: {tensor.name}.")
        if not can_unpack(tensor.tensor_type):
            raise ModelRefused(
                f"{tensor.name} in {self.name} is of the type {tensor.tensor_type.name}, "
                "which the gguf package cannot unpack."
            )
        return CheckpointTensor(
            name=name,
            shape=_shape(tensor),
            dtype=KEPT_DTYPES.get(tensor.tensor_type.name, "F32"),
            chunks=lambda: _chunks(tensor, rotated.get(kind)),
        )


def can_unpack(tensor_type: GGMLQuantizationType) -> bool:
    """Whether the gguf package turns this type into floats; asked by having it unpack one block."""
    block = np.zeros((1, GGML_QUANT_SIZES[tensor_type][1]), dtype=np.uint8)
    try:
        with np.errstate(all="ignore"):
            dequantize(block, tensor_type)
    except NotImplementedError:
        return False
    return True


def unpermute_rotary(weights: NDArray[Any], num_heads: int) -> NDArray[Any]:
    """Undo llama.cpp's reordering of query and key rows.

    GGUF's llama rotates neighbouring rows (2i, 2i+1) of a head, Hugging Face's rotates row i with
    row i + head_dim/2; the converter interleaves the halves on the way in.

    Args:
        weights: [num_heads * head_dim, hidden_size], or [num_heads * head_dim] for a bias.
        num_heads: heads of this projection (key heads for attn_k).
    """
    num_rows = weights.shape[0]
    pairs = weights.reshape(num_heads, num_rows // num_heads // 2, 2, *weights.shape[1:])
    return pairs.swapaxes(1, 2).reshape(weights.shape)


def shortest_decimal(value: float) -> float:
    """The number that was meant by a float32 metadata value: 9.999999747378752e-06 is 1e-05."""
    return float(str(np.float32(value)))


def _shape(tensor: ReaderTensor) -> tuple[int, ...]:
    return tuple(int(size) for size in reversed(tensor.shape))


def _chunks(tensor: ReaderTensor, num_rotated_heads: int | None) -> Iterator[NDArray[Any]]:
    shape = _shape(tensor)
    if num_rotated_heads is not None:
        yield unpermute_rotary(_unpack(tensor, tensor.data, shape), num_rotated_heads)
        return
    num_rows = max(1, CHUNK_WEIGHTS // math.prod(shape[1:]))
    for start in range(0, shape[0], num_rows):
        rows = tensor.data[start : start + num_rows]
        yield _unpack(tensor, rows, (min(num_rows, shape[0] - start), *shape[1:]))


def _unpack(tensor: ReaderTensor, rows: NDArray[Any], shape: Sequence[int]) -> NDArray[Any]:
    match tensor.tensor_type.name:
        case "F16":
            return rows.reshape(shape)
        case "BF16":
            return rows.view(np.uint16).reshape(shape)
        case _:
            weights: NDArray[np.float32] = dequantize(rows, tensor.tensor_type)
            return weights.reshape(shape)
