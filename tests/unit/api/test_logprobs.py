"""Log-probabilities in both of OpenAI's shapes, in whole answers and in streams."""

import json
from typing import Any

import pytest
from support.fake_model import FakeCall
from support.front_door import FrontDoor

from ondol.engine.messages import TokenLogprob

pytestmark = pytest.mark.anyio

CHAT = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}]}


def likely(token_id: int, logprob: float = -0.25, *others: int) -> TokenLogprob:
    """The token is the likeliest of all; `others` follow at -1, -2, ..."""
    tops = (token_id, *others)
    return TokenLogprob(token_id, logprob, tops, (logprob, *range(-1, -1 - len(others), -1)))


def speak(door: FrontDoor, token_ids: list[int], *others: int) -> None:
    (end_id, *_) = door.model.tokenizer.end_token_ids

    def script(call: FakeCall) -> None:
        prompt = [None, *(likely(token_id) for token_id in call.prompt_ids[1:])]
        more: dict[str, Any] = {"prompt_logprobs": prompt} if call.params.prompt_logprobs is not None else {}
        if call.params.max_tokens == 0:
            call.feed([], "length", **more)
            return
        for token_id in token_ids:
            call.feed([token_id], logprobs=[likely(token_id, -0.25, *others)], **more)
            more = {}
        call.feed([end_id], "stop", stop_token_id=end_id, logprobs=[likely(end_id)])

    door.engine.script = script


