"""From prompt ids to text: the one path, and every way out of it."""

import asyncio
from contextlib import aclosing

import pytest
from support.fake_model import FakeCall, FakeModel, fake_model
from support.tokenizers import save_sentencepiece_tokenizer

from ondol.engine.messages import TokenLogprob, TokenOutput
from ondol.engine.sampling_params import SamplingParams
from ondol.errors import EngineFailed, QueueFull
from ondol.metrics import Metrics
from ondol.service.generation import GenerationRequest, TextDelta, interleave, stream_text

pytestmark = pytest.mark.anyio

PARAMS = SamplingParams(max_tokens=100)


def ended(metrics: Metrics) -> dict[str, float]:
    reasons = ("stop", "length", "error", "abort")
    counts = {
        reason: metrics.value("ondol_requests_total", {"model": "tiny", "finish_reason": reason})
        for reason in reasons
    }
    return {reason: count for reason, count in counts.items() if count}


async def collect(model: FakeModel, metrics: Metrics, stop: tuple[str, ...] = ()) -> list[TextDelta]:
    request = GenerationRequest([5, 6], PARAMS, stop)
    return [delta async for delta in stream_text(model, request, metrics)]


async def test_deltas_add_up_to_the_text_and_count_every_token(model, metrics):
    text = "안녕하세요 😀 hello"
    ids = model.tokenizer.encode_rendered(text)

    def script(call: FakeCall) -> None:
        for token_id in ids:
            call.feed([token_id])
        call.feed([2], "stop", stop_token_id=2)

    model.engine.script = script
    deltas = await collect(model, metrics)
    assert "".join(delta.text for delta in deltas) == text
    assert "�" not in "".join(delta.text for delta in deltas)
    assert [token_id for delta in deltas for token_id in delta.token_ids] == [*ids, 2]
    assert [delta.finish_reason for delta in deltas] == [None] * (len(deltas) - 1) + ["stop"]
    assert ended(metrics) == {"stop": 1}


async def test_an_end_token_shows_no_text_even_if_it_is_an_ordinary_piece(model, metrics):
    (letter,) = model.tokenizer.encode_rendered("x")
    model.engine.script = lambda call: call.feed([letter, letter], "stop", stop_token_id=letter)
    (delta,) = await collect(model, metrics)
    assert (delta.text, delta.token_ids) == ("x", (letter, letter))


async def test_at_the_length_limit_what_was_held_back_is_released(model, metrics):
    def script(call: FakeCall) -> None:
        call.feed(model.tokenizer.encode_rendered("yes EN"))
        call.feed(model.tokenizer.encode_rendered("끝")[:1], "length")

    model.engine.script = script
    deltas = await collect(model, metrics, stop=("END",))
    text = "".join(delta.text for delta in deltas)
    assert text.startswith("yes EN")
    assert deltas[-1].finish_reason == "length"
    assert ended(metrics) == {"length": 1}


async def test_a_stop_string_across_tokens_ends_the_text_and_aborts_the_engine(model, metrics):
    def script(call: FakeCall) -> None:
        for letter in "go STOP on and on":
            call.feed(model.tokenizer.encode_rendered(letter))

    model.engine.script = script
    deltas = await collect(model, metrics, stop=("nothing", "STOP"))
    assert "".join(delta.text for delta in deltas) == "go "
    assert deltas[-1].finish_reason == "stop"
    assert model.engine.calls[0].was_aborted
    assert model.engine.num_open == 0
    assert ended(metrics) == {"stop": 1}


async def test_the_engine_is_free_before_the_last_delta_is_taken(model, metrics):
    model.engine.script = lambda call: call.feed(model.tokenizer.encode_rendered("a STOP"))
    stream = stream_text(model, GenerationRequest([5], PARAMS, ("STOP",)), metrics)
    delta = await anext(stream)
    assert delta.finish_reason == "stop"
    assert model.engine.num_open == 0
    await stream.aclose()


