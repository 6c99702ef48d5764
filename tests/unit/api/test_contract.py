"""Every body and chunk is what OpenAI's clients expect, in every combination of what asks for more."""

import json
from typing import Any

import pytest
from openai.types import Completion
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from support.fake_model import FakeCall, fake_model
from support.front_door import FrontDoor, open_front_door
from support.openai_contract import component_violations, violations
from support.tokenizers import save_byte_level_tokenizer
from support.tool_templates import HERMES_TEMPLATE

from ondol.engine.messages import TokenLogprob

pytestmark = pytest.mark.anyio

TOOL = {
    "type": "function",
    "function": {"name": "weather", "parameters": {"type": "object", "properties": {"city": {}}}},
}
CHAT = {"model": "tiny", "messages": [{"role": "user", "content": "안녕"}]}
TEXT = {"model": "tiny", "prompt": "온돌은"}
MORE = {"stream_options": {"include_usage": True, "include_timings": True}, "return_token_ids": True}

CHATS: dict[str, dict[str, Any]] = {
    "plain": {},
    "more": MORE,
    "logprobs": {"logprobs": True},
    "top_logprobs": {"logprobs": True, "top_logprobs": 2} | MORE,
    "several": {"n": 3, "logprobs": True},
}
TEXTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "more": MORE,
    "logprobs": {"logprobs": 2},
    "echo": {"echo": True, "logprobs": 1},
    "several": {"n": 2, "prompt": ["a", "b"]},
}


def script(door: FrontDoor, text: str):
    """An answer whose logprobs, timings and end token are all there, if they are asked for."""
    ids = door.model.tokenizer.encode_rendered(text)
    (end_id, *_) = door.model.tokenizer.end_token_ids

    def logprob(token_id: int, num_tops: int | None) -> TokenLogprob:
        tops = (token_id, 70, 200)[: num_tops or 0]
        return TokenLogprob(token_id, -0.5, tops, (-0.5, -1.0, -2.0)[: len(tops)])

    def feed(call: FakeCall) -> None:
        params = call.params
        for index, token_id in enumerate([*ids, end_id]):
            more: dict[str, Any] = {"prefill_s": 0.0} if index == 0 else {}
            if params.logprobs is not None:
                more["logprobs"] = [logprob(token_id, params.logprobs)]
            if index == 0 and params.prompt_logprobs is not None:
                rest = [logprob(prompt_id, params.prompt_logprobs) for prompt_id in call.prompt_ids[1:]]
                more["prompt_logprobs"] = [None, *rest]
            is_last = token_id == end_id
            call.feed(
                [token_id], "stop" if is_last else None, stop_token_id=end_id if is_last else None, **more
            )

    return feed


async def ask(door: FrontDoor, path: str, body: dict[str, Any], text: str = "따뜻한 😀 방") -> list[Any]:
    """The bodies of an answer of `text`: one, or all chunks."""
    door.engine.script = script(door, text)
    async with door.client() as client:
        answer = await client.post(path, json=body)
    assert answer.status_code == 200, answer.text
    if not body.get("stream"):
        return [answer.json()]
    lines = [line.removeprefix("data: ") for line in answer.text.splitlines() if line.startswith("data: ")]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


@pytest.mark.parametrize("name", CHATS)
@pytest.mark.parametrize("stream", [False, True])
async def test_chat_answers_have_openais_keys_and_types_and_no_others(door: FrontDoor, name, stream):
    bodies = await ask(door, "/v1/chat/completions", CHAT | CHATS[name] | {"stream": stream})
    model = ChatCompletionChunk if stream else ChatCompletion
    assert [wrong for body in bodies for wrong in violations(model, body)] == []


CALLS = "잠시만요." + "\n".join(
    f'<tool_call>\n{{"name": "weather", "arguments": {{"city": "{city}"}}}}\n</tool_call>'
    for city in ("서울", "부산")
)


@pytest.fixture
def tool_door(tmp_path) -> FrontDoor:
    save_byte_level_tokenizer(tmp_path, chat_template=HERMES_TEMPLATE)
    return open_front_door(fake_model(tmp_path, max_model_len=2048))


@pytest.mark.parametrize("more", [{}, {"n": 2, "logprobs": True, "top_logprobs": 2} | MORE])
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("judge", ["package", "components"])
async def test_calls_of_tools_are_told_as_openai_tells_them(tool_door: FrontDoor, more, stream, judge):
    body = CHAT | {"tools": [TOOL], "stream": stream} | more
    bodies = await ask(tool_door, "/v1/chat/completions", body, CALLS)
    assert sum(text.count('"weather"') for text in map(json.dumps, bodies)) == 2 * body.get("n", 1)
    if judge == "package":
        model = ChatCompletionChunk if stream else ChatCompletion
        wrong = [error for body in bodies for error in violations(model, body)]
    else:
        component = "CreateChatCompletionStreamResponse" if stream else "CreateChatCompletionResponse"
        wrong = [error for body in bodies for error in component_violations(component, body)]
    assert wrong == []


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize("stream", [False, True])
async def test_text_answers_have_openais_keys_and_types_and_no_others(door: FrontDoor, name, stream):
    bodies = await ask(door, "/v1/completions", TEXT | TEXTS[name] | {"stream": stream})
    assert [wrong for body in bodies for wrong in violations(Completion, body)] == []


@pytest.mark.parametrize("name", CHATS)
@pytest.mark.parametrize("stream", [False, True])
async def test_chat_answers_fit_openais_component_schemas(door: FrontDoor, name, stream):
    bodies = await ask(door, "/v1/chat/completions", CHAT | CHATS[name] | {"stream": stream})
    component = "CreateChatCompletionStreamResponse" if stream else "CreateChatCompletionResponse"
    assert [wrong for body in bodies for wrong in component_violations(component, body)] == []


@pytest.mark.parametrize("name", ["plain", "more", "logprobs", "several"])
async def test_text_answers_fit_openais_component_schemas(door: FrontDoor, name):
    bodies = await ask(door, "/v1/completions", TEXT | TEXTS[name])
    assert [
        wrong for body in bodies for wrong in component_violations("CreateCompletionResponse", body)
    ] == []


async def test_errors_fit_openais_component_schemas(door: FrontDoor):
    async with door.client() as client:
        answers = [
            await client.post("/v1/chat/completions", json=CHAT | {"model": "gpt-4"}),
            await client.post("/v1/completions", json=TEXT | {"n": 0}),
            await client.get("/v1/nothing"),
        ]
    wrong = [component_violations("ErrorResponse", answer.json()) for answer in answers]
    assert wrong == [[], [], []]


async def test_the_judge_sees_what_is_missing_surplus_or_of_another_type(door: FrontDoor):
    (body,) = await ask(door, "/v1/chat/completions", CHAT)
    body["choices"][0]["surplus"] = 1
    body["choices"][0]["finish_reason"] = "tired"
    body["created"] = "now"
    del body["id"]
    assert [wrong.partition(":")[0] for wrong in violations(ChatCompletion, body)] == [
        "$.id",
        "$.choices[0].surplus",
        "$.choices[0].finish_reason",
        "$.created",
    ]
