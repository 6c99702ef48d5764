"""Bodies that are wrong are refused by the name of the wrong field; what is harmless is let in."""

import asyncio
import gzip
import json
from contextlib import suppress

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.requests import Request
from support.front_door import FrontDoor, is_openai_error

from ondol.api.body import parse_body, read_fields
from ondol.api.chat_completions import ChatCompletionRequest
from ondol.api.completions import CompletionRequest
from ondol.errors import InvalidRequest

pytestmark = pytest.mark.anyio

USER = {"role": "user", "content": "hi"}
CHAT = {"model": "tiny", "messages": [USER]}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}


def schema_format(schema: dict) -> dict:
    return {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}


MALFORMED_BODIES = {
    "nothing": b"",
    "a word": b"hello",
    "cut off": b'{"model": "tiny", "messages": [',
    "NaN": b'{"model": "tiny", "messages": [], "temperature": NaN}',
    "Infinity": b'{"model": "tiny", "messages": [], "temperature": Infinity}',
    "a number out of range": b'{"model": "tiny", "messages": [], "x": 1e400}',
    "an integer of 5,000 digits": b'{"model": "tiny", "messages": [], "seed": ' + b"9" * 5000 + b"}",
    "invalid UTF-8": b'{"model": "tiny\xff"}',
    "a lone surrogate": b'{"model": "tiny", "messages": [{"role": "user", "content": "\\ud800"}]}',
    "deep nesting": b'{"model": ' + b"[" * 100_000,
    "deep closed nesting": b'{"model": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "two documents": b"{}{}",
    "an array": b"[]",
    "null": b"null",
    "a string": b'"hi"',
    "single quotes": b"{'model': 'tiny'}",
    "a trailing comma": b'{"model": "tiny",}',
}


@pytest.mark.parametrize("name", MALFORMED_BODIES)
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
async def test_a_malformed_body_is_a_400_in_openais_shape(door: FrontDoor, name: str, path: str):
    async with door.client() as client:
        answer = await client.post(path, content=MALFORMED_BODIES[name])
    assert answer.status_code == 400
    assert is_openai_error(answer)
    assert answer.json()["error"]["type"] == "invalid_request_error"
    assert door.is_idle


