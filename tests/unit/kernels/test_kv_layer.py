import pytest
import torch

from ondol.kernels.float8 import dequantize, quantize
from ondol.kernels.kv_layer import FLOAT8, kv_head_bytes, make_kv_layer

HEAD_DIM = 8


def layer_of(dtype):
    return make_kv_layer(3, 4, (2, HEAD_DIM), dtype, torch.device("cpu"))


@pytest.mark.parametrize("dtype", [torch.float32, FLOAT8])
def test_writing_touches_the_given_slots_and_no_others(dtype):
    order = torch.randperm(12, generator=torch.Generator().manual_seed(0))
    slots, others = order[:5], order[5:]
    layer = layer_of(dtype)
    layer.clear(torch.arange(3))
    key, value = torch.randn(2, 5, 2, HEAD_DIM)
    layer.write(key, value, slots)
    for read, written in zip(layer.read(torch.arange(3), torch.float32), (key, value), strict=True):
        flat = read.view(12, 2, HEAD_DIM)
        expected = dequantize(*quantize(written), torch.float32) if dtype == FLOAT8 else written
        assert torch.equal(flat[slots], expected)
        assert not flat[others].any()


@pytest.mark.parametrize("dtype", [torch.float32, FLOAT8])
def test_a_cleared_block_reads_as_zero_whatever_was_there(dtype):
    layer = layer_of(dtype)
    nans = torch.full((12, 2, HEAD_DIM), float("nan"))
    layer.write(nans, nans, torch.arange(12))
    layer.clear(torch.tensor([1]))
    for read in layer.read(torch.tensor([1]), torch.float32):
        assert not read.any()
    for read in layer.read(torch.tensor([0, 2]), torch.float32):
        assert read.isnan().all()


@pytest.mark.parametrize(("dtype", "num_bytes"), [(torch.float32, 512), (torch.bfloat16, 256), (FLOAT8, 130)])
def test_a_head_takes_the_bytes_that_are_counted(dtype, num_bytes):
    layer = make_kv_layer(5, 16, (2, 128), dtype, torch.device("cpu"))
    assert kv_head_bytes(128, dtype) == num_bytes
    assert sum(tensor.nbytes for tensor in layer.tensors()) == 2 * 5 * 16 * 2 * num_bytes
    assert (layer.block_size, layer.num_kv_heads, layer.head_dim) == (16, 2, 128)


def test_halves_are_read_in_the_dtype_that_is_asked_for():
    key, value = layer_of(FLOAT8).read(torch.arange(2), torch.bfloat16)
    assert key.dtype is value.dtype is torch.bfloat16
