"""What a chat request may ask for besides text: calls of tools, other beginnings, an end in time."""

import asyncio
import json
from contextlib import asynccontextmanager
from typing import Any

import pytest
from support.fake_model import FakeCall, FakeModel, fake_model
from support.front_door import FrontDoor, live_server, open_front_door
from support.tokenizers import CHATML_TEMPLATE, save_byte_level_tokenizer

from ondol.api.generation_fields import unmangled
from ondol.errors import QueueFull

pytestmark = pytest.mark.anyio

USER = {"role": "user", "content": "서울 날씨?"}
CHAT = {"model": "tiny", "messages": [USER]}
TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
HERMES_TEMPLATE = (
    "{% if tools %}<tool_call> tools: {{ tools | tojson }}\n{% endif %}"
    "{% if enable_thinking is defined and not enable_thinking %}no thinking\n{% endif %}" + CHATML_TEMPLATE
)
CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "서울"}}\n</tool_call>'


@pytest.fixture
def tool_door(tmp_path) -> FrontDoor:
    save_byte_level_tokenizer(tmp_path, chat_template=HERMES_TEMPLATE)
    return open_front_door(fake_model(tmp_path))


def say(model: FakeModel, text: str) -> None:
    """The engine answers with `text`, token by token."""
    ids = model.tokenizer.encode_rendered(text)
    (end_id, *_) = model.tokenizer.end_token_ids

    def script(call: FakeCall) -> None:
        for token_id in ids:
            call.feed([token_id])
        call.feed([end_id], "stop", stop_token_id=end_id)

    model.engine.script = script


async def post(door: FrontDoor, **fields: Any) -> Any:
    async with door.client() as client:
        return await client.post("/v1/chat/completions", json=CHAT | fields)


def prompt_of(door: FrontDoor) -> str:
    """The last prompt's text, special tokens included."""
    tokenizer = door.model.tokenizer
    return b"".join(tokenizer.piece_bytes(token_id) for token_id in door.engine.calls[-1].prompt_ids).decode()


async def test_a_call_of_a_tool_is_told_as_a_call(tool_door: FrontDoor):
    say(tool_door.model, "잠시만요. " + CALL)
    (choice,) = (await post(tool_door, tools=[TOOL])).json()["choices"]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["content"].strip() == "잠시만요."
    (call,) = choice["message"]["tool_calls"]
    assert (call["type"], call["function"]["name"]) == ("function", "weather")
    assert json.loads(call["function"]["arguments"]) == {"city": "서울"}
    assert '"weather"' in prompt_of(tool_door)


async def test_a_message_that_only_calls_has_no_content(tool_door: FrontDoor):
    say(tool_door.model, CALL)
    (choice,) = (await post(tool_door, tools=[TOOL])).json()["choices"]
    assert choice["message"]["content"] is None
    assert len(choice["message"]["tool_calls"]) == 1


async def test_a_streamed_call_adds_up_in_openais_own_client(tool_door: FrontDoor):
    say(tool_door.model, CALL)
    async with (
        live_server(tool_door) as live,
        live.openai() as client,
        client.chat.completions.stream(**CHAT, tools=[TOOL]) as stream,
    ):
        completion = await stream.get_final_completion()
    (choice,) = completion.choices
    assert choice.finish_reason == "tool_calls"
    (call,) = choice.message.tool_calls
    assert call.id
    assert json.loads(call.function.arguments) == {"city": "서울"}


@pytest.mark.parametrize(
    ("choice", "has_grammar"),
    [
        ("auto", False),
        ("required", True),
        ({"type": "function", "function": {"name": "weather"}}, True),
        (
            {
                "type": "allowed_tools",
                "allowed_tools": {
                    "mode": "required",
                    "tools": [{"type": "function", "function": {"name": "weather"}}],
                },
            },
            True,
        ),
    ],
)
async def test_a_forced_call_is_held_to_a_grammar(tool_door: FrontDoor, choice, has_grammar):
    say(tool_door.model, CALL)
    answer = await post(tool_door, tools=[TOOL], tool_choice=choice, parallel_tool_calls=False)
    assert answer.status_code == 200, answer.text
    assert (tool_door.engine.calls[0].params.grammar is not None) == has_grammar


async def test_no_tool_is_offered_where_none_may_be_called(tool_door: FrontDoor):
    say(tool_door.model, "맑음")
    answer = await post(tool_door, tools=[TOOL], tool_choice="none")
    assert "weather" not in prompt_of(tool_door)
    assert "x-ondol-ignored" not in answer.headers


