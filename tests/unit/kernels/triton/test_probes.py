from dataclasses import replace

import pytest
import torch
from triton.runtime.errors import OutOfResources

from ondol.kernels.backend import REFERENCE
from ondol.kernels.triton.probes import wrong_probe

CPU = torch.device("cpu")
PROBED = ["silu_mul", "quantized_linear", "paged_attention", "sample_tokens"]


def test_right_kernels_answer_every_probe():
    assert wrong_probe(REFERENCE, CPU) is None


@pytest.mark.parametrize("operator", PROBED[:3])
@pytest.mark.parametrize("value", [0.0, float("nan")])
def test_a_kernel_that_computes_something_else_is_named(operator, value):
    def compute_wrongly(*arguments):
        return getattr(REFERENCE, operator)(*arguments).fill_(value)

    assert wrong_probe(replace(REFERENCE, **{operator: compute_wrongly}), CPU) == operator


def test_a_sampler_that_does_not_truncate_is_named():
    def sample_greedily_or_first(logits, rows):
        token_ids, is_finite = REFERENCE.sample_tokens(logits, rows)
        return token_ids * (rows.top_ks != 1), is_finite

    assert wrong_probe(replace(REFERENCE, sample_tokens=sample_greedily_or_first), CPU) == "sample_tokens"


@pytest.mark.parametrize("operator", PROBED)
def test_what_a_compiler_raises_is_not_hidden(operator):
    def fail(*arguments):
        raise OutOfResources(300_000, 232_448, "shared memory")

    with pytest.raises(OutOfResources):
        wrong_probe(replace(REFERENCE, **{operator: fail}), CPU)
