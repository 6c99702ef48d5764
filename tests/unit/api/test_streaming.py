"""Streams as the real OpenAI client sees them, on a live server."""

import io

import httpx
import msgspec
import openai
import pytest
from openai.types import Completion
from openai.types.chat import ChatCompletionChunk
from support.fake_model import FakeCall
from support.front_door import FrontDoor, eventually, live_server

pytestmark = pytest.mark.anyio

CHAT = {"model": "tiny", "messages": [{"role": "user", "content": "안녕"}]}


def say(door: FrontDoor, text: str, *, num_tokens_a_step: int = 1):
    """A script: the engine answers with `text`, ending on the end token."""
    ids = door.model.tokenizer.encode_rendered(text)
    (end_id, *_) = door.model.tokenizer.end_token_ids

    def script(call: FakeCall) -> None:
        for start in range(0, len(ids), num_tokens_a_step):
            call.feed(ids[start : start + num_tokens_a_step])
        call.feed([end_id], "stop", stop_token_id=end_id)

    return script


async def test_a_chat_stream_has_role_text_finish_reason_and_usage_in_this_order(door):
    text = "온돌은 바닥을 데웁니다 😀"
    door.engine.script = say(door, text)
    async with live_server(door) as live, live.openai() as client:
        stream = await client.chat.completions.create(
            **CHAT, stream=True, stream_options={"include_usage": True}
        )
        chunks = [chunk async for chunk in stream]
    for chunk in chunks:
        ChatCompletionChunk.model_validate(chunk.model_dump(exclude_unset=True), strict=False)
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks[:-1]) == text
    assert [chunk.choices[0].finish_reason for chunk in chunks[:-1]] == [None] * (len(chunks) - 2) + ["stop"]
    assert all(chunk.usage is None and "usage" in chunk.model_fields_set for chunk in chunks[:-1])
    assert chunks[-1].choices == []
    usage = chunks[-1].usage
    num_tokens = len(door.model.tokenizer.encode_rendered(text)) + 1
    assert (usage.prompt_tokens, usage.completion_tokens) == (
        len(door.engine.calls[0].prompt_ids),
        num_tokens,
    )
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    assert len({(chunk.id, chunk.created, chunk.model, chunk.system_fingerprint) for chunk in chunks}) == 1
    assert chunks[0].id.startswith("chatcmpl-")
    assert door.is_idle


async def test_without_include_usage_no_chunk_mentions_usage(door):
    door.engine.script = say(door, "hi")
    async with live_server(door) as live, httpx.AsyncClient() as client:
        answer = await client.post(f"{live.url}/v1/chat/completions", json=CHAT | {"stream": True})
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.headers["cache-control"] == "no-cache"
    assert answer.headers["x-accel-buffering"] == "no"
    assert answer.headers["x-request-id"].startswith("req_")
    assert "usage" not in answer.text
    assert answer.text.endswith("data: [DONE]\n\n")


async def test_a_whole_answer_equals_the_stream(door):
    text = "Large language models, 대규모 언어 모델"
    door.engine.script = say(door, text, num_tokens_a_step=3)
    async with live_server(door) as live, live.openai() as client:
        answer = await client.chat.completions.create(**CHAT)
        completion = await client.completions.create(model="tiny", prompt="Once")
    assert answer.choices[0].message.content == text
    assert answer.choices[0].finish_reason == "stop"
    assert answer.object == "chat.completion"
    assert answer.usage.prompt_tokens_details.cached_tokens == 0
    assert completion.choices[0].text == text
    assert completion.object == "text_completion"
    assert completion.id.startswith("cmpl-")
    Completion.model_validate(completion.model_dump())


async def test_cached_prompt_tokens_are_reported(door):
    def script(call: FakeCall) -> None:
        call.feed([5], num_cached_tokens=16)
        call.feed([6], "length", num_cached_tokens=16)

    door.engine.script = script
    async with door.client() as client:
        answer = (await client.post("/v1/chat/completions", json=CHAT)).json()
    assert answer["usage"]["prompt_tokens_details"] == {"cached_tokens": 16}
    assert answer["choices"][0]["finish_reason"] == "length"


async def test_choices_of_one_request_are_streamed_interleaved_under_their_indices(door):
    async with live_server(door) as live, live.openai() as client:
        stream = await client.chat.completions.create(**CHAT, stream=True, n=2, seed=7)
        first, second = await door.engine.call(0), await door.engine.call(1)
        a, b = (door.model.tokenizer.encode_rendered(letter) for letter in "ab")
        texts = {0: "", 1: ""}
        finished: list[int] = []
        second.feed(b)
        second.feed(b, "length")
        async for chunk in stream:
            choice = chunk.choices[0]
            texts[choice.index] += choice.delta.content or ""
            if choice.finish_reason:
                finished.append(choice.index)
                if choice.index == 1:
                    first.feed(a, "stop")
    assert texts == {0: "a", 1: "bb"}
    assert finished == [1, 0]
    assert [call.params.choice for call in door.engine.calls] == [0, 1]
    assert [call.params.seed for call in door.engine.calls] == [7, 7]
    assert door.is_idle


