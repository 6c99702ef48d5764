"""What is saved is compared with bitsandbytes itself, and int4 with an own definition in plain numbers."""

import json

import bitsandbytes.functional
import pytest
import torch
from bitsandbytes.nn import Int8Params

from ondol.modeling.quantization.saved_formats import SavedInt4, SavedInt8, SavedNF4
from ondol.modeling.slots import BadTensor

SHAPES = [(24, 128), (8, 96), (16, 8), (520, 64)]
DTYPES = [torch.float32, torch.float16, torch.bfloat16]


def weights(shape, dtype=torch.float32, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).mul_(0.1).to(dtype)


def planned(saved, shape):
    return {tensor.name: (tensor.dtype, tensor.shape) for tensor in saved.layout("m", shape)}


def shapes_of(tensors):
    return {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    "saved", [SavedNF4(True), SavedNF4(False), SavedInt8(), SavedInt4(64), SavedInt4(None)]
)
def test_the_layout_says_exactly_what_encode_returns(saved, shape):
    assert shapes_of(saved.encode("m", weights(shape))) == planned(saved, shape)


@pytest.mark.parametrize("use_double_quant", [True, False])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_nf4_is_what_bitsandbytes_saves(shape, dtype, use_double_quant):
    weight = weights(shape, dtype)
    packed, state = bitsandbytes.functional.quantize_4bit(
        weight, blocksize=64, compress_statistics=use_double_quant, quant_type="nf4"
    )
    expected = {f"m.weight.{key}": tensor for key, tensor in state.as_dict(packed=True).items()}
    found = dict(SavedNF4(use_double_quant).encode("m", weight))
    name = "m.weight.quant_state.bitsandbytes__nf4"
    assert json.loads(bytes(found.pop(name).tolist())) == json.loads(bytes(expected.pop(name).tolist()))
    assert torch.equal(found.pop("m.weight"), packed)
    assert shapes_of(found) == shapes_of(expected)
    for key, tensor in expected.items():
        assert torch.equal(found[key], tensor), key


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_int8_is_what_bitsandbytes_saves(shape, dtype):
    weight = weights(shape, dtype) * torch.logspace(-6, 4, shape[0])[:, None].to(dtype)
    expected = Int8Params(weight.clone(), requires_grad=False, has_fp16_weights=False).to("cpu")
    found = SavedInt8().encode("m", weight)
    codes, absmax, _ = bitsandbytes.functional.int8_vectorwise_quant(weight.half())
    has_scale = absmax > 0
    assert torch.equal(found["m.weight"][has_scale], codes[has_scale])
    assert torch.equal(found["m.SCB"], absmax)
    assert found["m.weight_format"].item() == 0
    if expected.SCB is not None:  # quantized by this version on a CPU too
        assert torch.equal(found["m.SCB"], expected.SCB)


def test_rows_of_zeros_are_saved_as_zeros():
    weight = weights((8, 64))
    weight[2] = 0
    int8 = SavedInt8().encode("m", weight)
    assert int8["m.SCB"][2] == 0
    assert not int8["m.weight"][2].any()
    nf4 = SavedNF4(False).encode("m", weight)
    assert nf4["m.weight.absmax"][2] == 0


def unpacked(words, num_rows):
    """[n / 8, m] int32 -> [n, m]: eight codes of a word, lowest bits first."""
    unsigned = words.to(torch.int64) & 0xFFFFFFFF
    return torch.stack([(unsigned[row // 8] >> (4 * (row % 8))) & 0xF for row in range(num_rows)])


@pytest.mark.parametrize("group_size", [32, 64, 128, None])
@pytest.mark.parametrize("shape", SHAPES)
def test_int4_codes_are_the_nearest_of_sixteen_steps(shape, group_size):
    weight = weights(shape, torch.bfloat16)
    weight[1] = 0
    tensors = SavedInt4(group_size).encode("m", weight)
    num_out, num_in = shape
    codes = unpacked(tensors["m.qweight"], num_in).T
    zeros = unpacked(tensors["m.qzeros"].T, num_out).T + 1
    assert bool((zeros == 8).all())
    groups = tensors["m.g_idx"].tolist()
    assert groups == [column // (group_size or num_in) for column in range(num_in)]
    scales = tensors["m.scales"].double()
    for row in range(num_out):
        for first in range(0, num_in, group_size or num_in):
            group = weight[row, first : first + (group_size or num_in)].double()
            scale = float(scales[groups[first], row])
            assert scale == pytest.approx(float(group.abs().max()) / 7.5, rel=2**-11, abs=2**-24)
            steps = torch.arange(16, dtype=torch.float64).sub(8) * scale
            nearest = (group[:, None] - steps).abs().min(dim=1).values
            found = codes[row, first : first + len(group)].double().sub(8) * scale
            torch.testing.assert_close((group - found).abs(), nearest, rtol=1e-6, atol=1e-9)
    assert bool((codes[1] == 8).all())


def test_int4_refuses_what_its_storage_cannot_hold():
    with pytest.raises(BadTensor, match=r"m\.weight .*--skip-modules"):
        SavedInt4(128).layout("m", (12, 64))
    with pytest.raises(BadTensor, match="float16 scales"):
        SavedInt4(None).encode("m", torch.full((8, 8), 1e6))


@pytest.mark.parametrize("saved", [SavedNF4(True), SavedInt8(), SavedInt4(64)])
def test_other_dtypes_are_refused(saved):
    with pytest.raises(BadTensor, match="float64"):
        saved.encode("m", torch.zeros(8, 8, dtype=torch.float64))
