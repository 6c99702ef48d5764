"""What the fields of a request mean to the engine."""

from unicodedata import normalize

import pytest
from support.fake_model import FakeDefaults, fake_model
from support.front_door import FrontDoor, open_front_door

from ondol.engine.sampling_params import SamplingParams

pytestmark = pytest.mark.anyio

CHAT = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}]}


async def params_of(door: FrontDoor, path: str = "/v1/chat/completions", **fields: object) -> SamplingParams:
    door.engine.script = lambda call: call.feed([5], "length")
    body = CHAT if path == "/v1/chat/completions" else {"model": "tiny", "prompt": [5, 6, 7]}
    async with door.client() as client:
        answer = await client.post(path, json=body | fields)
    assert answer.status_code == 200, answer.text
    return door.engine.calls[-1].params


async def test_without_a_word_openais_defaults_and_the_rest_of_the_context_are_taken(door: FrontDoor):
    params = await params_of(door)
    num_prompt_tokens = len(door.engine.calls[-1].prompt_ids)
    assert params == SamplingParams(max_tokens=256 - num_prompt_tokens, seed=params.seed)


async def test_the_models_own_defaults_come_before_openais_and_after_the_requests(tokenizer_folder):
    defaults = FakeDefaults(temperature=0.6, top_p=0.9, top_k=40, min_p=0.05, repetition_penalty=1.1)
    door = open_front_door(fake_model(tokenizer_folder, defaults=defaults))
    params = await params_of(door)
    assert (params.temperature, params.top_p, params.top_k) == (0.6, 0.9, 40)
    assert (params.min_p, params.repetition_penalty) == (0.05, 1.1)
    asked = {"temperature": 0, "top_p": 1, "top_k": 0, "min_p": 0, "repetition_penalty": 1}
    params = await params_of(door, **asked)
    assert {name: getattr(params, name) for name in asked} == asked


async def test_every_field_reaches_the_engine(door: FrontDoor):
    params = await params_of(
        door,
        max_tokens=20,
        temperature=0.5,
        top_k=7,
        top_p=0.8,
        min_p=0.1,
        repetition_penalty=1.2,
        presence_penalty=1,
        frequency_penalty=-1,
        logit_bias={"7": -100, "8": 1.5},
        seed=-5,
        min_tokens=3,
        ignore_eos=True,
        stop_token_ids=[9, 10],
    )
    assert params == SamplingParams(
        max_tokens=20,
        temperature=0.5,
        top_k=7,
        top_p=0.8,
        min_p=0.1,
        repetition_penalty=1.2,
        presence_penalty=1.0,
        frequency_penalty=-1.0,
        logit_bias=((7, -100.0), (8, 1.5)),
        seed=-5,
        min_tokens=3,
        ignore_eos=True,
        stop_token_ids=(9, 10),
    )


async def test_unseeded_requests_get_different_seeds_of_64_bits(door: FrontDoor):
    seeds = {(await params_of(door)).seed for _ in range(8)}
    assert len(seeds) == 8
    assert all(-(2**63) <= seed < 2**63 for seed in seeds)


@pytest.mark.parametrize("top_k", [0, -1])
async def test_top_k_is_off_at_0_and_at_minus_1(door: FrontDoor, top_k: int):
    assert (await params_of(door, top_k=top_k)).top_k == 0


async def test_a_top_k_beyond_the_vocabulary_is_the_whole_vocabulary(door: FrontDoor):
    assert (await params_of(door, top_k=10**12)).top_k == door.model.tokenizer.vocab_size


async def test_max_completion_tokens_wins_over_its_older_name(door: FrontDoor):
    assert (await params_of(door, max_tokens=9, max_completion_tokens=5)).max_tokens == 5


async def test_text_prompts_and_id_prompts_reach_the_engine_as_ids(door: FrontDoor):
    await params_of(door, "/v1/completions")
    assert door.engine.calls[-1].prompt_ids == [5, 6, 7]
    await params_of(door, "/v1/completions", prompt="온돌")
    assert door.engine.calls[-1].prompt_ids == door.model.tokenizer.encode_text("온돌")


async def test_messages_are_rendered_as_the_template_wants_them(door: FrontDoor):
    messages = [
        {
            "role": "developer",
            "content": [{"type": "text", "text": "Be "}, {"type": "text", "text": "kind."}],
        },
        {"role": "user", "content": "안녕", "name": "민수"},
        {"role": "assistant", "content": None, "tool_calls": []},
        {"role": "user", "content": "again"},
    ]
    await params_of(door, messages=messages)
    expected = (
        "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\n안녕<|im_end|>\n"
        "<|im_start|>assistant\n<|im_end|>\n<|im_start|>user\nagain<|im_end|>\n<|im_start|>assistant\n"
    )
    assert door.engine.calls[-1].prompt_ids == door.model.tokenizer.encode_rendered(expected)


async def test_decomposed_hangul_in_names_and_stop_strings_is_composed(tokenizer_folder):
    door = open_front_door(fake_model(tokenizer_folder, name="한글"))
    door.engine.script = lambda call: call.feed(door.model.tokenizer.encode_rendered("좋아 끝 더"))
    async with door.client() as client:
        body = CHAT | {"model": normalize("NFD", "한글"), "stop": normalize("NFD", "끝")}
        answer = await client.post("/v1/chat/completions", json=body)
    assert answer.json()["choices"][0]["message"]["content"] == "좋아 "
    assert answer.json()["choices"][0]["finish_reason"] == "stop"


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
@pytest.mark.parametrize(("fields", "priority"), [({"priority": -3}, -3), ({"priority": None}, 0), ({}, 0)])
async def test_every_choice_has_the_requests_priority(door: FrontDoor, path, fields, priority):
    await params_of(door, path, n=2, **fields)
    assert [call.priority for call in door.engine.calls] == [priority, priority]


@pytest.mark.parametrize("priority", ["high", 1.5, True, 2**63])
async def test_a_priority_that_is_no_whole_number_of_64_bits_is_refused(door: FrontDoor, priority):
    async with door.client() as client:
        answer = await client.post("/v1/chat/completions", json=CHAT | {"priority": priority})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "priority")
    assert door.engine.calls == []