async def test_several_prompts_become_choices_in_their_order(door):
    def script(call: FakeCall) -> None:
        call.feed(call.prompt_ids, "length")

    door.engine.script = script
    async with door.client() as client:
        body = {"model": "tiny", "prompt": ["one", "two"], "n": 2}
        answer = (await client.post("/v1/completions", json=body)).json()
    assert [choice["text"] for choice in answer["choices"]] == ["one", "one", "two", "two"]
    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2, 3]
    encode = door.model.tokenizer.encode_text
    assert answer["usage"]["prompt_tokens"] == len(encode("one")) + len(encode("two"))


async def test_a_stop_string_ends_the_stream_and_the_engines_work(door):
    async with live_server(door) as live, live.openai() as client:
        stream = await client.chat.completions.create(**CHAT, stream=True, stop=["END"])
        call = await door.engine.call()
        for letter in "okENDnever":
            call.feed(door.model.tokenizer.encode_rendered(letter))
        chunks = [chunk async for chunk in stream]
        await eventually(lambda: door.is_idle)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "ok"
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert call.was_aborted


async def test_the_engines_failure_reaches_the_client_as_an_error_event(door):
    async with live_server(door) as live, live.openai() as client:
        stream = await client.chat.completions.create(**CHAT, stream=True)
        call = await door.engine.call()
        call.feed(door.model.tokenizer.encode_rendered("hello"))
        seen: list[str] = []

        async def read() -> None:
            async for chunk in stream:
                seen.append(chunk.choices[0].delta.content or "")
                if "".join(seen) == "hello":
                    door.engine.die()

        with pytest.raises(openai.APIError, match="killed by SIGKILL"):
            await read()
    assert "".join(seen) == "hello"
    assert door.is_idle


async def test_a_bug_in_mid_stream_is_told_without_its_inside(door):
    def script(call: FakeCall) -> None:
        raise RuntimeError("the secret inside")

    door.engine.script = script
    async with live_server(door) as live, httpx.AsyncClient() as client:
        events = io.StringIO()

        async def read() -> None:
            url = f"{live.url}/v1/chat/completions"
            async with client.stream("POST", url, json=CHAT | {"stream": True}) as answer:
                async for line in answer.aiter_lines():
                    events.write(line)

        with pytest.raises(httpx.RemoteProtocolError):
            await read()
        assert '"code":"internal_error"' in events.getvalue()
        assert "secret" not in events.getvalue()
        await eventually(lambda: door.is_idle)


async def test_every_event_is_one_line_of_json(door):
    door.engine.script = say(door, 'line\nbreak\r\n\u2028 quote" back\\slash')
    async with live_server(door) as live, httpx.AsyncClient() as client:
        answer = await client.post(f"{live.url}/v1/chat/completions", json=CHAT | {"stream": True})
    events = answer.content.split(b"\n\n")
    assert events[-1] == b""
    assert events[-2] == b"data: [DONE]"
    text = ""
    for event in events[:-2]:
        assert event.startswith(b"data: ")
        assert b"\n" not in event
        text += msgspec.json.decode(event[6:])["choices"][0]["delta"].get("content", "")
    assert text == 'line\nbreak\r\n\u2028 quote" back\\slash'


async def test_return_token_ids_gives_every_token_of_every_choice_streamed_and_whole(door):
    text = "온돌은 따뜻합니다"
    door.engine.script = say(door, text)
    expected = [*door.model.tokenizer.encode_rendered(text), door.model.tokenizer.end_token_ids[0]]
    extra = {"extra_body": {"return_token_ids": True}}
    async with live_server(door) as live, live.openai() as client:
        stream = await client.chat.completions.create(**CHAT, stream=True, **extra)
        chunks = [chunk async for chunk in stream]
        whole = await client.completions.create(model="tiny", prompt="온돌", n=2, **extra)
        plain = await client.completions.create(model="tiny", prompt="온돌")
    streamed = [token for chunk in chunks for token in getattr(chunk.choices[0], "token_ids", [])]
    assert streamed == expected
    assert [choice.token_ids for choice in whole.choices] == [expected, expected]
    assert not hasattr(plain.choices[0], "token_ids")
