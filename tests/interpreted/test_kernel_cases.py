"""The cases that benchmarks/gpu checks on a device, by the interpreter."""

import pytest
import torch
from support.kernel_case import tolerance
from support.kernel_cases import all_cases

from ondol.kernels.triton.backend import DETERMINISTIC, TRITON

CPU = torch.device("cpu")
SHORT = [case for case in all_cases() if not case.is_long]
FIRST = list({case.operator: case for case in reversed(SHORT)}.values())


def check(case, dtype):
    # Plain products are the library's unless rows must not depend on each other.
    kernels = DETERMINISTIC if case.operator == "linear" else TRITON
    assert case.error(kernels, CPU, dtype) <= tolerance(CPU, dtype)


@pytest.mark.parametrize("case", FIRST, ids=str)
def test_each_operator_agrees_with_the_reference(case):
    check(case, torch.float32)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("case", SHORT, ids=str)
def test_every_short_case_agrees_with_the_reference(case, dtype):
    """Slow: a minute and more for all of them; the kernels' own tests cover the same ground more thinly."""
    check(case, dtype)