async def test_a_model_without_tools_ignores_them_and_says_so(door: FrontDoor):
    say(door.model, CALL)
    answer = await post(door, tools=[TOOL], tool_choice="required")
    assert answer.headers["x-ondol-ignored"] == "tools"
    assert answer.json()["choices"][0]["message"]["content"] == CALL
    assert answer.json()["choices"][0]["finish_reason"] == "stop"


async def test_earlier_calls_and_their_results_reach_the_template_as_it_takes_them(tmp_path):
    template = "{% for message in messages %}{{ message | tojson }}\n{% endfor %}"
    save_byte_level_tokenizer(tmp_path, chat_template=template)
    door = open_front_door(fake_model(tmp_path, max_model_len=1024))
    say(door.model, "맑음")
    function = {"name": "weather", "arguments": '{"city": "서울"}'}
    messages = [
        USER,
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "c1", "type": "function", "function": function}],
        },
        {"role": "tool", "tool_call_id": "c1", "content": [{"type": "text", "text": "맑음"}]},
        {"role": "assistant", "refusal": "싫어요"},
        {"role": "assistant", "function_call": {"name": "weather", "arguments": "not json"}},
        {"role": "function", "name": "weather", "content": "흐림"},
    ]
    answer = await post(door, messages=messages)
    assert answer.status_code == 200, answer.text
    rendered = [json.loads(line) for line in prompt_of(door).splitlines()]
    assert rendered[1]["tool_calls"][0]["function"]["arguments"] == {"city": "서울"}
    assert rendered[2] == {"role": "tool", "tool_call_id": "c1", "content": "맑음"}
    assert rendered[3]["content"] == "싫어요"
    assert rendered[4]["tool_calls"][0]["function"]["arguments"] == "not json"
    assert (rendered[5]["role"], rendered[5]["name"]) == ("tool", "weather")


async def test_a_continued_message_is_left_open_and_goes_on_with_its_space(door: FrontDoor):
    say(door.model, " 따뜻해요")
    messages = [USER, {"role": "assistant", "content": "온돌은"}]
    answer = await post(door, messages=messages, continue_final_message=True, add_generation_prompt=False)
    assert prompt_of(door).endswith("<|im_start|>assistant\n온돌은")
    assert answer.json()["choices"][0]["message"]["content"] == " 따뜻해요"


async def test_without_a_generation_prompt_the_template_opens_no_turn(door: FrontDoor):
    say(door.model, "x")
    await post(door, add_generation_prompt=False)
    assert prompt_of(door).endswith("<|im_end|>\n")


async def test_plain_template_arguments_reach_the_template(tool_door: FrontDoor):
    say(tool_door.model, "x")
    await post(tool_door, chat_template_kwargs={"enable_thinking": False})
    assert prompt_of(tool_door).startswith("no thinking")


@pytest.mark.parametrize("stream", [False, True])
async def test_at_its_deadline_an_answer_ends_with_what_is_there(door: FrontDoor, stream):
    def script(call: FakeCall) -> None:
        call.feed(door.model.tokenizer.encode_rendered("벌써 EN"))

    door.engine.script = script
    answer = await post(door, deadline_s=0.2, stop=["END"], stream=stream)
    assert answer.status_code == 200
    text = answer.text
    if stream:
        assert '"finish_reason":"length"' in text
        assert '"content":" EN"' in text or '"content":"EN"' in text
    else:
        (choice,) = answer.json()["choices"]
        assert (choice["message"]["content"], choice["finish_reason"]) == ("벌써 EN", "length")
    assert door.engine.calls[0].was_aborted
    assert door.is_idle


async def test_a_deadline_also_ends_a_stream_that_never_pauses(door: FrontDoor):
    async def flood(call: FakeCall) -> None:
        while not call.closed.is_set():
            call.feed([70])
            await asyncio.sleep(0)

    floods: list[asyncio.Task[None]] = []
    door.engine.script = lambda call: floods.append(asyncio.create_task(flood(call)))
    answer = await post(door, deadline_s=0.2)
    assert answer.json()["choices"][0]["finish_reason"] == "length"
    await asyncio.gather(*floods)