async def test_a_stop_string_that_the_last_token_completes_is_a_stop_and_not_a_length(model, metrics):
    model.engine.script = lambda call: call.feed(model.tokenizer.encode_rendered("a STOP"), "length")
    deltas = await collect(model, metrics, stop=("STOP",))
    assert (deltas[-1].text, deltas[-1].finish_reason) == ("a ", "stop")


async def test_closing_the_stream_aborts_the_request(model, metrics):
    model.engine.script = lambda call: call.feed([70])
    async with aclosing(stream_text(model, GenerationRequest([5], PARAMS), metrics)) as stream:
        await anext(stream)
        assert model.engine.num_open == 1
    assert model.engine.num_open == 0
    assert model.engine.calls[0].was_aborted
    assert ended(metrics) == {"abort": 1}


async def test_cancelling_the_reader_aborts_the_request(model, metrics):
    reading = asyncio.create_task(collect(model, metrics))
    call = await model.engine.call()
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)
    assert call.was_aborted
    assert ended(metrics) == {"abort": 1}


async def test_the_engines_death_is_an_error(model, metrics):
    reading = asyncio.create_task(collect(model, metrics))
    await model.engine.call()
    model.engine.die("the engine process was killed by SIGKILL")
    with pytest.raises(EngineFailed, match="SIGKILL"):
        await reading
    assert ended(metrics) == {"error": 1}


async def test_a_step_that_failed_for_this_request_is_an_error(model, metrics):
    model.engine.script = lambda call: call.feed([], "error", error="the logits are not finite")
    with pytest.raises(EngineFailed, match="not finite"):
        await collect(model, metrics)


async def test_a_full_queue_is_refused_before_the_first_delta(model, metrics):
    model.engine._max_open = 0
    with pytest.raises(QueueFull):
        await collect(model, metrics)


async def test_an_engine_that_ends_without_a_reason_is_an_error_and_not_an_end(model, metrics):
    class Mute:
        def generate(self, prompt_ids, params, **_):
            async def nothing():
                return
                yield

            return nothing()

    mute = type(model)(name="tiny", tokenizer=model.tokenizer, engine=Mute())
    with pytest.raises(EngineFailed, match="without a reason"):
        await collect(mute, metrics)


async def test_a_continuation_keeps_the_space_that_an_answer_drops(tmp_path, metrics):
    save_sentencepiece_tokenizer(tmp_path / "sp")
    llama = fake_model(tmp_path / "sp")
    ids = llama.tokenizer.encode_rendered("the dog")
    llama.engine.script = lambda call: call.feed(ids, "length")
    texts = []
    for is_continuation in (True, False):
        request = GenerationRequest([5], PARAMS, is_continuation=is_continuation)
        texts += [delta.text async for delta in stream_text(llama, request, metrics)]
    assert texts == [" the dog", "the dog"]


async def test_the_request_reaches_the_engine_whole(model, metrics):
    model.engine.script = lambda call: call.feed([70], "length")
    request = GenerationRequest([5, 6], PARAMS, cache_salt="pepper", priority=-3)
    assert [delta async for delta in stream_text(model, request, metrics)]
    (call,) = model.engine.calls
    assert (call.prompt_ids, call.params) == ([5, 6], PARAMS)
    assert (call.cache_salt, call.priority) == ("pepper", -3)


def output(token_ids, *, first_index=0, **fields):
    return TokenOutput(request_id="r", first_index=first_index, token_ids=list(token_ids), **fields)


async def test_logprobs_come_with_their_tokens_while_the_text_is_held_back(model, metrics):
    ids = model.tokenizer.encode_rendered("go EN") + model.tokenizer.encode_rendered("DLESS")
    logprobs = [TokenLogprob(token_id, -0.5 * index) for index, token_id in enumerate(ids)]

    def script(call: FakeCall) -> None:
        for index, token_id in enumerate(ids):
            last = "length" if index == len(ids) - 1 else None
            call.outputs.put_nowait(
                output([token_id], first_index=index, logprobs=[logprobs[index]], finish_reason=last)
            )

    model.engine.script = script
    deltas = await collect(model, metrics, stop=("ENDING",))
    assert "".join(delta.text for delta in deltas) == "go ENDLESS"
    assert [one for delta in deltas for one in delta.logprobs] == logprobs
    for delta in deltas:
        assert tuple(one.token_id for one in delta.logprobs) == delta.token_ids


