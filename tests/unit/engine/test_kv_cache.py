import pytest
import torch

from ondol.engine.kv_cache import (
    CPU_LIMIT_BYTES,
    KVPlan,
    KVRequest,
    KVShape,
    allocate,
    available_bytes,
    choose_kv_dtype,
    kv_dtype_name,
    plan_kv_cache,
)
from ondol.errors import DoesNotFit
from ondol.kernels.kv_layer import FLOAT8

CPU = torch.device("cpu")
SHAPE = KVShape(num_layers=3, num_kv_heads=2, head_dim=16)
TOKEN_BYTES = 2 * 3 * 2 * 16 * 4
BLOCK_BYTES = 16 * TOKEN_BYTES


def plan(*, num_blocks=None, available_blocks=1000, max_model_len=None, max_num_seqs=4, context_length=160):
    """A plan where sizes are given in blocks of 16 tokens in float32."""
    kv_cache_bytes = None if num_blocks is None else int(num_blocks * BLOCK_BYTES)
    asked = KVRequest(kv_cache_bytes, max_model_len, max_num_seqs, 16)
    return plan_kv_cache(asked, SHAPE, torch.float32, context_length, available_blocks * BLOCK_BYTES)


def test_a_token_costs_its_keys_and_values_in_every_layer():
    assert SHAPE.bytes_per_token(torch.float32) == TOKEN_BYTES
    assert SHAPE.bytes_per_token(torch.bfloat16) == TOKEN_BYTES // 2
    # A byte for each element, and a scale of 2 bytes for each head.
    assert SHAPE.bytes_per_token(FLOAT8) == 2 * 3 * 2 * (16 + 2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, FLOAT8])
def test_the_cache_takes_the_bytes_that_were_planned(dtype):
    cache = allocate(KVPlan(5, 16, 80, 0), SHAPE, dtype, CPU)
    taken = sum(tensor.nbytes for layer in cache.layers for tensor in layer.tensors())
    assert taken == 5 * 16 * SHAPE.bytes_per_token(dtype)


def test_a_cache_is_as_precise_as_the_model_unless_8_bits_are_asked_for():
    assert choose_kv_dtype("auto", torch.bfloat16) is torch.bfloat16
    assert choose_kv_dtype("fp8", torch.bfloat16) is FLOAT8
    assert [kv_dtype_name(dtype) for dtype in (torch.bfloat16, FLOAT8)] == ["bfloat16", "fp8"]


def test_an_explicit_size_is_taken_whole_blocks_at_a_time():
    decided = plan(num_blocks=25.9)
    assert decided == KVPlan(25, 16, 160, 25 * BLOCK_BYTES)


def test_an_explicit_size_goes_before_what_is_available():
    assert plan(num_blocks=20, available_blocks=15).num_blocks == 20


def test_without_a_size_what_is_available_is_taken():
    assert plan(available_blocks=33).num_blocks == 33


def test_no_more_is_taken_than_all_requests_at_full_length_can_use():
    assert plan(available_blocks=1000, max_num_seqs=4).num_blocks == 4 * 10
    assert plan(num_blocks=1000, max_num_seqs=2, max_model_len=33).num_blocks == 2 * 3


def test_an_asked_context_that_does_not_fit_is_refused_with_numbers():
    with pytest.raises(DoesNotFit) as refusal:
        plan(num_blocks=5000, max_model_len=160_000, context_length=160_000)
    needed_mib = round(10_000 * BLOCK_BYTES / 2**20)
    given_mib = round(5000 * BLOCK_BYTES / 2**20)
    message = str(refusal.value)
    assert f"160000 tokens needs {needed_mib} MiB" in message
    assert f"{given_mib} MiB are given" in message
    assert "--max-model-len (at most 80000)" in message
    assert "--kv-cache-memory" in message


def test_the_most_that_a_refusal_offers_fits():
    assert plan(num_blocks=5000, max_model_len=80_000, context_length=160_000).max_model_len == 80_000


def test_a_context_that_nobody_asked_for_is_shortened_and_noted():
    decided = plan(available_blocks=4, context_length=160)
    assert decided.max_model_len == 64
    assert decided.num_blocks == 4
    assert decided.notes == ("context shortened from 160 to 64 tokens to fit the KV cache",)


@pytest.mark.parametrize("size", [{"num_blocks": 0}, {"num_blocks": 0.5}, {"available_blocks": 0}])
def test_room_for_not_even_one_block_is_refused(size):
    with pytest.raises(DoesNotFit):
        plan(**size)


def test_a_context_beyond_the_models_own_is_allowed_and_noted():
    decided = plan(max_model_len=320)
    assert decided.max_model_len == 320
    assert len(decided.notes) == 1
    assert "beyond the 160 tokens" in decided.notes[0]


def test_a_context_that_ends_within_a_block_keeps_its_length():
    decided = plan(max_model_len=17, max_num_seqs=1)
    assert (decided.num_blocks, decided.max_model_len) == (2, 17)


def test_the_cache_has_the_planned_shape():
    cache = allocate(KVPlan(5, 16, 80, 0), SHAPE, torch.bfloat16, CPU)
    assert len(cache.layers) == 3
    for layer in cache.layers:
        for tensor in layer.tensors():
            assert tensor.shape == (5, 16, 2, 16)
            assert tensor.dtype is torch.bfloat16


def resident_bytes() -> int:
    with open("/proc/self/status", encoding="ascii") as lines:
        (line,) = (line for line in lines if line.startswith("RssAnon:"))
    return int(line.split()[1]) * 1024


def test_memory_of_the_cache_is_taken_only_as_it_is_used():
    before = resident_bytes()
    cache = allocate(KVPlan(20_000, 16, 80, 0), SHAPE, torch.float32, CPU)
    assert sum(tensor.nbytes for layer in cache.layers for tensor in layer.tensors()) > 200 * 2**20
    assert resident_bytes() - before < 20 * 2**20


def test_on_a_cpu_the_cache_leaves_memory_to_others():
    assert 0 < available_bytes(CPU) <= CPU_LIMIT_BYTES
