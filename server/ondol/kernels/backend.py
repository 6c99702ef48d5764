"""Which implementation of every operator an engine computes with.

Chosen once per engine and handed down: modelling code calls `kernels.paged_attention` and never asks where
its tensors lie. Knows nothing about models. Invariant: implementations of an operator take the same
arguments, and the torch reference serves wherever another one cannot.
"""

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ondol.kernels import operators, quantized, sampling
from ondol.kernels import paged_attention as attention
from ondol.kernels.kv_layer import KVLayer
from ondol.kernels.paged_attention import AttentionMetadata
from ondol.kernels.quantized import QuantizedMatrix
from ondol.kernels.sampling import SamplingRows


@dataclass(frozen=True, slots=True)
class Kernels:
    """One implementation of each operator; what is not given is the torch reference.

    The reference's docstrings say what the operators compute: `operators`, `paged_attention`, `quantized`,
    `sampling`.

    Attributes:
        name: "torch" or "triton".
        reads_stale_values: attention multiplies what former owners left in a block by zero instead of not
            reading it, so NaN has to be cleared before.
    """

    name: str
    reads_stale_values: bool = True
    rms_norm: Callable[[Tensor, Tensor, float], Tensor] = operators.rms_norm
    add_rms_norm: Callable[[Tensor, Tensor, Tensor, float], tuple[Tensor, Tensor]] = operators.add_rms_norm
    silu_mul: Callable[[Tensor], Tensor] = operators.silu_mul
    rotate_and_write_kv: Callable[[Tensor, tuple[Tensor, Tensor], KVLayer, Tensor], Tensor] = (
        attention.rotate_and_write_kv
    )
    paged_attention: Callable[[Tensor, KVLayer, AttentionMetadata, float, int | None], Tensor] = (
        attention.paged_attention
    )
    route: Callable[[Tensor, int, bool], tuple[Tensor, Tensor]] = operators.route
    mixture_of_experts: Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor] = (
        operators.mixture_of_experts
    )
    quantized_linear: Callable[[Tensor, QuantizedMatrix, Tensor | None], Tensor] = quantized.quantized_linear
    quantized_mixture_of_experts: Callable[
        [Tensor, Tensor, Tensor, Sequence[QuantizedMatrix], QuantizedMatrix], Tensor
    ] = quantized.quantized_mixture_of_experts
    sample_tokens: Callable[[Tensor, SamplingRows], tuple[Tensor, Tensor]] = sampling.sample_tokens


REFERENCE = Kernels("torch")


def choose_kernels(device: torch.device) -> tuple[Kernels, tuple[str, ...]]:
    """The kernels for a device, and notes for a user where they are not the fast ones."""
    if device.type != "cuda":
        return REFERENCE, ()
    try:
        # Imported only where it is going to be used: triton is not installed everywhere.
        fast = importlib.import_module("ondol.kernels.triton.backend")
    except ImportError as error:
        return REFERENCE, (_slow_note(str(error)),)
    kernels: Kernels = fast.TRITON
    reason: str | None = fast.why_unusable(device)
    return (kernels, ()) if reason is None else (REFERENCE, (_slow_note(reason),))


def _slow_note(reason: str) -> str:
    return f"Triton's kernels cannot be used; the torch reference serves instead, more slowly: {reason}"
