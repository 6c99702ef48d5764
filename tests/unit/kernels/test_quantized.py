import pytest
import torch

from ondol.kernels import quantized
from ondol.kernels.quantized import QuantizedFormat, QuantizedMatrix

FORMATS = {
    "int8": QuantizedFormat("int8", group_size=None),
    "int4": QuantizedFormat("int4", 32, has_zeros=True, scale_dtype=torch.float16),
    "nf4": QuantizedFormat("nf4", 64),
    "nf4-double": QuantizedFormat("nf4", 64, has_nested_scales=True),
    "fp8": QuantizedFormat("fp8_e4m3", group_size=None),
}


def random_matrix(fmt, part_rows, num_in, **options):
    matrix = QuantizedMatrix(fmt, part_rows, num_in, **options)
    generator = torch.Generator().manual_seed(0)
    for parameter in matrix.parameters():
        values = torch.randint(0, 120, parameter.shape, generator=generator)
        parameter.copy_(values / 100 if parameter.is_floating_point() else values)
    return matrix


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("form", FORMATS)
def test_pieces_change_no_bit_of_a_dequantized_matrix(monkeypatch, form, dtype):
    matrix = random_matrix(FORMATS[form], (9, 8), 192)
    whole = matrix.dequantize(dtype)
    monkeypatch.setattr(quantized, "PIECE_WEIGHTS", 3 * 192)
    assert matrix.num_piece_rows == 3
    assert torch.equal(matrix.dequantize(dtype), whole)
    assert bool(whole.isfinite().all())
    assert bool(whole.any())


def test_one_expert_of_a_stack_is_dequantized_in_pieces_too(monkeypatch):
    stack = random_matrix(FORMATS["int4"], (16,), 64, num_experts=3)
    whole = stack.dequantize(torch.float32, 2)
    monkeypatch.setattr(quantized, "PIECE_WEIGHTS", 5 * 64)
    assert torch.equal(stack.dequantize(torch.float32, 2), whole)
    assert not torch.equal(stack.dequantize(torch.float32, 1), whole)


def test_a_flat_matrix_is_one_piece_and_rows_longer_than_a_piece_are_one_each(monkeypatch):
    monkeypatch.setattr(quantized, "PIECE_WEIGHTS", 64)
    assert random_matrix(FORMATS["nf4"], (10,), 67, is_flat=True).num_piece_rows == 1
    assert random_matrix(FORMATS["nf4"], (10,), 128).num_piece_rows == 1
