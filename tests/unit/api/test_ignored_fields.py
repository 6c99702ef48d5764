"""Fields that are not heeded: those that ask for nothing pass in silence, the others are named."""

import pytest
from support.front_door import FrontDoor

pytestmark = pytest.mark.anyio

CHAT = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}]}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}

NEUTRAL_FIELDS = {
    "logprobs": False,
    "top_logprobs": None,
    "response_format": {"type": "text"},
    "n": None,
    "stop": [],
    "temperature": 1,
    "top_p": 1,
    "max_tokens": None,
    "logit_bias": None,
    "seed": -(2**63),
    "top_k": -1,
    "user": "someone",
    "metadata": {"a": "b"},
    "service_tier": "auto",
    "store": False,
    "stream_options": None,
    "safety_identifier": "x",
    "prompt_cache_key": "x",
    "verbosity": "medium",
    "audio": None,
    "tools": [],
    "tool_choice": "none",
    "modalities": ["text"],
    "keep_alive": "5m",
    "deadline_s": 60,
}


async def test_fields_that_ask_for_nothing_are_accepted_without_a_word(door: FrontDoor):
    door.engine.script = lambda call: call.feed([5], "length")
    async with door.client() as client:
        answer = await client.post("/v1/chat/completions", json=CHAT | NEUTRAL_FIELDS)
    assert answer.status_code == 200, answer.text
    assert "x-ondol-ignored" not in answer.headers


async def test_unknown_fields_are_ignored_and_named_in_a_header(door: FrontDoor):
    door.engine.script = lambda call: call.feed([5], "length")
    extra = {
        "tools": [TOOL],
        "tool_choice": "auto",
        "mirostat": 2,
        "store": True,
        "reasoning_effort": "low",
        "evil\r\nname": 1,
        "이름": 1,
    }
    async with door.client() as client:
        answer = await client.post("/v1/chat/completions", json=CHAT | extra)
    assert answer.status_code == 200
    assert answer.headers["x-ondol-ignored"] == "mirostat, reasoning_effort, store, tools"


async def test_unknown_fields_inside_of_objects_are_named_by_their_path(door: FrontDoor):
    door.engine.script = lambda call: call.feed([5], "length")
    extra = {
        "stream_options": {
            "include_usage": False,
            "include_obfuscation": True,
            "continuous_usage_stats": True,
        },
        "response_format": {"type": "json_object", "schema": {"type": "object"}},
    }
    async with door.client() as client:
        named = await client.post("/v1/chat/completions", json=CHAT | extra)
        quiet = await client.post(
            "/v1/chat/completions",
            json=CHAT
            | {
                "stream_options": {"include_obfuscation": False},
                "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {}}},
            },
        )
    assert named.headers["x-ondol-ignored"].split(", ") == [
        "response_format.schema",
        "stream_options.continuous_usage_stats",
        "stream_options.include_obfuscation",
    ]
    assert (quiet.status_code, "x-ondol-ignored" in quiet.headers) == (200, False)
