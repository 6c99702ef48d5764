import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ondol.engine.messages import (
    LENGTH_PREFIX,
    AbortRequest,
    AddRequest,
    EngineConfig,
    EngineReady,
    EngineStats,
    FromEngine,
    LoadFailed,
    LoadProgress,
    QuantizationConfig,
    StepOutputs,
    ToEngine,
    TokenOutput,
    encode,
)
from ondol.engine.sampling_params import SamplingParams
from ondol.engine.stored_weights import StoredWeights, WeightsReport

TO_ENGINE = [
    EngineConfig(
        model_path="/models/온돌",
        quantization=QuantizationConfig(method="nf4", use_double_quant=True, skip_modules=("o_proj",)),
        max_model_len=4096,
        end_token_ids=(2, 7),
        num_threads=2,
    ),
    AddRequest(
        request_id="r1",
        prompt_ids=[1, 2, 3],
        params=SamplingParams(max_tokens=5, seed=-(2**62), logit_bias=((3, -1.5),), stop_token_ids=(4,)),
        output_ids=[9],
        cache_salt="소금",
        priority=-1,
    ),
    AbortRequest("r1"),
]
FROM_ENGINE = [
    LoadProgress(5, 10),
    EngineReady(
        device="cpu",
        dtype="float32",
        max_model_len=64,
        vocab_size=512,
        max_num_batched_tokens=128,
        block_size=16,
        num_blocks=4,
        weights_bytes=1,
        kv_cache_bytes=2,
        kv_cache_dtype="fp8",
        load_seconds=0.5,
        weights=WeightsReport(
            stored=(
                StoredWeights(
                    kind="nf4",
                    container="uint8",
                    num_modules=7,
                    num_weights=128,
                    num_bytes=72,
                    bits_per_weight=4.5,
                ),
            ),
            unquantized=("lm_head",),
        ),
        notes=("a note",),
    ),
    LoadFailed("ModelRefused", "no"),
    StepOutputs(
        [
            TokenOutput(request_id="r1", first_index=0, token_ids=[5], num_cached_tokens=16),
            TokenOutput(request_id="r2", first_index=3, token_ids=[2], finish_reason="stop", stop_token_id=2),
            TokenOutput(request_id="r3", first_index=0, finish_reason="error", error="it broke"),
        ],
        EngineStats(num_running=2, num_used_blocks=7),
    ),
]


def decode(framed, kind):
    (length,) = LENGTH_PREFIX.unpack(framed[: LENGTH_PREFIX.size])
    assert length == len(framed) - LENGTH_PREFIX.size
    return msgspec.msgpack.decode(framed[LENGTH_PREFIX.size :], type=kind)


@pytest.mark.parametrize("message", TO_ENGINE, ids=lambda message: type(message).__name__)
def test_messages_to_the_engine_arrive_as_they_were_sent(message):
    assert decode(encode(message), ToEngine) == message


@pytest.mark.parametrize("message", FROM_ENGINE, ids=lambda message: type(message).__name__)
def test_messages_from_the_engine_arrive_as_they_were_sent(message):
    assert decode(encode(message), FromEngine) == message


@settings(max_examples=50, deadline=None)
@given(
    prompt_ids=st.lists(st.integers(0, 2**31)),
    seed=st.integers(-(2**63), 2**64 - 1),
    cache_salt=st.text(),
    priority=st.integers(-(2**63), 2**63 - 1),
    temperature=st.floats(0, 2),
)
def test_any_request_arrives_as_it_was_sent(prompt_ids, seed, cache_salt, priority, temperature):
    params = SamplingParams(max_tokens=1, seed=seed, temperature=temperature)
    message = AddRequest(
        request_id="r", prompt_ids=prompt_ids, params=params, cache_salt=cache_salt, priority=priority
    )
    assert decode(encode(message), ToEngine) == message


@pytest.mark.parametrize(
    "body",
    [
        {"type": "run_shell", "command": "true"},
        {"request_id": "r1"},
        {"type": "abort"},
        {"type": "abort", "request_id": 7},
        {"type": "add", "request_id": "r", "prompt_ids": ["one"], "params": {"max_tokens": 1}},
        {"type": "ready"},
    ],
)
def test_what_is_no_message_to_the_engine_is_refused(body):
    with pytest.raises(msgspec.ValidationError):
        msgspec.msgpack.decode(msgspec.msgpack.encode(body), type=ToEngine)


def test_messages_cannot_be_changed_after_the_fact():
    with pytest.raises(AttributeError):
        TO_ENGINE[2].request_id = "r2"


def test_a_token_costs_few_bytes():
    one = encode(StepOutputs([TokenOutput(request_id="r1", first_index=7, token_ids=[5])], EngineStats()))
    two = encode(StepOutputs([TokenOutput(request_id="r1", first_index=7, token_ids=[5])] * 2, EngineStats()))
    assert len(two) - len(one) < 50