async def post(door: FrontDoor, path: str, body: dict[str, Any]) -> Any:
    async with door.client() as client:
        answer = await client.post(path, json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_bytes_of_a_chats_tokens_join_to_its_text_though_characters_are_cut(door: FrontDoor):
    text = "온돌 😀"
    ids = door.model.tokenizer.encode_rendered(text)
    (end_id, *_) = door.model.tokenizer.end_token_ids
    speak(door, ids, end_id)
    answer = await post(door, "/v1/chat/completions", CHAT | {"logprobs": True, "top_logprobs": 2})
    entries = answer["choices"][0]["logprobs"]["content"]
    assert bytes(value for entry in entries for value in entry["bytes"]).decode() == text
    assert len(entries) == len(ids) > len(text)
    assert not any("�" in entry["token"] for entry in entries)
    assert [entry["logprob"] for entry in entries] == [-0.25] * len(ids)
    # A special token shows no text, but as an alternative it has a name.
    assert entries[0]["top_logprobs"][1] == {
        "token": "<|im_end|>",
        "logprob": -1.0,
        "bytes": list(b"<|im_end|>"),
    }
    assert door.engine.calls[0].params.logprobs == 2


@pytest.mark.parametrize(
    ("fields", "asked"), [({}, None), ({"logprobs": False}, None), ({"logprobs": True}, 0)]
)
async def test_the_engine_computes_what_is_asked_for_and_no_more(door: FrontDoor, fields, asked):
    speak(door, [70])
    answer = await post(door, "/v1/chat/completions", CHAT | fields)
    assert door.engine.calls[0].params.logprobs == asked
    assert door.engine.calls[0].params.prompt_logprobs is None
    assert (answer["choices"][0]["logprobs"] is None) == (asked is None)


async def test_a_scored_prompt_comes_first_and_its_first_token_has_no_logprob(door: FrontDoor):
    prompt = door.model.tokenizer.encode_text("The dog and 온돌")
    speak(door, door.model.tokenizer.encode_rendered("!"), 71)
    body = {"model": "tiny", "prompt": prompt, "echo": True, "logprobs": 1, "max_tokens": 1}
    (choice,) = (await post(door, "/v1/completions", body))["choices"]
    assert choice["text"] == "The dog and 온돌!"
    logprobs = choice["logprobs"]
    assert logprobs["token_logprobs"] == [None] + [-0.25] * len(prompt)
    assert logprobs["top_logprobs"][0] is None
    assert [len(logprobs[name]) for name in logprobs] == [len(prompt) + 1] * 4
    offsets = logprobs["text_offset"]
    assert offsets[0] == 0
    assert offsets == sorted(offsets)
    assert choice["text"][offsets[-1] :] == logprobs["tokens"][-1] == "!"
    # What lm-evaluation-harness reads: whether the token is the likeliest of its alternatives.
    assert all(
        logprob == max(top.values())
        for logprob, top in zip(logprobs["token_logprobs"][1:], logprobs["top_logprobs"][1:], strict=True)
    )
    params = door.engine.calls[0].params
    assert (params.logprobs, params.prompt_logprobs) == (1, 1)


async def test_a_prompt_can_be_scored_without_a_single_new_token(door: FrontDoor):
    speak(door, [70])
    body = {"model": "tiny", "prompt": [70, 71, 72], "echo": True, "logprobs": 0, "max_tokens": 0}
    answer = await post(door, "/v1/completions", body)
    (choice,) = answer["choices"]
    assert choice["logprobs"]["token_logprobs"] == [None, -0.25, -0.25]
    assert choice["finish_reason"] == "length"
    assert answer["usage"]["completion_tokens"] == 0
    assert choice["text"] == door.model.tokenizer.decode([70, 71, 72])


async def test_a_prompt_that_fills_the_context_can_still_be_scored(door: FrontDoor):
    speak(door, [70])
    body = {"model": "tiny", "prompt": [70] * 256, "echo": True, "logprobs": 0, "max_tokens": 0}
    await post(door, "/v1/completions", body)
    assert door.engine.calls[0].params.max_tokens == 0


async def test_an_echo_alone_costs_no_logprobs(door: FrontDoor):
    speak(door, door.model.tokenizer.encode_rendered(" too"))
    body = {"model": "tiny", "prompt": ["one", "two"], "echo": True}
    answer = await post(door, "/v1/completions", body)
    assert [choice["text"] for choice in answer["choices"]] == ["one too", "two too"]
    assert door.engine.calls[0].params.prompt_logprobs is None


async def test_half_a_character_is_written_as_bytes_in_text_completions(door: FrontDoor):
    ids = door.model.tokenizer.encode_rendered("뷁")
    speak(door, ids)
    body = {"model": "tiny", "prompt": "x", "logprobs": 1}
    (choice,) = (await post(door, "/v1/completions", body))["choices"]
    assert len(ids) > 1
    assert all(token.startswith("bytes:\\x") for token in choice["logprobs"]["tokens"])
    assert choice["logprobs"]["text_offset"] == [0] * len(ids)


async def test_streamed_logprobs_are_those_of_the_whole_answer(door: FrontDoor):
    speak(door, door.model.tokenizer.encode_rendered("따뜻한 방"), 71)
    prompt = {"model": "tiny", "prompt": "온돌", "echo": True, "logprobs": 1}
    (whole,) = (await post(door, "/v1/completions", prompt))["choices"]
    async with door.client() as client:
        answer = await client.post("/v1/completions", json=prompt | {"stream": True})
    parts = [
        choice
        for line in answer.text.splitlines()
        if line.startswith("data: {")
        for choice in json.loads(line.removeprefix("data: "))["choices"]
    ]
    assert "".join(part["text"] for part in parts) == whole["text"]
    for name, values in whole["logprobs"].items():
        assert [value for part in parts if part["logprobs"] for value in part["logprobs"][name]] == values


async def test_the_best_of_several_are_those_with_the_best_mean_logprob(door: FrontDoor):
    texts = {0: ("a", -3.0), 1: ("b", -1.0), 2: ("c c", -2.0)}

    def script(call: FakeCall) -> None:
        text, logprob = texts[call.params.choice]
        ids = door.model.tokenizer.encode_rendered(text)
        call.feed(ids, "length", logprobs=[TokenLogprob(token_id, logprob) for token_id in ids])

    door.engine.script = script
    answer = await post(door, "/v1/completions", {"model": "tiny", "prompt": "x", "best_of": 3, "n": 2})
    assert [(choice["index"], choice["text"]) for choice in answer["choices"]] == [(0, "b"), (1, "c c")]
    assert all(choice["logprobs"] is None for choice in answer["choices"])
    num_generated = sum(len(door.model.tokenizer.encode_rendered(text)) for text, _ in texts.values())
    assert answer["usage"]["completion_tokens"] == num_generated
