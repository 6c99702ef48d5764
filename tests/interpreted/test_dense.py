"""Triton's plain products against the torch reference, and row by row against themselves."""

import pytest
import torch

from ondol.kernels.operators import linear as reference
from ondol.kernels.triton.dense import linear


@pytest.mark.parametrize(("num_rows", "num_in", "num_out"), [(1, 64, 1), (3, 100, 33), (70, 130, 40)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_products_agree_with_the_reference(dtype, num_rows, num_in, num_out):
    torch.manual_seed(0)
    hidden, weight = torch.randn(num_rows, num_in).to(dtype), torch.randn(num_out, num_in).to(dtype)
    bias = torch.randn(num_out).to(dtype) if num_rows > 1 else None
    found = linear(hidden, weight, bias)
    assert found.dtype is dtype
    tolerance = 1e-5 if dtype is torch.float32 else 2e-2
    expected = reference(hidden.float(), weight.float(), None if bias is None else bias.float())
    torch.testing.assert_close(found.float(), expected, rtol=tolerance, atol=10 * tolerance)


def test_a_row_does_not_depend_on_the_rows_beside_it():
    torch.manual_seed(1)
    hidden, weight = torch.randn(140, 96), torch.randn(50, 96)
    every = linear(hidden, weight, None)
    for first, num_rows in ((0, 1), (63, 1), (64, 3), (100, 40), (1, 65)):
        part = slice(first, first + num_rows)
        assert torch.equal(linear(hidden[part], weight, None), every[part])


def test_more_dimensions_than_two_are_kept():
    hidden, weight = torch.randn(2, 3, 32), torch.randn(20, 32)
    assert linear(hidden, weight, None).shape == (2, 3, 20)


def test_no_rows_are_no_work():
    assert linear(torch.randn(0, 32), torch.randn(20, 32), None).shape == (0, 20)
