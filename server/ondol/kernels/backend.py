"""Which implementation of every operator an engine computes with.

Chosen once per engine and handed down: modelling code calls `kernels.paged_attention` and never asks where
its tensors lie. Knows nothing about models. Invariant: implementations of an operator take the same
arguments, and the torch reference serves wherever another one cannot.
"""

import contextlib
import importlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from ondol.errors import DeviceUnusable
from ondol.kernels import deterministic, operators, quantized, sampling
from ondol.kernels import paged_attention as attention
from ondol.kernels.deterministic_attention import DeterministicAttention
from ondol.kernels.kv_layer import KVLayer
from ondol.kernels.paged_attention import AttentionMetadata
from ondol.kernels.quantized import QuantizedMatrix
from ondol.kernels.row_tiles import RowTiles
from ondol.kernels.sampling import SamplingRows


class KernelFailure(RuntimeError):
    """A kernel cannot be compiled for the device, or asks more of it than it has."""


@dataclass(frozen=True, slots=True)
class Kernels:
    """One implementation of each operator; what is not given is the torch reference.

    The reference's docstrings say what the operators compute: `operators`, `paged_attention`, `quantized`,
    `sampling`.

    Attributes:
        name: "torch" or "triton".
        reads_stale_values: attention multiplies what former owners left in a block by zero instead of not
            reading it, so NaN has to be cleared before.
        is_deterministic: every bit of a row's result is the same whatever rows are computed beside it, on one
            machine; otherwise rows may differ in their last bits.
        failures: what an operator raises that cannot be compiled or launched; see `kernel_failures`.
    """

    name: str
    reads_stale_values: bool = True
    is_deterministic: bool = False
    failures: tuple[type[Exception], ...] = ()
    linear: operators.Linear = operators.linear
    rms_norm: Callable[[Tensor, Tensor, float], Tensor] = operators.rms_norm
    add_rms_norm: Callable[[Tensor, Tensor, Tensor, float], tuple[Tensor, Tensor]] = operators.add_rms_norm
    silu_mul: Callable[[Tensor], Tensor] = operators.silu_mul
    sigmoid: Callable[[Tensor], Tensor] = torch.sigmoid
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
    logsumexp: Callable[[Tensor], Tensor] = operators.logsumexp


@contextlib.contextmanager
def kernel_failures(kernels: Kernels) -> Iterator[None]:
    """Inside, what these kernels raise is raised as `KernelFailure`, whoever made them."""
    try:
        yield
    except kernels.failures as error:
        raise KernelFailure(name_failure(error)) from error


REFERENCE = Kernels("torch")


def deterministic_reference() -> Kernels:
    """The torch reference for a CPU, its rows independent of each other bit by bit; see `deterministic`."""
    tiles = RowTiles()
    linear, silu_mul = deterministic.TiledLinear(tiles), deterministic.silu_mul
    return Kernels(
        "torch",
        # Keys beyond the end of a context are not read.
        reads_stale_values=False,
        is_deterministic=True,
        linear=linear,
        silu_mul=silu_mul,
        sigmoid=deterministic.sigmoid,
        paged_attention=DeterministicAttention(tiles).paged_attention,
        mixture_of_experts=partial(operators.mixture_of_experts, linear=linear, activate=silu_mul),
        quantized_linear=partial(quantized.quantized_linear, linear=linear),
        quantized_mixture_of_experts=partial(
            quantized.quantized_mixture_of_experts, linear=linear, activate=silu_mul
        ),
        sample_tokens=deterministic.sample_tokens,
        logsumexp=deterministic.logsumexp,
    )


def choose_kernels(
    device: torch.device, *, is_deterministic: bool = False
) -> tuple[Kernels, tuple[str, ...]]:
    """The kernels for a device, and notes for a user where they are not the fast ones.

    Raises:
        DeviceUnusable: deterministic ones are asked for, and there are none for this device.
    """
    if device.type != "cuda":
        return (deterministic_reference() if is_deterministic else REFERENCE), ()
    kernels, reason = _triton_kernels(device, is_deterministic=is_deterministic)
    if kernels is not None:
        return kernels, ()
    return REFERENCE, (fall_back(reason, is_deterministic=is_deterministic),)


def fall_back(reason: str, *, is_deterministic: bool) -> str:
    """What a user reads where a GPU computes with the reference, for Triton's kernels cannot be used.

    Raises:
        DeviceUnusable: deterministic ones are asked for, which the reference has for a CPU alone.
    """
    if is_deterministic:
        raise DeviceUnusable(
            f"--deterministic needs Triton's kernels on a GPU, and they cannot be used here ({reason}): "
            "start without it, or with --device cpu."
        )
    return f"Triton's kernels cannot be used; the torch reference serves instead, more slowly: {reason}"


def name_failure(error: Exception) -> str:
    """What went wrong in one line, for people to read."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]


def _triton_kernels(device: torch.device, *, is_deterministic: bool) -> tuple[Kernels | None, str]:
    """Triton's kernels, or why there are none."""
    try:
        # Imported only where it is going to be used: triton is not installed everywhere.
        fast = importlib.import_module("ondol.kernels.triton.backend")
    except ImportError as error:
        return None, str(error)
    reason: str | None = fast.why_unusable(device)
    if reason is not None:
        return None, reason
    return (fast.DETERMINISTIC if is_deterministic else fast.TRITON), ""
