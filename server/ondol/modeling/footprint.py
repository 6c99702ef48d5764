"""What a model takes in memory, counted over its shapes.

Weights are counted over the model as it will be built, on the meta device, so that their bytes are exact;
the workspace is an estimate of a step's largest scratch. Knows nothing about devices or settings.
"""

import math
from dataclasses import dataclass

import torch

from ondol.kernels.kv_layer import FLOAT8, kv_head_bytes
from ondol.kernels.quantized import QuantizedMatrix
from ondol.modeling.loading import Blueprint

# The torch reference makes unpacked codes, indices, values and spread scales on the way: some 20 bytes for
# each weight that it dequantizes at once, beside the matrix that comes of it.
DEQUANTIZE_BYTES = 20
# Float32 values per row of a step: hidden states and residual, q/k/v, gate and up and their product.
HIDDEN_COPIES = 6
INTERMEDIATE_COPIES = 3
# Logits and what the sampler makes of them, float32.
LOGIT_COPIES = 4
# For each query row and key of a prefill: the mask as booleans, repeated for a group's heads, and the
# additive float32 mask that torch's attention makes of it.
MASK_BYTES = 1 + 1 + 4
# The torch reference reads a layer's keys and then its values; where they are codes, the keys lie there as
# float32 while of the values there are codes, float16 and float32.
READ_CODE_BYTES = 6
# Cosines and sines of the context, and the angles that they are built from.
ROTARY_TABLES = 4
# What is resident beside what is counted: operands that the matrix library packs, and freed blocks that are
# too small for the next need. In steps of the starter's engine both together were 6 to 33 MB.
HEAP_BYTES = 20 * 2**20


@dataclass(frozen=True, slots=True)
class Load:
    """What an engine does at its busiest.

    Attributes:
        context: tokens of the longest request.
        num_seqs: requests that run at once.
        num_rows: rows of a step.
        num_cached_tokens: tokens of all running requests together.
    """

    context: int
    num_seqs: int
    num_rows: int
    num_cached_tokens: int


@dataclass(frozen=True, slots=True)
class Footprint:
    """The sizes that a model's memory follows from.

    Attributes:
        weights_bytes: all parameters, scales and tables included; exact.
        num_kv_values: keys and values that one token leaves in the cache, all layers.
        dequantize_bytes: the most that dequantizing one matrix takes, 0 where none is quantized.
    """

    weights_bytes: int
    num_layers: int
    num_kv_values: int
    group_size: int
    head_dim: int
    hidden_size: int
    intermediate_size: int
    vocab_size: int
    dequantize_bytes: int

    def kv_token_bytes(self, dtype: torch.dtype) -> int:
        """Bytes of one token's keys and values, all layers."""
        return self.num_kv_values // self.head_dim * kv_head_bytes(self.head_dim, dtype)

    def workspace_bytes(self, load: Load, dtype: torch.dtype) -> int:
        """Scratch of the largest step and what is built once for the context length.

        Args:
            load: how much runs at once.
            dtype: of the KV cache.
        """
        wide = torch.float32.itemsize
        row_values = HIDDEN_COPIES * self.hidden_size + INTERMEDIATE_COPIES * self.intermediate_size
        num_prefill_rows = min(load.num_rows, load.context)
        # One layer's keys and values of every running request, gathered from their blocks.
        value_bytes = READ_CODE_BYTES if dtype == FLOAT8 else dtype.itemsize
        gathered_bytes = load.num_cached_tokens * self.num_kv_values * value_bytes // self.num_layers
        mask_bytes = MASK_BYTES * num_prefill_rows * self.group_size * load.context
        return (
            wide * load.num_rows * row_values
            + wide * LOGIT_COPIES * load.num_seqs * self.vocab_size
            + wide * ROTARY_TABLES * load.context * self.head_dim
            + max(gathered_bytes + mask_bytes, self.dequantize_bytes)
            + HEAP_BYTES
        )


def measure_footprint(blueprint: Blueprint) -> Footprint:
    """Count a model that was drawn, from its shapes alone."""
    model, config = blueprint.model, blueprint.config
    matrices = (module for _, module in model.named_modules() if isinstance(module, QuantizedMatrix))
    num_heads = config.num_attention_heads
    return Footprint(
        weights_bytes=sum(parameter.nbytes for parameter in model.parameters()),
        num_layers=config.num_hidden_layers,
        num_kv_values=2 * config.num_hidden_layers * model.num_kv_heads * model.head_dim,
        group_size=max(1, num_heads // model.num_kv_heads),
        head_dim=model.head_dim,
        hidden_size=config.hidden_size,
        intermediate_size=getattr(config, "intermediate_size", 4 * config.hidden_size),
        vocab_size=config.vocab_size,
        dequantize_bytes=max((_dequantize_bytes(matrix, blueprint.dtype) for matrix in matrices), default=0),
    )


def _dequantize_bytes(matrix: QuantizedMatrix, dtype: torch.dtype) -> int:
    num_at_once = matrix.num_piece_rows * matrix.num_in
    return dtype.itemsize * math.prod(matrix.shape) + DEQUANTIZE_BYTES * num_at_once
