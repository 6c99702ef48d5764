import pytest
import torch
from bitsandbytes import functional
from hypothesis import given, settings
from hypothesis import strategies as st

from ondol.kernels.quantized import FP4_VALUES, NF4_VALUES
from ondol.modeling.quantization.four_bit import CodeTable, quantize_blocks

VALUES = {"nf4": torch.tensor(NF4_VALUES), "fp4": torch.tensor(FP4_VALUES)}
BLOCK_SIZE = 64


def bounds_of(values):
    ascending = values.sort().values
    return (ascending[:-1] + ascending[1:]) / 2


def quantize(weights, method):
    packed = torch.empty(weights.numel() // 2, dtype=torch.uint8)
    absmax = quantize_blocks(weights, VALUES[method], BLOCK_SIZE, packed)
    return packed, absmax


def assert_equals_bitsandbytes(weights, method):
    packed, absmax = quantize(weights, method)
    expected, state = functional.quantize_4bit(weights, blocksize=BLOCK_SIZE, quant_type=method)
    assert torch.equal(packed, expected.flatten())
    assert torch.equal(absmax, state.absmax)


@pytest.mark.parametrize("method", VALUES)
def test_no_cell_holds_two_bounds(method):
    table = CodeTable.build(VALUES[method])
    assert int(table.edges.isfinite().sum()) == len(bounds_of(VALUES[method]))


@pytest.mark.parametrize("method", VALUES)
def test_weights_at_bounds_and_next_to_them_get_the_codes_of_bitsandbytes(method):
    bounds = bounds_of(VALUES[method])
    near = torch.cat([bounds, bounds.nextafter(torch.tensor(2.0)), bounds.nextafter(torch.tensor(-2.0))])
    # The first weight makes every block's scale 1.
    weights = torch.ones(BLOCK_SIZE)
    weights[1 : 1 + len(near)] = near
    assert_equals_bitsandbytes(weights, method)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("method", VALUES)
def test_a_million_weights_get_the_codes_of_bitsandbytes(method, dtype):
    weights = torch.randn(1 << 20, generator=torch.Generator().manual_seed(3))
    # Scales of every magnitude, some of them too small to be inverted.
    weights *= torch.logspace(-45, 4, weights.numel() // BLOCK_SIZE).repeat_interleave(BLOCK_SIZE)
    assert_equals_bitsandbytes(weights.to(dtype), method)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=64, max_size=64))
def test_any_block_gets_the_codes_of_bitsandbytes(block):
    for method in VALUES:
        assert_equals_bitsandbytes(torch.tensor(block, dtype=torch.float32), method)