async def test_places_in_the_queue_are_comments_that_clients_skip(door: FrontDoor):
    def script(call: FakeCall) -> None:
        call.feed([], queue_position=3)
        call.feed([], queue_position=1)
        call.feed(door.model.tokenizer.encode_rendered("ok"), "length")

    door.engine.script = script
    answer = await post(door, stream=True)
    lines = [line for line in answer.text.splitlines() if line]
    assert [line for line in lines if line.startswith(":")] == [": queued 3", ": queued 1"]
    async with live_server(door) as live, live.openai() as client:
        chunks = [chunk async for chunk in await client.chat.completions.create(**CHAT, stream=True)]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "ok"


async def test_timings_are_told_where_they_are_asked_for(door: FrontDoor):
    def script(call: FakeCall) -> None:
        call.feed([70], prefill_s=0.0)
        call.feed([70], "length")

    door.engine.script = script
    options = {"stream_options": {"include_timings": True}}
    whole = (await post(door, **options)).json()
    assert set(whole["timings"]) == {"queue_s", "prefill_s", "decode_s", "tokens_per_second"}
    assert all(value >= 0 for value in whole["timings"].values())
    streamed = await post(door, stream=True, **options)
    *_, last, done = [line for line in streamed.text.splitlines() if line.startswith("data: ")]
    assert done == "data: [DONE]"
    assert set(json.loads(last.removeprefix("data: "))["timings"]) == set(whole["timings"])
    assert "timings" not in (await post(door)).json()


def mangled(text: str) -> str:
    return text.encode("utf-8").decode("latin-1")


async def test_a_stop_string_that_a_client_mangled_still_stops(door: FrontDoor):
    say(door.model, "좋아요 끝 그리고 더")
    (choice,) = (await post(door, stop=[mangled("끝")])).json()["choices"]
    assert (choice["message"]["content"], choice["finish_reason"]) == ("좋아요 ", "stop")


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        (mangled("끝"), "끝"),
        (mangled("漢"), "漢"),
        (mangled("END 끝"), "END 끝"),
        ("END", None),
        ("café", None),
        (mangled("café"), None),
        ("끝", None),
        ("ë", None),
    ],
)
def test_only_wide_characters_are_taken_for_mangled(text, meant):
    assert unmangled(text) == meant


@pytest.mark.parametrize(
    "response_format",
    [
        {"type": "json_object"},
        {"type": "json_schema", "json_schema": {"name": "x"}},
        {"type": "json_schema", "json_schema": {"name": "x", "schema": TOOL["function"]["parameters"]}},
        {"type": "regex", "regex": "[가-힣]+"},
    ],
)
async def test_a_response_format_becomes_a_grammar_of_the_engines(door: FrontDoor, response_format):
    say(door.model, "{}")
    answer = await post(door, response_format=response_format)
    assert answer.status_code == 200, answer.text
    assert door.engine.calls[0].params.grammar
    assert "x-ondol-ignored" not in answer.headers


async def test_a_tools_schema_that_means_nothing_is_refused_where_a_call_is_forced(tool_door: FrontDoor):
    function = {"name": "f", "parameters": {"$ref": "#/$defs/none"}}
    answer = await post(tool_door, tools=[{"type": "function", "function": function}], tool_choice="required")
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["param"] == "tools"


async def test_a_model_that_is_not_ready_by_the_deadline_is_told_before_it(door: FrontDoor, monkeypatch):
    @asynccontextmanager
    async def load_for_ever(name: str, *, keep_alive_s: float | None = None):
        await asyncio.get_running_loop().create_future()
        yield

    monkeypatch.setattr(door.manager, "lease", load_for_ever)
    answer = await post(door, deadline_s=0.1)
    assert answer.status_code == 503
    assert answer.json()["error"]["code"] == "model_loading"
    assert answer.headers["retry-after"]
    assert door.lifecycle.num_open == 0


async def test_openais_client_tries_again_when_the_queue_was_full(door: FrontDoor):
    say(door.model, "ok")
    refusals: list[int] = []

    def make_room(num_requests: int = 1) -> None:
        door.engine.check_admission = check
        refusals.append(num_requests)
        raise QueueFull(1)

    check, door.engine.check_admission = door.engine.check_admission, make_room
    async with live_server(door) as live, live.openai() as client:
        patient = client.with_options(max_retries=2)
        raw = await patient.chat.completions.with_raw_response.create(**CHAT)
    assert refusals == [1]
    assert raw.retries_taken == 1
    assert raw.parse().choices[0].message.content == "ok"
