"""What a GPU could do at best: the bytes that a step must read, over the bandwidth of its memory.

Pure arithmetic over a model's sizes; bandwidth and matrix rate are measured elsewhere. Builds on the roofline
of `ondol bench` and adds what it does not know: weights in fewer bits. Invariant: what is left out (norms,
activations, launches, sampling) only makes the real time longer.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from ondol.bench.roofline import ModelCost

BF16_BYTES = 2

# Bits of one weight in each kind of storage, its share of the scales included. int8 has one float32 scale a
# row, which is left out; int4 a float16 scale for 128 weights; nf4 a float32 scale for 64, and with double
# quantization 8 bits for 64 plus a float32 for 256 of those.
WEIGHT_BITS: Mapping[str, float] = MappingProxyType(
    {
        "bf16": 16.0,
        "int8": 8.0,
        "int4": 4 + 16 / 128,
        "nf4": 4 + 32 / 64,
        "nf4-double": 4 + 8 / 64 + 32 / (64 * 256),
    }
)


@dataclass(frozen=True, slots=True)
class DeviceRates:
    """What a device was measured to do.

    Attributes:
        copy_bytes_per_s: of a large copy, bytes read plus bytes written.
        gemm_flop_per_s: of a large bf16 matrix product.
    """

    copy_bytes_per_s: float
    gemm_flop_per_s: float


@dataclass(frozen=True, slots=True)
class DecodeCeiling:
    """The least a decode step can take.

    Attributes:
        weight_bytes, kv_bytes: that it must read.
    """

    weight_bytes: float
    kv_bytes: float
    batch: int

    def step_ms(self, rates: DeviceRates) -> float:
        """Milliseconds of a step."""
        return (self.weight_bytes + self.kv_bytes) / rates.copy_bytes_per_s * 1e3

    def tokens_per_s(self, rates: DeviceRates) -> float:
        """Tokens per second over the whole batch."""
        return self.batch / self.step_ms(rates) * 1e3


def decode_ceiling(
    config: Mapping[str, Any],
    kind: str,
    batch: int,
    context: float,
    *,
    num_active_experts: float | None = None,
    kv_element_bytes: float = BF16_BYTES,
) -> DecodeCeiling:
    """What one decode step reads.

    Args:
        config: fields of config.json.
        kind: one of WEIGHT_BITS; embeddings, head and routers stay in bf16.
        batch: requests of the step.
        context: tokens of each, mean.
        num_active_experts: different experts that a layer's rows went to, if that was counted; None takes
            the expectation for a router that spreads rows evenly.
        kv_element_bytes: of a key's or value's element, its share of a scale included.
    """
    cost = ModelCost.of_config(config)
    elements = cost.step_elements(batch) - cost.head_elements - _router_elements(config)
    if num_active_experts is not None and cost.num_experts:
        dense_elements = cost.dense_elements - _router_elements(config)
        elements = dense_elements + cost.expert_elements * num_active_experts
    plain_bytes = (cost.head_elements + _router_elements(config)) * BF16_BYTES
    return DecodeCeiling(
        weight_bytes=elements * WEIGHT_BITS[kind] / 8 + plain_bytes,
        kv_bytes=batch * cost.seen_tokens(context) * cost.kv_elements_per_token * kv_element_bytes,
        batch=batch,
    )


def prefill_ms(config: Mapping[str, Any], num_tokens: int, rates: DeviceRates) -> float:
    """The least a prompt can take: its multiplications at the rate of a large matrix product."""
    return ModelCost.of_config(config).input_flops(num_tokens) / rates.gemm_flop_per_s * 1e3


def weights_bytes(config: Mapping[str, Any], kind: str) -> float:
    """All weights in memory, norms and biases left out."""
    cost = ModelCost.of_config(config)
    plain_elements = cost.head_elements + cost.embedding_elements + _router_elements(config)
    return (cost.num_weight_elements - plain_elements) * WEIGHT_BITS[kind] / 8 + plain_elements * BF16_BYTES


def request_rate(
    config: Mapping[str, Any],
    kind: str,
    num_tokens: tuple[int, int],
    memory_bytes: float,
    rates: DeviceRates,
    *,
    kv_element_bytes: float = BF16_BYTES,
) -> float:
    """Requests per second of a device whose memory is full of running requests.

    Decoding is bound by memory and prompts by arithmetic; the two are added, as if they never overlapped.

    Args:
        config, kind, kv_element_bytes: as `decode_ceiling` takes them.
        num_tokens: in and out, of each request.
        memory_bytes: for weights and KV cache together.
        rates: the device's.
    """
    num_in, num_out = num_tokens
    context = num_in + num_out / 2
    cost = ModelCost.of_config(config)
    request_bytes = cost.seen_tokens(context) * cost.kv_elements_per_token * kv_element_bytes
    batch = max(1, int((memory_bytes - weights_bytes(config, kind)) / request_bytes))
    ceiling = decode_ceiling(config, kind, batch, context, kv_element_bytes=kv_element_bytes)
    decode_s = num_out * ceiling.step_ms(rates) / 1e3 / batch
    return 1 / (decode_s + prefill_ms(config, num_in, rates) / 1e3)


def _router_elements(config: Mapping[str, Any]) -> int:
    """Weights of the routers, which stay as they are; all layers are sparse in the models measured here."""
    return int(config.get("num_experts") or 0) * int(config["hidden_size"]) * int(config["num_hidden_layers"])
