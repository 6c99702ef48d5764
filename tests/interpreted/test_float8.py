"""Triton's cache of 8-bit floating point against the torch reference."""

import pytest
import torch
from support.ragged_batches import RaggedBatch

from ondol.kernels.backend import REFERENCE
from ondol.kernels.kv_layer import FLOAT8, KVLayer, make_kv_layer
from ondol.kernels.paged_attention import AttentionMetadata, DecodeRows
from ondol.kernels.triton.backend import TRITON

CPU = torch.device("cpu")
NAN = float("nan")


@pytest.fixture(autouse=True)
def fixed_seed():
    torch.manual_seed(0)


def write(kernels, states, num_kv_heads, angles=None):
    """What both put into an empty cache, and the queries."""
    num_rows, _, head_dim = states.shape
    angles = torch.zeros(num_rows, 1, head_dim) if angles is None else angles
    rotary = (angles.cos().to(states.dtype), angles.sin().to(states.dtype))
    layer = make_kv_layer(num_rows // 4 + 2, 4, (num_kv_heads, head_dim), FLOAT8, CPU)
    layer.clear(torch.arange(len(layer.keys)))
    slots = torch.randperm(4 * len(layer.keys), generator=torch.Generator().manual_seed(0))[:num_rows]
    return kernels.rotate_and_write_kv(states, rotary, layer, slots), layer


def assert_same_layers(found, expected):
    for ours, theirs in zip(found.tensors(), expected.tensors(), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize(
    ("heads", "head_dim", "dtype"),
    [((4, 4), 64, torch.float32), ((7, 1), 128, torch.float16), ((6, 2), 24, torch.float32)],
)
def test_codes_and_scales_are_the_references_bit_for_bit(heads, head_dim, dtype):
    sizes = torch.tensor([1e-6, 1e-4, 0.01, 1.0, 30.0, 1000.0])[:, None, None]
    states = (torch.randn(6, heads[0] + 2 * heads[1], head_dim) * sizes).to(dtype)
    states[:, :, 3] *= 12
    query, layer = write(TRITON, states, heads[1])
    expected_query, expected = write(REFERENCE, states, heads[1])
    assert torch.equal(query, expected_query)
    assert_same_layers(layer, expected)


def test_every_number_and_what_lies_half_way_between_is_written_as_the_reference_does():
    numbers = torch.arange(256, dtype=torch.uint8).view(torch.float8_e4m3fn).float()
    numbers = numbers[numbers.isfinite()].sort().values
    halfway = (numbers[1:] + numbers[:-1]) / 2
    values = torch.cat((numbers, halfway, halfway * 1.001, halfway * 0.999, torch.zeros(11))).view(-1, 8)
    # The largest number of a vector is what its scale comes from.
    vectors = torch.cat((values, torch.full_like(values, 448.0)), dim=1).view(16, 8, 16)
    # Four keys and four values a row, and as many queries.
    states = torch.cat((torch.zeros(16, 4, 16), vectors), dim=1)
    _, layer = write(TRITON, states, 4)
    _, expected = write(REFERENCE, states, 4)
    assert_same_layers(layer, expected)


# 0 times infinity, in the lanes of a head whose scale tells that it is not finite; and such a scale.
@pytest.mark.filterwarnings("ignore:invalid value encountered", "ignore:overflow encountered in cast")
@pytest.mark.parametrize("value", [float("inf"), -float("inf"), NAN, 1e9])
def test_what_is_not_finite_makes_its_own_head_nan_and_no_other(value):
    states = torch.randn(2, 6, 8)
    states[1, 3, 2] = value
    _, layer = write(TRITON, states, 2)
    keys, values = layer.read(torch.arange(len(layer.keys)), torch.float32)
    assert keys.isnan().sum() == 8
    assert values.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_every_code_is_read_as_the_number_that_it_is(dtype):
    codes = torch.arange(256, dtype=torch.uint8)
    codes[[127, 255]] = 0
    keys = torch.zeros(1, 16, 1, 256, dtype=torch.uint8)
    values = codes.expand(1, 16, 1, 256).contiguous()
    scales = torch.full((1, 16, 1), 0.75, dtype=torch.float16)
    layer = KVLayer(keys, values, scales, scales.clone())
    table, length = torch.zeros(1, 1, dtype=torch.int32), torch.ones(1, dtype=torch.int32)
    metadata = AttentionMetadata(torch.empty(0), DecodeRows(torch.zeros(1).long(), table, length, 1), [])
    attended = TRITON.paged_attention(torch.ones(1, 1, 256, dtype=dtype), layer, metadata, 1.0, None)
    expected = codes.view(torch.float8_e4m3fn).float() / 256 * 0.75
    assert torch.equal(attended[0, 0], expected.to(dtype))


def check(decodes=(), prefills=(), *, window=None, dtype=torch.float32, **shape):
    """As the reference over the same codes; scales that nobody may read are NaN."""
    shape = {"has_codes": True, "dtype": dtype, **shape}
    expected = RaggedBatch(decodes, prefills, **shape).attend(REFERENCE, window)
    attended = RaggedBatch(decodes, prefills, garbage=NAN, **shape).attend(TRITON, window)
    assert attended.dtype is dtype
    tolerance = 1e-5 if dtype is torch.float32 else 2e-2
    torch.testing.assert_close(attended, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(
    ("heads", "head_dim", "block_size"), [((4, 4), 64, 16), ((7, 1), 128, 16), ((6, 2), 24, 3)]
)
@pytest.mark.parametrize("window", [None, 21])
def test_attention_over_codes_equals_the_reference(heads, head_dim, block_size, window):
    shape = {"heads": heads, "head_dim": head_dim, "block_size": block_size}
    check([1, 17, 300], [(0, 2), (30, 65)], window=window, **shape)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_keeps_its_type(dtype):
    check([20, 300], [(10, 20)], dtype=dtype, heads=(4, 2))


def test_a_chunk_attends_as_the_whole_prompt_does():
    shape = {"heads": (2, 1), "head_dim": 16, "has_codes": True}
    whole = RaggedBatch(prefills=[(0, 100)], **shape)
    chunk = RaggedBatch(prefills=[(30, 70)], **shape)
    chunk.copy_blocks(chunk.metadata.prefills[0].block_ids, whole, whole.metadata.prefills[0].block_ids)
    chunk.query = whole.query[30:].contiguous()
    assert torch.equal(chunk.attend(TRITON), whole.attend(TRITON)[30:])
