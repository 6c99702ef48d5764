"""Triton's norms, SwiGLU product, rotation and KV write against the torch reference."""

import pytest
import torch

from ondol.kernels.backend import REFERENCE
from ondol.kernels.kv_layer import KVLayer
from ondol.kernels.triton.backend import TRITON

DTYPES = [torch.float32, torch.bfloat16, torch.float16]
# bfloat16 has 8 bits; the reference rounds in more places than a fused kernel, the interpreter downwards.
TOLERANCES = {torch.float32: 2e-6, torch.bfloat16: 2e-2, torch.float16: 3e-3}


@pytest.fixture(autouse=True)
def fixed_seed():
    torch.manual_seed(0)


def assert_near(ours, expected):
    tolerance = TOLERANCES[expected.dtype]
    torch.testing.assert_close(ours, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1, 64), (3, 96), (65, 7), (2, 5000)])
def test_norms_equal_the_reference(shape, dtype):
    hidden, residual = torch.randn(2, *shape).to(dtype) * 3
    weight = torch.randn(shape[1]).to(dtype)
    assert_near(TRITON.rms_norm(hidden, weight, 1e-5), REFERENCE.rms_norm(hidden, weight, 1e-5))
    expected = REFERENCE.add_rms_norm(hidden, residual, weight, 1e-5)
    for ours, theirs in zip(TRITON.add_rms_norm(hidden, residual, weight, 1e-5), expected, strict=True):
        assert_near(ours, theirs)


def test_the_norm_of_zeros_is_zero_and_one_of_large_halves_is_finite():
    assert not TRITON.rms_norm(torch.zeros(1, 8), torch.ones(8), 1e-6).any()
    large = torch.full((1, 8), 60000.0, dtype=torch.float16)
    assert_near(TRITON.rms_norm(large, torch.ones(8).half(), 1e-6), torch.ones(1, 8).half())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1, 16), (5, 1100), (65, 3)])
def test_the_gated_product_equals_the_reference(shape, dtype):
    gate_up = torch.randn(shape[0], 2 * shape[1]).to(dtype) * 4
    assert_near(TRITON.silu_mul(gate_up), REFERENCE.silu_mul(gate_up))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("heads", "head_dim"), [((4, 4), 64), ((7, 1), 128), ((6, 2), 24), ((1, 1), 96)])
def test_rotation_and_kv_write_equal_the_reference(heads, head_dim, dtype):
    num_rows, block_size = 5, 4
    states = torch.randn(num_rows, heads[0] + 2 * heads[1], head_dim).to(dtype)
    angles = torch.randn(num_rows, 1, head_dim // 2).repeat(1, 1, 2)
    rotary = (angles.cos().to(dtype), angles.sin().to(dtype))
    slots = torch.randperm(3 * block_size)[:num_rows]
    found = []
    for kernels in (TRITON, REFERENCE):
        layer = KVLayer(*torch.full((2, 3, block_size, heads[1], head_dim), 7.0).to(dtype))
        query = kernels.rotate_and_write_kv(states, rotary, layer, slots)
        found.append((query, layer.keys, layer.values))
    for ours, expected in zip(*found, strict=True):
        assert_near(ours, expected)
    assert torch.equal(found[0][2], found[1][2]), "values are copied as they are"


# The lanes of a value compute a rotation that nobody keeps.
@pytest.mark.filterwarnings("ignore:invalid value encountered in multiply")
def test_values_that_are_not_finite_stay_in_their_own_place():
    states = torch.randn(2, 4, 8)
    states[0, 3, 0] = float("inf")
    rotary = (torch.ones(2, 1, 8), torch.zeros(2, 1, 8))
    keys, values = torch.zeros(2, 1, 4, 1, 8)
    query = TRITON.rotate_and_write_kv(states, rotary, KVLayer(keys, values), torch.tensor([2, 0]))
    assert torch.isfinite(query).all()
    assert torch.isfinite(keys).all()
    assert torch.isfinite(values).sum() == values.numel() - 1
    assert values[0, 2, 0, 0] == float("inf")
