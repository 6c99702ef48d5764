import pytest
import torch

from ondol.kernels.float8 import MAX_CODE, MIN_SCALE, dequantize, quantize

ALL_CODES = torch.arange(256, dtype=torch.uint8)
NUMBERS = ALL_CODES.view(torch.float8_e4m3fn).float()
IS_FINITE = NUMBERS.isfinite()


@pytest.fixture(autouse=True)
def fixed_seed():
    torch.manual_seed(0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_every_code_reads_as_the_number_that_it_is(dtype):
    read = dequantize(ALL_CODES, torch.tensor(1.0).half(), dtype)
    assert read.dtype is dtype
    assert torch.equal(read.float()[IS_FINITE], NUMBERS[IS_FINITE] / 256)
    assert (~IS_FINITE).sum() == 2


def test_every_number_is_written_as_its_own_code():
    vectors = torch.stack((NUMBERS[IS_FINITE], torch.full((254,), MAX_CODE)), dim=1)
    codes, scales = quantize(vectors)
    assert torch.equal(codes[:, 0], ALL_CODES[IS_FINITE])
    assert torch.equal(scales, torch.full((254,), 256.0).half())


@pytest.mark.parametrize("size", [1e-3, 1.0, 300.0, 1e5])
def test_no_code_is_nearer_than_the_one_that_is_written(size):
    vectors = torch.randn(40, 16) * size / 4
    codes, scales = quantize(vectors)
    choices = NUMBERS[IS_FINITE] / 256 * scales.float()[:, None, None]
    error = (dequantize(codes, scales, torch.float32) - vectors).abs()
    smallest = (choices - vectors[..., None]).abs().amin(dim=-1)
    torch.testing.assert_close(error, smallest, rtol=1e-5, atol=1e-6 * size)


def test_between_two_codes_the_even_one_is_written():
    halfway = torch.tensor([17.0, 19.0, 2.0**-10, 3 * 2.0**-10, 16.0, 20.0, 0.0, 2.0**-8])
    codes, _ = quantize(torch.cat((halfway, torch.tensor([MAX_CODE]))))
    assert torch.equal(codes[:4], codes[[4, 5, 6, 7]])


def test_one_outlier_leaves_the_others_as_precise_as_codes_are():
    vectors = torch.randn(20, 64)
    vectors[:, 7] *= 300
    read = dequantize(*quantize(vectors), torch.float32)
    largest = vectors.abs().amax(dim=1, keepdim=True)
    assert ((read - vectors).abs() <= torch.maximum(vectors.abs() / 16, largest * 2**-18) * 1.001).all()


def test_zeros_and_vectors_of_tiny_numbers_are_kept():
    assert not dequantize(*quantize(torch.zeros(3, 8)), torch.float32).any()
    tiny = torch.randn(3, 8) * 1e-7
    codes, scales = quantize(tiny)
    assert (scales == MIN_SCALE).all()
    error = (dequantize(codes, scales, torch.float32) - tiny).abs()
    assert (error <= torch.maximum(tiny.abs() / 16, torch.tensor(2.0**-32))).all()


@pytest.mark.parametrize("value", [float("inf"), -float("inf"), float("nan"), 1e9])
def test_what_cannot_be_told_is_never_read_as_a_number(value):
    vectors = torch.randn(3, 8)
    vectors[1, 3] = value
    read = dequantize(*quantize(vectors), torch.float32)
    assert read[1].isnan().all()
    assert read[[0, 2]].isfinite().all()
