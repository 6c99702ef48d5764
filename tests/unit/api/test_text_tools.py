"""Tokens, texts and prompts without generation."""

import pytest
from support.fake_model import FakeDefaults, fake_model
from support.front_door import FrontDoor, is_openai_error, open_front_door
from support.tokenizers import CHATML_TEMPLATE, save_byte_level_tokenizer, save_sentencepiece_tokenizer

pytestmark = pytest.mark.anyio

MESSAGES = [{"role": "user", "content": "안녕"}]


async def post(door: FrontDoor, path: str, **body: object):
    async with door.client() as client:
        return await client.post(path, json={"model": "tiny", **body})


async def test_text_goes_to_tokens_and_back(door: FrontDoor):
    tokens = (await post(door, "/tokenize", prompt="온돌은 floor 😀")).json()
    assert tokens["tokens"] == door.model.tokenizer.encode_text("온돌은 floor 😀")
    assert (tokens["count"], tokens["max_model_len"]) == (len(tokens["tokens"]), 256)
    assert "token_strs" not in tokens
    text = (await post(door, "/detokenize", tokens=tokens["tokens"])).json()
    assert text == {"prompt": "온돌은 floor 😀", "count": tokens["count"]}


async def test_pieces_are_named_also_those_that_are_half_a_character(door: FrontDoor):
    tokens = (await post(door, "/tokenize", prompt="a뷁", return_token_strs=True)).json()
    assert len(tokens["token_strs"]) == tokens["count"]
    assert tokens["token_strs"][0] == "a"
    assert all(name.startswith("\\x") for name in tokens["token_strs"][1:])


async def test_special_tokens_are_left_out_on_demand(tmp_path):
    save_sentencepiece_tokenizer(tmp_path)
    door = open_front_door(fake_model(tmp_path))
    with_bos = (await post(door, "/tokenize", prompt="hi", return_token_strs=True)).json()
    plain = (await post(door, "/tokenize", prompt="hi", add_special_tokens=False)).json()
    unsaid = (
        await post(door, "/tokenize", prompt="hi", add_special_tokens=None, return_token_strs=None)
    ).json()
    assert unsaid["tokens"] == with_bos["tokens"]
    assert "token_strs" not in unsaid
    assert with_bos["token_strs"][0] == "<s>"
    assert with_bos["tokens"] == [1, *plain["tokens"]]


async def test_a_chats_prompt_is_shown_as_the_model_would_read_it(door: FrontDoor):
    answer = await post(door, "/apply-template", messages=MESSAGES, mirostat=1)
    assert answer.json()["prompt"] == "<|im_start|>user\n안녕<|im_end|>\n<|im_start|>assistant\n"
    assert answer.headers["x-ondol-ignored"] == "mirostat"
    open_end = await post(
        door,
        "/apply-template",
        messages=[*MESSAGES, {"role": "assistant", "content": "네"}],
        continue_final_message=True,
    )
    assert open_end.json()["prompt"].endswith("<|im_start|>assistant\n네")
    assert door.engine.calls == []
    assert door.is_idle


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/tokenize", {}, "prompt"),
        ("/tokenize", {"prompt": 5}, "prompt"),
        ("/tokenize", {"prompt": "z" * 100_000}, "prompt"),
        ("/detokenize", {"tokens": []}, "tokens"),
        ("/detokenize", {"tokens": ["a"]}, "tokens[0]"),
        ("/detokenize", {"tokens": [10**6]}, "tokens"),
        ("/apply-template", {"messages": []}, "messages"),
        ("/tokenize", {"prompt": "hi", "model": "gpt-4"}, "model"),
    ],
)
async def test_what_is_wrong_is_named(door: FrontDoor, path, body, param):
    answer = await post(door, path, **body)
    assert answer.status_code in (400, 404)
    assert is_openai_error(answer)
    assert answer.json()["error"]["param"] == param, answer.text


async def test_props_tell_the_defaults_and_what_the_template_can_do(tmp_path):
    template = (
        "{% if tools %}<tool_call>{{ tools | tojson }}{% endif %}{{ enable_thinking }}" + CHATML_TEMPLATE
    )
    save_byte_level_tokenizer(tmp_path, chat_template=template)
    door = open_front_door(fake_model(tmp_path, defaults=FakeDefaults(temperature=0.6, top_k=20)))
    async with door.client() as client:
        named = await client.get("/props", params={"model": "tiny"})
        only = await client.get("/props")
        unknown = await client.get("/props", params={"model": "gpt-4"})
    assert named.json() == only.json()
    assert unknown.status_code == 404
    told = named.json()
    assert told["default_generation_settings"] == {
        "temperature": 0.6,
        "top_p": 1.0,
        "top_k": 20,
        "min_p": 0.0,
        "repetition_penalty": 1.0,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
    }
    assert told["chat_template"] == {
        "has_template": True,
        "takes_system": True,
        "tools": "hermes",
        "thinking_argument": "enable_thinking",
    }
    assert (told["max_model_len"], told["vocab_size"], told["quantization"]) == (256, 512, None)


async def test_props_of_a_base_model_offer_no_chat(tmp_path):
    save_byte_level_tokenizer(tmp_path, chat_template=None)
    door = open_front_door(fake_model(tmp_path))
    async with door.client() as client:
        told = (await client.get("/props")).json()
    assert told["chat_template"]["has_template"] is False
