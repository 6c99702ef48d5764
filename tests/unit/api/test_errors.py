"""What the daemon says when it cannot do as asked: always OpenAI's shape and the right status."""

import json

import pytest
from support.fake_model import FakeModel, fake_model
from support.front_door import FrontDoor, is_openai_error, open_front_door
from support.tokenizers import save_byte_level_tokenizer, save_sentencepiece_tokenizer

pytestmark = pytest.mark.anyio

USER = {"role": "user", "content": "hi"}
CHAT = {"model": "tiny", "messages": [USER]}


async def test_an_unknown_model_is_a_404_that_names_those_that_exist(door: FrontDoor):
    async with door.client() as client:
        answer = await client.post("/v1/chat/completions", json=CHAT | {"model": "gpt-4"})
        listed = await client.get("/v1/models/gpt-4")
    for response in (answer, listed):
        assert response.status_code == 404
        assert is_openai_error(response)
        error = response.json()["error"]
        assert (error["code"], error["param"]) == ("model_not_found", "model")
        assert "tiny" in error["message"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nothing", 404),
        ("POST", "/", 404),
        ("GET", "/v1/nothing", 404),
        ("GET", "/v1/chat/completions", 405),
        ("DELETE", "/v1/models", 405),
        ("POST", "/health", 405),
        ("POST", "/v1/chat/completions/", 404),
    ],
)
async def test_unknown_paths_and_methods_get_openais_shape(door, method: str, path: str, status: int):
    async with door.client() as client:
        answer = await client.request(method, path)
    assert answer.status_code == status
    assert is_openai_error(answer)
    assert answer.headers["x-request-id"]


async def test_a_path_that_is_not_there_is_told_where_the_others_are(door):
    async with door.client() as client:
        answer = await client.post("/chat/completions", json=CHAT)
    assert "begin with /v1" in answer.json()["error"]["message"]


async def test_a_body_over_the_limit_is_a_413_whether_its_size_is_declared_or_not(model: FakeModel):
    door = open_front_door(model, max_body_bytes=1000)
    body = json.dumps(CHAT | {"user": "x" * 1000}).encode()

    async def undeclared():
        for start in range(0, len(body), 100):
            yield body[start : start + 100]

    async with door.client() as client:
        answers = [
            await client.post("/v1/chat/completions", content=body),
            await client.post("/v1/chat/completions", content=undeclared()),
        ]
    for answer in answers:
        assert answer.status_code == 413
        assert is_openai_error(answer)
        assert "1000 bytes" in answer.json()["error"]["message"]


async def test_a_prompt_that_does_not_fit_is_refused_with_both_numbers(door: FrontDoor):
    async with door.client() as client:
        chat = await client.post(
            "/v1/chat/completions", json=CHAT | {"messages": [{"role": "user", "content": "z!" * 400}]}
        )
        ids = await client.post("/v1/completions", json={"model": "tiny", "prompt": [5] * 256})
        asked = await client.post(
            "/v1/completions", json={"model": "tiny", "prompt": [5] * 200, "max_tokens": 57}
        )
        text = await client.post("/v1/completions", json={"model": "tiny", "prompt": "z" * 100_000})
    for answer, param in ((chat, "messages"), (ids, "prompt"), (asked, "prompt"), (text, "prompt")):
        assert answer.status_code == 400
        error = answer.json()["error"]
        assert (error["code"], error["param"]) == ("context_length_exceeded", param)
        assert "256 tokens" in error["message"]
    assert "has 256 tokens" in ids.json()["error"]["message"]
    assert "200 tokens and asks for 57 more" in asked.json()["error"]["message"]
    assert "100000 bytes" in text.json()["error"]["message"]
    assert door.is_idle


async def test_the_last_token_of_the_context_can_be_used(door: FrontDoor):
    door.engine.script = lambda call: call.feed([5], "length")
    async with door.client() as client:
        body = {"model": "tiny", "prompt": [5] * 255, "max_tokens": 1}
        assert (await client.post("/v1/completions", json=body)).status_code == 200


async def test_a_templates_refusal_is_a_400_in_its_own_words(tmp_path):
    save_sentencepiece_tokenizer(tmp_path)
    door = open_front_door(fake_model(tmp_path))
    async with door.client() as client:
        answer = await client.post("/v1/chat/completions", json=CHAT | {"messages": [USER, USER]})
    assert answer.status_code == 400
    assert answer.json()["error"]["message"] == "user and assistant messages must take turns, user first"


async def test_a_model_without_a_template_says_what_to_use_instead(tmp_path):
    save_byte_level_tokenizer(tmp_path, chat_template=None)
    door = open_front_door(fake_model(tmp_path))
    async with door.client() as client:
        answer = await client.post("/v1/chat/completions", json=CHAT)
    assert answer.status_code == 400
    assert "/v1/completions" in answer.json()["error"]["message"]


async def test_a_full_queue_is_a_429_before_the_stream_begins(door: FrontDoor):
    door.engine._max_open = 1
    async with door.client() as client:
        answer = await client.post("/v1/chat/completions", json=CHAT | {"n": 2, "stream": True})
    assert answer.status_code == 429
    assert answer.headers["retry-after"] == "2"
    assert answer.json()["error"]["code"] == "queue_full"
    assert door.is_idle


async def test_a_dead_engine_is_a_500_before_the_stream_begins(door: FrontDoor):
    door.engine.die("the engine process ended with exit code 1")
    async with door.client() as client:
        answer = await client.post("/v1/chat/completions", json=CHAT | {"stream": True})
    assert answer.status_code == 500
    assert answer.json()["error"]["code"] == "engine_failed"


async def test_a_bug_is_a_500_in_openais_shape_that_keeps_the_inside_to_itself(door: FrontDoor):
    def script(call) -> None:
        raise RuntimeError("the secret inside")

    door.engine.script = script
    async with door.client() as client:
        answer = await client.post("/v1/chat/completions", json=CHAT)
    assert answer.status_code == 500
    assert is_openai_error(answer)
    assert "secret" not in answer.text
    assert answer.headers["x-request-id"].startswith("req_")
    assert door.is_idle
