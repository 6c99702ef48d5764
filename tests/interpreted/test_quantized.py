"""Quantized products of the Triton kernels against the torch reference, by the interpreter."""

import pytest
import torch
from support.quantized_matrices import random_matrix

from ondol.kernels import quantized as reference
from ondol.kernels.triton.quantized import can_fuse, dequantize, quantized_linear

# Group sizes below, at and above the kernel's block; K with a tail of a block, a group and a byte.
FORMATS = {
    "int8 rows": {"kind": "int8", "num_in": 200, "group_size": None},
    "int8 groups with zeros": {"kind": "int8", "num_in": 160, "group_size": 64, "has_zeros": True},
    "int4 in groups of 32": {"kind": "int4", "num_in": 96, "group_size": 32, "scale_dtype": torch.float16},
    "int4 rows": {"kind": "int4", "num_in": 168, "group_size": None},
    "int4 with zeros": {"kind": "int4", "num_in": 256, "group_size": 128, "has_zeros": True},
    "int4 in an order": {
        "kind": "int4", "num_in": 128, "group_size": 128, "has_zeros": True, "is_ordered": True,
        "scale_dtype": torch.float16,
    },
    "nf4": {"kind": "nf4", "num_in": 192, "group_size": 64},
    "nf4 with nested scales": {"kind": "nf4", "num_in": 1088, "group_size": 64, "is_nested": True},
    "fp4 with a short group": {"kind": "fp4", "num_in": 152, "group_size": 64},
    "fp8 rows": {"kind": "fp8_e4m3", "num_in": 128, "group_size": None},
    "fp8 in groups of 256": {"kind": "fp8_e4m3", "num_in": 512, "group_size": 256},
}  # fmt: skip


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(5)


@pytest.mark.parametrize("name", FORMATS)
def test_products_agree_with_the_reference(name):
    matrix = random_matrix(part_rows=(9, 18, 7), **FORMATS[name])
    assert can_fuse(matrix)
    hidden = torch.randn(3, matrix.num_in)
    bias = torch.randn(34)
    _assert_near(quantized_linear(hidden, matrix, bias), hidden, matrix, bias)


@pytest.mark.parametrize("num_rows", [1, 16, 17, 40, 64, 65])
def test_any_number_of_rows_agrees_with_the_reference(num_rows):
    matrix = random_matrix("nf4", (34,), 128, 64)
    hidden = torch.randn(num_rows, 128)
    _assert_near(quantized_linear(hidden, matrix, None), hidden, matrix, None)


def test_a_row_has_the_same_bits_alone_and_among_others():
    matrix = random_matrix("int4", (20,), 256, 128, has_zeros=True)
    hidden = torch.randn(70, 256)
    together = quantized_linear(hidden, matrix, None, max_fused_rows=128)
    for row in (0, 15, 16, 33, 69):
        assert torch.equal(quantized_linear(hidden[row : row + 1], matrix, None)[0], together[row])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["nf4", "int4 with zeros", "int4 in groups of 32", "int8 rows"])
def test_narrow_hidden_states_lose_no_more_than_their_rounding(dtype, name):
    matrix = random_matrix(part_rows=(18,), **FORMATS[name])
    hidden = torch.randn(5, matrix.num_in).to(dtype)
    product = quantized_linear(hidden, matrix, None)
    assert product.dtype == dtype
    exact = hidden.double() @ matrix.dequantize(torch.float64).T
    magnitude = hidden.double().abs() @ matrix.dequantize(torch.float64).abs().T
    # The codebook and the result are rounded.
    assert ((product.double() - exact).abs() <= torch.finfo(dtype).eps * magnitude).all()


def test_leading_dimensions_are_kept():
    matrix = random_matrix("int8", (16,), 64, None)
    hidden = torch.randn(2, 3, 64)
    product = quantized_linear(hidden, matrix, None)
    assert product.shape == (2, 3, 16)
    _assert_near(product, hidden, matrix, None)


@pytest.mark.parametrize("name", [*FORMATS, "flat", "odd groups"])
def test_dequantized_weights_are_those_of_the_reference(name):
    others = {
        "flat": {"kind": "nf4", "num_in": 130, "group_size": 64, "is_flat": True},
        "odd groups": {"kind": "int4", "num_in": 120, "group_size": 24, "has_zeros": True},
    }
    part_rows = (6,) if name == "flat" else (9, 18, 7)
    matrix = random_matrix(part_rows=part_rows, **{**FORMATS, **others}[name])
    # The interpreter cuts bfloat16 off where a GPU rounds.
    for dtype in (torch.float32, torch.float16):
        assert torch.equal(dequantize(matrix, dtype), matrix.dequantize(dtype))


def test_an_expert_is_dequantized_into_the_given_memory():
    stack = random_matrix("nf4", (8, 8), 128, 64, is_nested=True, num_experts=3)
    out = torch.empty(16, 128)
    assert dequantize(stack, torch.float32, 2, out) is out
    assert torch.equal(out, stack.dequantize(torch.float32, 2))


@pytest.mark.parametrize(
    ("num_in", "group_size", "is_flat"),
    [(120, 24, False), (120, 16, False), (120, 64, True), (131, 64, False)],
)
def test_matrices_that_fit_no_block_are_multiplied_all_the_same(num_in, group_size, is_flat):
    matrix = random_matrix("nf4", (10,), num_in, group_size, is_flat=is_flat)
    assert not can_fuse(matrix)
    hidden = torch.randn(3, num_in)
    _assert_near(quantized_linear(hidden, matrix, None), hidden, matrix, None)


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMATS)
def test_long_rows_agree_with_the_reference(name):
    """Tens of seconds: many turns along K, each interpreted."""
    shape = {**FORMATS[name], "num_in": 2048 + FORMATS[name]["num_in"] % 128}
    matrix = random_matrix(part_rows=(17, 8, 9), **shape)
    for num_rows in (1, 33):
        hidden = torch.randn(num_rows, matrix.num_in)
        _assert_near(quantized_linear(hidden, matrix, None), hidden, matrix, None)


def _assert_near(product, hidden, matrix, bias):
    expected = reference.quantized_linear(hidden, matrix, bias)
    # Both sum in float32: what they may differ by grows with what is summed.
    magnitude = matrix.inputs(hidden).abs() @ matrix.dequantize(torch.float32).abs().T
    assert product.shape == expected.shape
    assert ((product - expected).abs() <= 1e-5 * (1 + magnitude)).all()
