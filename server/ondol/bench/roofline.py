"""The least time a load can take on a machine: the roofline (Williams et al., CACM 52(4), 2009).

Pure arithmetic over a model's config.json and two measured rates; knows nothing about how they were
measured. Every decode step reads the weights and the KV cache once, every token costs its
multiplications: a load takes at least as long as the slower of the two. Invariant: what is left
out (norms, activations, sampling) only makes the real time longer.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ondol.errors import ModelRefused

BYTES_PER_ELEMENT = {"float32": 4, "bfloat16": 2, "float16": 2}
# An 8-bit KV cache holds a code for each element, and beside them a scale for each head's key and value.
FP8_CODE_BYTES = 1
FP8_SCALE_BYTES = 2


@dataclass(frozen=True, slots=True)
class ModelCost:
    """What one token costs, in elements and floating point operations.

    Attributes:
        num_layers: decoder layers.
        attention_width: query heads times head size.
        kv_elements_per_token: key and value elements of one token over all layers.
        kv_heads_per_token: keys and values of single heads of one token over all layers.
        dense_elements: weights that every token passes in the layers (no embeddings, no head).
        expert_elements: weights of one expert, over all layers that have experts; 0 without experts.
        num_experts, num_experts_per_token: 0 without experts.
        head_elements: the output head; it is read for output tokens, tied or not.
        embedding_elements: the input embeddings if they are not the head; looked up, not multiplied.
        max_window: tokens that attention looks back at most; None without a sliding window.
    """

    num_layers: int
    attention_width: int
    kv_elements_per_token: int
    kv_heads_per_token: int
    dense_elements: int
    expert_elements: int
    num_experts: int
    num_experts_per_token: int
    head_elements: int
    embedding_elements: int
    max_window: int | None

    @classmethod
    def of_config(cls, config: Mapping[str, Any]) -> "ModelCost":
        """From config.json of the llama, mistral, qwen2 and qwen2_moe families; raises ModelRefused."""
        try:
            return _cost_of(config)
        except (KeyError, TypeError) as error:
            raise ModelRefused(
                f"config.json is not one of a decoder model with attention: {error}"
            ) from error

    @property
    def num_weight_elements(self) -> int:
        """All weights that lie in memory."""
        return (
            self.dense_elements
            + self.expert_elements * self.num_experts
            + self.head_elements
            + self.embedding_elements
        )

    def step_elements(self, batch: int) -> float:
        """Weights read in one decode step of `batch` streams.

        Experts: the expected number of different ones if the router spreads tokens evenly.
        """
        num_read = 0.0
        if self.num_experts:
            share_missed = (1 - self.num_experts_per_token / self.num_experts) ** batch
            num_read = self.num_experts * (1 - share_missed)
        return self.dense_elements + self.head_elements + self.expert_elements * num_read

    def kv_bytes_per_token(self, dtype: str, kv_cache_dtype: str = "auto") -> int:
        """Bytes of one token's keys and values: "fp8", or "auto" for the model's dtype."""
        if kv_cache_dtype == "fp8":
            return self.kv_elements_per_token * FP8_CODE_BYTES + self.kv_heads_per_token * FP8_SCALE_BYTES
        return self.kv_elements_per_token * BYTES_PER_ELEMENT[dtype]

    def input_flops(self, num_tokens: int) -> float:
        """Operations to compute a prompt of this length, without the head."""
        body = 2 * (self.dense_elements + self.expert_elements * self.num_experts_per_token)
        return num_tokens * (body + self.attention_flops(num_tokens / 2))

    def output_flops(self, context_tokens: float) -> float:
        """Operations of one output token with that many tokens before it."""
        body = 2 * (self.dense_elements + self.expert_elements * self.num_experts_per_token)
        return body + 2 * self.head_elements + self.attention_flops(context_tokens)

    def attention_flops(self, context_tokens: float) -> float:
        """Scores and weighted sum of one token: two products of 2 operations per element."""
        return 4 * self.num_layers * self.attention_width * self.seen_tokens(context_tokens)

    def seen_tokens(self, context_tokens: float) -> float:
        """Tokens of the context that attention can see."""
        return context_tokens if self.max_window is None else min(context_tokens, self.max_window)


@dataclass(frozen=True, slots=True)
class MachineRates:
    """What the machine was measured to do: GB/s (1e9 bytes) and GFLOP/s (1e9 operations)."""

    memory_gb_per_s: float
    gemm_gflop_per_s: float


@dataclass(frozen=True, slots=True)
class Load:
    """The work of one run: mean lengths of one request, how many there are, how many at a time."""

    num_requests: int
    concurrency: int
    mean_input_tokens: float
    mean_cached_tokens: float
    mean_output_tokens: float


@dataclass(frozen=True, slots=True)
class Ceiling:
    """The least time of a load, and so the most output tokens per second; `bound` says by what."""

    least_s: float
    memory_s: float
    compute_s: float
    output_tokens_per_s: float
    bound: str


def ceiling_of(
    load: Load, cost: ModelCost, rates: MachineRates, dtype: str, kv_cache_dtype: str = "auto"
) -> Ceiling:
    """Roofline of a load, supposing that prefill and decode overlap perfectly.

    Weights are in `dtype`, a key of `BYTES_PER_ELEMENT`; for the KV cache see `ModelCost.kv_bytes_per_token`.

    Steps: the first output token comes from prefill, each further one from a decode step that
    serves `concurrency` streams.
    """
    num_output = load.num_requests * load.mean_output_tokens
    num_steps = load.num_requests * max(0.0, load.mean_output_tokens - 1) / load.concurrency
    context = load.mean_input_tokens + load.mean_output_tokens / 2
    kv_tokens = load.concurrency * cost.seen_tokens(context)
    kv_bytes = kv_tokens * cost.kv_bytes_per_token(dtype, kv_cache_dtype)
    step_bytes = cost.step_elements(load.concurrency) * BYTES_PER_ELEMENT[dtype] + kv_bytes
    new_tokens = load.mean_input_tokens - load.mean_cached_tokens
    flops = load.num_requests * cost.input_flops(round(new_tokens)) + num_output * cost.output_flops(context)
    memory_s = num_steps * step_bytes / (rates.memory_gb_per_s * 1e9)
    compute_s = flops / (rates.gemm_gflop_per_s * 1e9)
    least_s = max(memory_s, compute_s)
    return Ceiling(
        least_s=round(least_s, 6),
        memory_s=round(memory_s, 6),
        compute_s=round(compute_s, 6),
        output_tokens_per_s=round(num_output / least_s, 3) if least_s > 0 else 0.0,
        bound="memory" if memory_s >= compute_s else "compute",
    )


def _cost_of(config: Mapping[str, Any]) -> ModelCost:
    hidden, layers, heads = config["hidden_size"], config["num_hidden_layers"], config["num_attention_heads"]
    kv_heads = config.get("num_key_value_heads") or heads
    head_size = config.get("head_dim") or hidden // heads
    attention = 2 * hidden * heads * head_size + 2 * hidden * kv_heads * head_size
    num_experts = config.get("num_experts") or 0
    num_sparse = _num_sparse_layers(config, layers) if num_experts else 0
    feed_forward = (layers - num_sparse) * 3 * hidden * config["intermediate_size"]
    if num_sparse:
        shared = 3 * hidden * (config.get("shared_expert_intermediate_size") or 0)
        feed_forward += num_sparse * (shared + hidden * num_experts)
    vocabulary = hidden * config["vocab_size"]
    has_window = config.get("use_sliding_window", True) and config.get("sliding_window")
    return ModelCost(
        num_layers=layers,
        attention_width=heads * head_size,
        kv_elements_per_token=2 * layers * kv_heads * head_size,
        kv_heads_per_token=2 * layers * kv_heads,
        dense_elements=layers * attention + feed_forward,
        expert_elements=num_sparse * 3 * hidden * config["moe_intermediate_size"] if num_sparse else 0,
        num_experts=num_experts if num_sparse else 0,
        num_experts_per_token=config["num_experts_per_tok"] if num_sparse else 0,
        head_elements=vocabulary,
        embedding_elements=0 if config.get("tie_word_embeddings") else vocabulary,
        max_window=config["sliding_window"] if has_window else None,
    )


def _num_sparse_layers(config: Mapping[str, Any], num_layers: int) -> int:
    """Layers with experts, by Qwen2-MoE's rule: every `decoder_sparse_step`-th, less `mlp_only_layers`."""
    step = config.get("decoder_sparse_step") or 1
    dense = set(config.get("mlp_only_layers") or ())
    return sum(index not in dense and (index + 1) % step == 0 for index in range(num_layers))