WRONG_CHAT_FIELDS = [
    ({"model": None}, "model"),
    ({"model": 5}, "model"),
    ({"model": ""}, "model"),
    ({"messages": None}, "messages"),
    ({"messages": []}, "messages"),
    ({"messages": "hi"}, "messages"),
    ({"messages": {"role": "user"}}, "messages"),
    ({"messages": ["hi"]}, "messages[0]"),
    ({"messages": [USER, 7]}, "messages[1]"),
    ({"messages": [{"content": "hi"}]}, "messages[0].role"),
    ({"messages": [{"role": "robot", "content": "hi"}]}, "messages[0].role"),
    ({"messages": [{"role": "user"}]}, "messages[0]"),
    ({"messages": [{"role": "user", "content": None}]}, "messages[0]"),
    ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
    ({"messages": [{"role": "user", "content": {"text": "hi"}}]}, "messages[0].content"),
    ({"messages": [{"role": "user", "content": [5]}]}, "messages[0].content[0]"),
    ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages[0].content[0].text"),
    (
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
        "messages[0].content[0].type",
    ),
    ({"stream": "true"}, "stream"),
    ({"stream": 1}, "stream"),
    ({"stream_options": True}, "stream_options"),
    ({"stream_options": {"include_usage": "yes"}}, "stream_options.include_usage"),
    ({"n": 0}, "n"),
    ({"n": 129}, "n"),
    ({"n": "1"}, "n"),
    ({"n": 1.0}, "n"),
    ({"n": True}, "n"),
    ({"max_tokens": 0}, "max_tokens"),
    ({"max_tokens": -1}, "max_tokens"),
    ({"max_tokens": "5"}, "max_tokens"),
    ({"max_completion_tokens": 0}, "max_completion_tokens"),
    ({"temperature": "1"}, "temperature"),
    ({"temperature": True}, "temperature"),
    ({"temperature": -0.1}, "temperature"),
    ({"temperature": 2.1}, "temperature"),
    ({"temperature": [1]}, "temperature"),
    ({"top_p": 0}, "top_p"),
    ({"top_p": 1.1}, "top_p"),
    ({"top_k": -2}, "top_k"),
    ({"top_k": 1.5}, "top_k"),
    ({"min_p": -1}, "min_p"),
    ({"presence_penalty": 3}, "presence_penalty"),
    ({"frequency_penalty": -3}, "frequency_penalty"),
    ({"repetition_penalty": 0}, "repetition_penalty"),
    ({"logit_bias": [1]}, "logit_bias"),
    ({"logit_bias": {"a": 1}}, "logit_bias"),
    ({"logit_bias": {"-1": 1}}, "logit_bias"),
    ({"logit_bias": {"999999": 1}}, "logit_bias"),
    ({"logit_bias": {"٣": 1}}, "logit_bias"),
    ({"logit_bias": {"9" * 5000: 1}}, "logit_bias"),
    ({"logit_bias": {"1": 101}}, "logit_bias.1"),
    ({"logit_bias": {str(i): 1 for i in range(2000)}}, "logit_bias"),
    ({"seed": 2**63}, "seed"),
    ({"seed": 1.5}, "seed"),
    ({"stop": 5}, "stop"),
    ({"stop": ""}, "stop"),
    ({"stop": ["a", ""]}, "stop[1]"),
    ({"stop": [1]}, "stop[0]"),
    ({"stop": ["a", "b", "c", "d", "e"]}, "stop"),
    ({"min_tokens": -1}, "min_tokens"),
    ({"min_tokens": 10, "max_tokens": 5}, "min_tokens"),
    ({"ignore_eos": "no"}, "ignore_eos"),
    ({"stop_token_ids": [-1]}, "stop_token_ids[0]"),
    ({"stop_token_ids": [10**6]}, "stop_token_ids"),
    ({"stop_token_ids": list(range(100))}, "stop_token_ids"),
    ({"logprobs": 1}, "logprobs"),
    ({"top_logprobs": 5}, "top_logprobs"),
    ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
    ({"response_format": {"type": "yaml"}}, "response_format.type"),
    ({"response_format": {"type": "json_schema"}}, "response_format"),
    (
        {"response_format": {"type": "json_schema", "json_schema": {"name": "a b"}}},
        "response_format.json_schema.name",
    ),
    ({"response_format": schema_format({"type": "number", "minimum": 2, "maximum": 1})}, "response_format"),
    ({"response_format": schema_format({"$ref": "#/$defs/none"})}, "response_format"),
    ({"response_format": {"type": "regex", "regex": "("}}, "response_format"),
    ({"modalities": ["audio"]}, "modalities"),
    ({"audio": {"voice": "alloy"}}, "audio"),
    ({"deadline_s": 0}, "deadline_s"),
    ({"keep_alive": "soon"}, "keep_alive"),
    ({"keep_alive": [1]}, "keep_alive"),
    ({"messages": [{"role": "tool", "content": "3"}]}, "messages[0]"),
    ({"messages": [{"role": "function", "content": "3"}]}, "messages[0]"),
    ({"messages": [{"role": "assistant", "tool_calls": [{"id": "a"}]}]}, "messages[0].tool_calls[0].type"),
    (
        {
            "messages": [
                {
                    "role": "assistant",
                    "tool_calls": [
                        {"id": "a", "type": "function", "function": {"name": "f", "arguments": {}}}
                    ],
                }
            ]
        },
        "messages[0].tool_calls[0].function.arguments",
    ),
    (
        {"messages": [{"role": "assistant", "content": [{"type": "refusal"}]}]},
        "messages[0].content[0].refusal",
    ),
    ({"tools": [{"type": "function"}]}, "tools[0].function"),
    ({"tools": [{"type": "custom", "custom": {"name": "x"}}]}, "tools[0].type"),
    ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools[0].function.name"),
    ({"tools": [TOOL, TOOL]}, "tools"),
    ({"tool_choice": "required"}, "tool_choice"),
    ({"tools": [TOOL], "tool_choice": "always"}, "tool_choice"),
    ({"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "g"}}}, "tool_choice"),
    ({"continue_final_message": True}, "continue_final_message"),
    (
        {
            "messages": [USER, {"role": "assistant", "content": "on"}],
            "continue_final_message": True,
            "add_generation_prompt": True,
        },
        "continue_final_message",
    ),
    ({"chat_template_kwargs": {"messages": "x"}}, "chat_template_kwargs"),
    ({"chat_template_kwargs": {"bos_token": "x"}}, "chat_template_kwargs"),
    ({"chat_template_kwargs": {"a": [1]}}, "chat_template_kwargs.a"),
]

WRONG_COMPLETION_FIELDS = [
    ({"prompt": None}, "prompt"),
    ({"prompt": ""}, "prompt"),
    ({"prompt": []}, "prompt"),
    ({"prompt": 5}, "prompt"),
    ({"prompt": [[]]}, "prompt[0]"),
    ({"prompt": [1, "a"]}, "prompt[1]"),
    ({"prompt": [1, -1]}, "prompt[1]"),
    ({"prompt": [[1], [True]]}, "prompt[1][0]"),
    ({"prompt": ["a", ""]}, "prompt"),
    ({"prompt": ["a"] * 65}, "prompt"),
    ({"prompt": [10**9]}, "prompt"),
    ({"prompt": ["a"] * 64, "n": 3}, "prompt"),
    ({"logprobs": True}, "logprobs"),
    ({"logprobs": 21}, "logprobs"),
    ({"best_of": 21}, "best_of"),
    ({"best_of": 2, "n": 3}, "best_of"),
    ({"best_of": 2, "stream": True}, "best_of"),
    ({"echo": 1}, "echo"),
    ({"max_tokens": 0}, "max_tokens"),
    ({"suffix": "end"}, "suffix"),
]


@pytest.mark.parametrize(("change", "param"), WRONG_CHAT_FIELDS, ids=lambda value: str(value)[:60])
async def test_a_wrong_chat_field_is_a_400_that_names_it(door: FrontDoor, change: dict, param: str):
    async with door.client() as client:
        answer = await client.post("/v1/chat/completions", json=CHAT | change)
    assert answer.status_code == 400, answer.text
    assert is_openai_error(answer)
    assert answer.json()["error"]["param"] == param, answer.text
    assert door.is_idle


@pytest.mark.parametrize(("change", "param"), WRONG_COMPLETION_FIELDS, ids=lambda value: str(value)[:60])
async def test_a_wrong_completion_field_is_a_400_that_names_it(door: FrontDoor, change: dict, param: str):
    async with door.client() as client:
        answer = await client.post("/v1/completions", json={"model": "tiny", "prompt": "hi"} | change)
    assert answer.status_code == 400, answer.text
    assert is_openai_error(answer)
    assert answer.json()["error"]["param"] == param, answer.text
    assert door.is_idle


@pytest.mark.parametrize("missing", ["model", "messages"])
async def test_a_missing_field_is_named(door: FrontDoor, missing: str):
    body = {key: value for key, value in CHAT.items() if key != missing}
    async with door.client() as client:
        answer = await client.post("/v1/chat/completions", json=body)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == missing
    assert answer.json()["error"]["message"] == f"Invalid value for '{missing}': this field is required."


async def test_a_union_says_in_one_sentence_what_it_takes(door: FrontDoor):
    async with door.client() as client:
        answer = await client.post("/v1/chat/completions", json=CHAT | {"messages": [USER | {"content": 5}]})
    message = answer.json()["error"]["message"]
    assert message == (
        "Invalid value for 'messages[0].content': "
        "input should be a valid string or input should be a valid list."
    )


@pytest.mark.parametrize(
    ("change", "advice"),
    [
        ({"stop": list("abcde")}, "list should have at most 4 items, not 5"),
        ({"logit_bias": []}, "input should be an object"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
            "leave out parts of type 'image_url'",
        ),
        ({"messages": [{"role": "user", "content": [{"type": 5}]}]}, "input should be 'text'"),
    ],
)
async def test_a_refusal_says_what_to_do_in_the_words_of_json(door: FrontDoor, change: dict, advice: str):
    async with door.client() as client:
        answer = await client.post("/v1/chat/completions", json=CHAT | change)
    assert answer.status_code == 400
    assert advice in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("body", "advice"),
    [
        (b'{"model": "tiny\xff"}', "Encode it as UTF-8."),
        (b'{"x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested too deeply"),
        (b'{"model": "tiny",}', "trailing comma"),
    ],
)
async def test_a_body_that_is_no_json_is_told_what_is_wrong_with_it(
    door: FrontDoor, body: bytes, advice: str
):
    async with door.client() as client:
        answer = await client.post("/v1/chat/completions", content=body)
    assert advice in answer.json()["error"]["message"]


async def test_a_compressed_body_is_refused_by_its_encoding(door: FrontDoor):
    async with door.client() as client:
        body = gzip.compress(json.dumps(CHAT).encode())
        answer = await client.post("/v1/chat/completions", content=body, headers={"content-encoding": "gzip"})
    assert answer.status_code == 400
    assert "without a content-encoding" in answer.json()["error"]["message"]


@pytest.mark.parametrize(("num_messages", "is_beside"), [(10, False), (20_000, True)])
async def test_a_large_body_is_read_beside_the_event_loop(num_messages: int, is_beside: bool):
    raw = json.dumps(CHAT | {"messages": [USER] * num_messages}).encode()
    received = iter([{"type": "http.request", "body": raw}])

    async def receive() -> dict[str, object]:
        return next(received)

    num_turns = 0

    async def count() -> None:
        nonlocal num_turns
        while True:
            num_turns += 1
            await asyncio.sleep(0)

    others = asyncio.create_task(count())
    request = Request({"type": "http", "headers": []}, receive)
    fields, _ = await read_fields(request, ChatCompletionRequest, 8 * 2**20)
    others.cancel()
    assert len(fields.messages) == num_messages
    # Beside a thread the loop goes round hundreds of times; alone, only where it waits for the body.
    assert (num_turns > 20) == is_beside


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
FIELD_NAMES = sorted(
    {*ChatCompletionRequest.model_fields, *CompletionRequest.model_fields, "audio", "suffix", "x"}
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    document=st.dictionaries(st.sampled_from(FIELD_NAMES), JSON, max_size=6),
    body_type=st.sampled_from([ChatCompletionRequest, CompletionRequest]),
)
def test_any_json_object_is_either_valid_or_refused_with_a_sentence(document, body_type):
    raw = json.dumps({"model": "tiny", "messages": [USER], "prompt": "x"} | document).encode()
    with suppress(InvalidRequest):
        body, ignored = parse_body(raw, body_type)
        assert isinstance(body, body_type)
        assert not set(ignored) & set(body_type.model_fields)
