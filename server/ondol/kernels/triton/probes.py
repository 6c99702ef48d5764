"""Small calls of operators, which show whether their kernels can be compiled and run on a device.

One for each kind of kernel: elementwise, a product of packed weights, attention over pages, sampling.
Knows nothing about who computes. Invariant: a probe's right answer is known without another implementation.
"""

from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor

from ondol.kernels.backend import Kernels
from ondol.kernels.kv_layer import make_kv_layer
from ondol.kernels.paged_attention import AttentionMetadata, DecodeRows
from ondol.kernels.quantized import QuantizedFormat, QuantizedMatrix
from ondol.kernels.sampling import SamplingRows

# Two codes of 9 to a byte: the weight 1 at a scale of 1, for the code 8 is zero.
CODES_OF_ONE: Final = 0x99
NUM_INPUTS: Final = 128
NUM_HEADS: Final = 2
HEAD_DIM: Final = 64
BLOCK_SIZE: Final = 16
VOCAB_SIZE: Final = 32
DTYPE: Final = torch.float16


def wrong_probe(kernels: Kernels, device: torch.device) -> str | None:
    """The operator that answers a probe wrongly, or None; raises what the compiler or the device raises."""
    probes: dict[str, Callable[[Kernels, torch.device], bool]] = {
        "silu_mul": _multiplies_gates,
        "quantized_linear": _multiplies_packed_weights,
        "paged_attention": _attends_to_pages,
        "sample_tokens": _samples,
    }
    with torch.inference_mode():
        return next((name for name, is_right in probes.items() if not is_right(kernels, device)), None)


def _multiplies_gates(kernels: Kernels, device: torch.device) -> bool:
    # For a large gate, silu is the identity.
    return _is_all(kernels.silu_mul(torch.full((1, 2), 100.0, device=device)), 10_000.0)


def _multiplies_packed_weights(kernels: Kernels, device: torch.device) -> bool:
    matrix = QuantizedMatrix(QuantizedFormat("int4", NUM_INPUTS), (16,), NUM_INPUTS).to(device)
    matrix.packed.fill_(CODES_OF_ONE)
    assert matrix.scales is not None, "only nested scales lie elsewhere"
    matrix.scales.fill_(1.0)
    hidden = torch.ones((1, NUM_INPUTS), dtype=DTYPE, device=device)
    return _is_all(kernels.quantized_linear(hidden, matrix, None), NUM_INPUTS)


def _attends_to_pages(kernels: Kernels, device: torch.device) -> bool:
    layer = make_kv_layer(1, BLOCK_SIZE, (1, HEAD_DIM), DTYPE, device)
    layer.keys.fill_(1.0)
    layer.values.fill_(2.0)
    index = torch.zeros(1, dtype=torch.int64, device=device)
    lengths = torch.full((1,), BLOCK_SIZE, dtype=torch.int32, device=device)
    decodes = DecodeRows(index, index.to(torch.int32)[:, None], lengths, BLOCK_SIZE)
    query = torch.ones((1, NUM_HEADS, HEAD_DIM), dtype=DTYPE, device=device)
    metadata = AttentionMetadata(index, decodes, [])
    return _is_all(kernels.paged_attention(query, layer, metadata, HEAD_DIM**-0.5, None), 2.0)


def _samples(kernels: Kernels, device: torch.device) -> bool:
    """The likeliest token, by each way of keeping no other one."""
    best = VOCAB_SIZE - 3
    logits = torch.zeros((3, VOCAB_SIZE), device=device)
    logits[:, best] = 1.0
    zeros = torch.zeros(3, dtype=torch.int64, device=device)
    rows = SamplingRows(
        temperatures=torch.tensor([0.0, 1.0, 1.0], device=device),
        top_ks=torch.tensor([0, 1, 0], dtype=torch.int32, device=device),
        top_ps=torch.tensor([1.0, 1.0, 0.01], device=device),
        min_ps=torch.zeros(3, device=device),
        seeds=zeros,
        choices=zeros,
        positions=zeros,
    )
    token_ids, is_finite = kernels.sample_tokens(logits, rows)
    return _is_all(token_ids, best) and bool(is_finite.all())


def _is_all(found: Tensor, value: float) -> bool:
    """Whether everything is nearly the value; NaN is not."""
    return bool(((found - value).abs() <= value * 1e-3).all())
