"""What a model takes in memory, counted over its shapes.

Weights are counted over the model as it will be built, on the meta device, so that their bytes are exact;
the workspace is an estimate of a step's largest scratch. Knows nothing about devices or settings.
"""

import math
from dataclasses import dataclass

import torch

from ondol.kernels.deterministic_attention import MAX_SCORES, RUN_LEN
from ondol.kernels.kv_layer import FLOAT8, kv_head_bytes
from ondol.kernels.quantized import QuantizedMatrix
from ondol.kernels.row_tiles import SIZES
from ondol.modeling.loading import Blueprint

# Scratch for each weight that the torch reference dequantizes at once: float32 values, zeros and spread
# scales; or 32-bit indices and the values that they look up.
DEQUANTIZE_BYTES = 12
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
# Deterministic mode on a CPU: beside gate and up lies the gate in one piece, filled up, in pieces that were
# computed, and joined again.
DETERMINISTIC_INTERMEDIATE_COPIES = 6
# Its attention has keys and values as they were read, the keys in runs, the values filled up and in runs;
# then both in runs, and the scores twice: in runs and joined, or before and after the softmax.
READ_COPIES, RUN_COPIES, SCORE_COPIES = 5, 2, 2
# Cosines and sines of the context, and the angles that they are built from.
ROTARY_TABLES = 4
# What is resident beside what is counted: operands that the matrix library packs, and freed blocks that are
# too small for the next need. In 30 loads of the starter's engine both together were 10 to 33 MB.
HEAP_BYTES = 20 * 2**20


@dataclass(frozen=True, slots=True)
class Load:
    """What an engine does at its busiest.

    Attributes:
        context: tokens of the longest request.
        num_seqs: requests that run at once.
        num_rows: rows of a step.
        num_cached_tokens: tokens of all running requests together.
        is_deterministic: a CPU computes so that rows do not depend on each other.
    """

    context: int
    num_seqs: int
    num_rows: int
    num_cached_tokens: int
    is_deterministic: bool = False

    @property
    def num_prefill_rows(self) -> int:
        """Rows of one request's chunk."""
        return min(self.num_rows, self.context)


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
        is_deterministic = load.is_deterministic
        num_copies = DETERMINISTIC_INTERMEDIATE_COPIES if is_deterministic else INTERMEDIATE_COPIES
        row_values = HIDDEN_COPIES * self.hidden_size + num_copies * self.intermediate_size
        # How a matrix sums is tried out when it is first met; logits are the widest product.
        num_tried_rows = SIZES[-1] if is_deterministic else 0
        num_logit_rows = max(LOGIT_COPIES * load.num_seqs, num_tried_rows)
        attention_bytes = self._deterministic_attention_bytes if is_deterministic else self._attention_bytes
        return (
            wide * load.num_rows * row_values
            + wide * num_logit_rows * self.vocab_size
            + wide * ROTARY_TABLES * load.context * self.head_dim
            + max(attention_bytes(load, dtype), self.dequantize_bytes)
            + HEAP_BYTES
        )

    def _attention_bytes(self, load: Load, dtype: torch.dtype) -> int:
        """One layer's keys and values of every running request, gathered from their blocks, and a mask."""
        value_bytes = READ_CODE_BYTES if dtype == FLOAT8 else dtype.itemsize
        gathered_bytes = load.num_cached_tokens * self.num_kv_values * value_bytes // self.num_layers
        return gathered_bytes + MASK_BYTES * load.num_prefill_rows * self.group_size * load.context

    def _deterministic_attention_bytes(self, load: Load, dtype: torch.dtype) -> int:
        """One request after the other, in runs of keys, in float32 whatever the cache holds."""
        wide = torch.float32.itemsize
        num_keys = -(-load.context // RUN_LEN) * RUN_LEN
        num_kv_heads = self.num_kv_values // (2 * self.num_layers * self.head_dim)
        run_bytes = wide * num_keys * num_kv_heads * self.head_dim
        num_rows = max(
            1, min(load.num_prefill_rows, MAX_SCORES // (num_kv_heads * self.group_size * num_keys))
        )
        score_bytes = wide * num_rows * num_kv_heads * self.group_size * num_keys
        # Which keys a row sees: compared and inverted, for each of a group's heads.
        mask_bytes = 2 * num_rows * self.group_size * num_keys
        read_bytes = READ_COPIES * run_bytes
        return max(read_bytes, RUN_COPIES * run_bytes + SCORE_COPIES * score_bytes + mask_bytes)


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
