"""The Triton implementation of the operators, and whether it runs on a device.

Knows nothing about who chooses it. Invariant: nothing here raises because a device, a driver or a compiler is
missing; that is a reason, which a user reads.
"""

import subprocess
import sys
from dataclasses import replace
from functools import partial

import torch
from triton.errors import TritonError

from ondol.kernels.backend import Kernels, name_failure
from ondol.kernels.deterministic import logsumexp
from ondol.kernels.triton.attention import paged_attention
from ondol.kernels.triton.dense import linear
from ondol.kernels.triton.elementwise import rotate_and_write_kv, silu_mul
from ondol.kernels.triton.experts import mixture_of_experts, quantized_mixture_of_experts, route
from ondol.kernels.triton.norms import add_rms_norm, rms_norm
from ondol.kernels.triton.probes import wrong_probe
from ondol.kernels.triton.quantized import quantized_linear
from ondol.kernels.triton.sampling import sample_tokens

# What Triton raises where it cannot compile or launch a kernel: its own errors, more shared memory than
# there is among them, or a C compiler's.
FAILURES = (TritonError, OSError, subprocess.CalledProcessError)
# And where it finds no driver: it asserts that there is a libcuda.so.1.
PROBE_ERRORS = (*FAILURES, RuntimeError, AssertionError)

# The compute capability that Triton is made for; older cards have no bfloat16, and less shared memory than
# some kernels take.
LEAST_MAJOR = 8

TRITON = Kernels(
    "triton",
    reads_stale_values=False,
    failures=FAILURES,
    rms_norm=rms_norm,
    add_rms_norm=add_rms_norm,
    silu_mul=silu_mul,
    rotate_and_write_kv=rotate_and_write_kv,
    paged_attention=paged_attention,
    route=route,
    mixture_of_experts=mixture_of_experts,
    quantized_linear=quantized_linear,
    quantized_mixture_of_experts=quantized_mixture_of_experts,
    sample_tokens=sample_tokens,
)

# Most operators sum each row in one way anyway. Of the others: one method for any number of rows.
DETERMINISTIC = replace(
    TRITON,
    is_deterministic=True,
    linear=linear,
    paged_attention=partial(paged_attention, is_deterministic=True),
    quantized_linear=partial(quantized_linear, max_fused_rows=sys.maxsize, linear=linear),
    quantized_mixture_of_experts=partial(quantized_mixture_of_experts, linear=linear),
    logsumexp=logsumexp,
)


def why_unusable(device: torch.device) -> str | None:
    """Compile and run small kernels; what went wrong in one line, or None."""
    try:
        if device.type == "cuda":
            major, minor = torch.cuda.get_device_capability(device)
            if major < LEAST_MAJOR:
                return f"the card's compute capability is {major}.{minor}, they need {LEAST_MAJOR}.0"
        wrong = wrong_probe(TRITON, device)
    except PROBE_ERRORS as error:
        return name_failure(error)
    return None if wrong is None else f"a probe of {wrong} computed something else than it should"
