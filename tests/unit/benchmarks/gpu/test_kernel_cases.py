import pytest
import torch
from support.kernel_case import relative_error, tolerance
from support.kernel_cases import all_cases

from ondol.kernels.backend import REFERENCE, Kernels

CPU = torch.device("cpu")
SHORT = [case for case in all_cases() if not case.is_long]


def test_every_operator_has_cases_of_its_own_names():
    names = [str(case) for case in all_cases()]
    assert len(names) == len(set(names))
    operators = {name for name in Kernels.__dataclass_fields__ if callable(getattr(REFERENCE, name))}
    assert operators == {case.operator for case in all_cases()}


@pytest.mark.parametrize("case", SHORT, ids=str)
def test_the_reference_in_half_precision_agrees_with_itself_in_full(case):
    assert case.error(REFERENCE, CPU, torch.bfloat16) <= tolerance(CPU, torch.bfloat16)


def test_a_wrong_operator_is_noticed():
    wrong = Kernels("wrong", rms_norm=lambda hidden, weight, eps: hidden * weight)
    (case, *_) = [case for case in SHORT if case.operator == "rms_norm"]
    assert case.error(REFERENCE, CPU, torch.float32) == 0
    assert case.error(wrong, CPU, torch.float32) > tolerance(CPU, torch.float32)


def test_nan_never_passes():
    expected = torch.ones(3)
    error = relative_error(torch.tensor([1.0, float("nan"), 1.0]), expected)
    assert not error <= tolerance(CPU, torch.float32)
    assert relative_error(torch.ones(2), expected) == float("inf")
    assert relative_error(torch.tensor([1, 2]), torch.tensor([1, 3])) == 0.5