async def test_a_place_in_the_queue_comes_through_and_is_no_token(model, metrics):
    def script(call: FakeCall) -> None:
        call.outputs.put_nowait(output([], queue_position=2))
        call.outputs.put_nowait(output([70], prompt_logprobs=[None, TokenLogprob(6, -1.0)], prefill_s=0.0))
        call.outputs.put_nowait(output([2], first_index=1, finish_reason="stop", stop_token_id=2))

    model.engine.script = script
    waiting, first, last = await collect(model, metrics)
    assert (waiting.text, waiting.token_ids, waiting.queue_position) == ("", (), 2)
    assert first.prompt_logprobs == (None, TokenLogprob(6, -1.0))
    assert (first.queue_position, first.timings, first.stop_token_id) == (None, None, None)
    assert last.stop_token_id == 2
    assert metrics.value("ondol_generation_tokens_total", {"model": "tiny"}) == 2


async def test_the_last_delta_tells_where_the_time_went(model, metrics):
    def script(call: FakeCall) -> None:
        call.outputs.put_nowait(output([70], prefill_s=0.0))
        call.outputs.put_nowait(output([71], first_index=1, finish_reason="length"))

    model.engine.script = script
    first, last = await collect(model, metrics)
    assert first.timings is None
    assert last.timings.prefill_s == 0.0
    assert last.timings.queue_s > 0
    assert last.timings.decode_s > 0


async def test_a_special_token_is_text_for_the_request_that_asks_for_it_alone(model, metrics):
    mark = model.tokenizer.special_token_id("<|im_start|>")
    model.engine.script = lambda call: call.feed([mark, 70], "length")
    texts = []
    for shown in (frozenset({mark}), frozenset()):
        request = GenerationRequest([5], PARAMS, shown_token_ids=shown)
        texts.append("".join([delta.text async for delta in stream_text(model, request, metrics)]))
    assert texts[0] == "<|im_start|>" + texts[1]


async def scripted(*texts: str, fails: bool = False):
    for text in texts:
        await asyncio.sleep(0)
        yield TextDelta(text, (1,))
    if fails:
        raise EngineFailed("broken")
    yield TextDelta("", (), "length")


@pytest.mark.parametrize("num_streams", [1, 2, 5])
async def test_interleaved_streams_keep_their_order_and_their_index(num_streams):
    streams = [scripted(*(f"{index}{step}" for step in range(index + 1))) for index in range(num_streams)]
    texts: dict[int, list[str]] = {index: [] for index in range(num_streams)}
    async for index, delta in interleave(streams):
        texts[index].append(delta.text)
    assert texts == {
        index: [*(f"{index}{step}" for step in range(index + 1)), ""] for index in range(num_streams)
    }


@pytest.mark.parametrize("num_streams", [1, 3])
async def test_the_first_failure_ends_all_interleaved_streams(num_streams):
    closed: list[int] = []

    async def endless(index: int):
        try:
            while True:
                await asyncio.sleep(0)
                yield TextDelta("x", (1,))
        finally:
            closed.append(index)

    streams = [scripted("a", fails=True), *(endless(index) for index in range(1, num_streams))]
    with pytest.raises(EngineFailed, match="broken"):
        [_ async for _ in interleave(streams)]
    assert sorted(closed) == list(range(1, num_streams))


async def test_closing_interleaved_streams_closes_each_also_those_that_wait(model, metrics):
    requests = [GenerationRequest([5], PARAMS) for _ in range(3)]
    stream = interleave([stream_text(model, request, metrics) for request in requests])
    reading = asyncio.create_task(anext(stream))
    calls = [await model.engine.call(index) for index in range(3)]
    calls[1].feed([70])
    index, _ = await reading
    await stream.aclose()
    assert index == 1
    assert all(call.was_aborted for call in calls)
