"""A request ends in time, with what it has."""

import asyncio

import pytest
from support.fake_model import FakeCall

from ondol.engine.sampling_params import SamplingParams
from ondol.errors import EngineFailed
from ondol.service.generation import GenerationRequest, stream_text

pytestmark = pytest.mark.anyio

PARAMS = SamplingParams(max_tokens=100)


def request(deadline_s: float, stop: tuple[str, ...] = ()) -> GenerationRequest:
    now_s = asyncio.get_running_loop().time()
    return GenerationRequest([5, 6], PARAMS, stop, deadline_s=now_s + deadline_s)


async def test_what_was_held_back_is_released_at_the_deadline(model, metrics):
    model.engine.script = lambda call: call.feed(model.tokenizer.encode_rendered("so EN"))
    deltas = [delta async for delta in stream_text(model, request(0.1, stop=("END",)), metrics)]
    assert "".join(delta.text for delta in deltas) == "so EN"
    assert deltas[-1].finish_reason == "length"
    assert model.engine.calls[0].was_aborted
    assert model.engine.num_open == 0


async def test_a_deadline_that_has_passed_computes_nothing_more(model, metrics):
    deltas = [delta async for delta in stream_text(model, request(-1), metrics)]
    assert [(delta.text, delta.finish_reason) for delta in deltas] == [("", "length")]
    assert model.engine.num_open == 0


async def test_an_answer_that_ends_in_time_ends_by_itself(model, metrics):
    def script(call: FakeCall) -> None:
        call.feed(model.tokenizer.encode_rendered("ok"))
        call.feed([2], "stop", stop_token_id=2)

    model.engine.script = script
    deltas = [delta async for delta in stream_text(model, request(60), metrics)]
    assert deltas[-1].finish_reason == "stop"
    assert not model.engine.calls[0].was_aborted


async def test_a_failure_before_the_deadline_is_a_failure(model, metrics):
    model.engine.script = lambda call: call.feed([], "error", error="the logits are not finite")
    with pytest.raises(EngineFailed, match="not finite"):
        [delta async for delta in stream_text(model, request(60), metrics)]
