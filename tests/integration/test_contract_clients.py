"""What OpenAI's contract promises beyond plain text, as people's own clients ask for it.

The starter answers what needs a language; a tiny model with random weights answers what a grammar
makes sure of, for it does nothing right by itself.
"""

import json
import math
import subprocess
import sys
from typing import Literal

import openai
import pytest
from langchain_core.messages import HumanMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from pydantic import BaseModel, ConfigDict
from support.checkpoints import VOCAB_SIZE
from support.daemon import Daemon, clean_environment
from support.served_models import save_served_model
from support.tokenizers import CHATML_TEMPLATE, save_byte_level_tokenizer

QUESTION = [{"role": "user", "content": "Give me a short introduction to large language models."}]
CHAT = {"model": "starter", "messages": QUESTION, "temperature": 0, "max_tokens": 12}
HERMES_TEMPLATE = "{% if tools %}<tool_call>{{ tools | tojson }}{% endif %}" + CHATML_TEMPLATE


class Weather(BaseModel):
    """A schema that the random model cannot help but fill, and not add to."""

    model_config = ConfigDict(extra="forbid")

    city: Literal["서울", "부산"]
    is_warm: bool


@pytest.fixture(scope="module")
def tool_daemon(tmp_path_factory):
    """A tiny model whose template knows tools."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    save_served_model(folder, max_position_embeddings=4096)
    save_byte_level_tokenizer(folder, VOCAB_SIZE, chat_template=HERMES_TEMPLATE)
    with Daemon(str(folder)) as daemon:
        yield daemon.wait_until_serving()


@tool
def weather(city: Literal["서울", "부산"], is_warm: bool) -> str:
    """Tell the weather."""
    return f"{city}: {is_warm}"


def test_logprobs_are_told_token_by_token(starter_daemon):
    with starter_daemon.openai() as client:
        (choice,) = client.chat.completions.create(**CHAT, logprobs=True, top_logprobs=3).choices
    entries = choice.logprobs.content
    assert len(entries) == CHAT["max_tokens"]
    assert bytes(value for entry in entries for value in entry.bytes).decode() == choice.message.content
    for entry in entries:
        # Greedy: the chosen token is the likeliest, and three of them are no more than certain.
        assert entry.logprob == entry.top_logprobs[0].logprob
        assert sum(math.exp(top.logprob) for top in entry.top_logprobs) <= 1 + 1e-6


def test_streamed_logprobs_equal_those_of_the_whole_answer(starter_daemon):
    with starter_daemon.openai() as client:
        (whole,) = client.chat.completions.create(**CHAT, logprobs=True).choices
        stream = client.chat.completions.create(**CHAT, logprobs=True, stream=True)
        entries = [
            entry
            for chunk in stream
            if chunk.choices[0].logprobs
            for entry in chunk.choices[0].logprobs.content
        ]
    assert [entry.token for entry in entries] == [entry.token for entry in whole.logprobs.content]
    for streamed, entry in zip(entries, whole.logprobs.content, strict=True):
        assert streamed.logprob == pytest.approx(entry.logprob, abs=1e-4)


def test_a_prompt_is_scored_as_evaluations_ask_for_it(starter_daemon):
    prompt = [504, 2365, 6354, 16438, 27003, 690, 260]
    with starter_daemon.openai() as client:
        answer = client.completions.create(
            model="starter", prompt=[prompt, prompt[:4]], echo=True, logprobs=1, max_tokens=1, temperature=0
        )
    long, short = (choice.logprobs for choice in answer.choices)
    assert [len(long.token_logprobs), len(short.token_logprobs)] == [8, 5]
    assert long.token_logprobs[0] is None
    assert long.token_logprobs[1:4] == pytest.approx(short.token_logprobs[1:4], abs=1e-4)
    assert answer.usage.completion_tokens == 2


def test_choices_differ_and_the_first_is_that_of_a_single_one(starter_daemon):
    options = CHAT | {"temperature": 1, "seed": 11}
    with starter_daemon.openai() as client:
        several = client.chat.completions.create(**options, n=4)
        (alone,) = client.chat.completions.create(**options).choices
    texts = [choice.message.content for choice in several.choices]
    assert len(set(texts)) == 4
    assert texts[0] == alone.message.content


def test_an_answer_is_parsed_into_the_clients_own_model(starter_daemon):
    with starter_daemon.openai() as client:
        answer = client.chat.completions.parse(
            model="starter",
            messages=[{"role": "user", "content": "How is the weather in Seoul?"}],
            response_format=Weather,
            max_tokens=100,
        )
    assert isinstance(answer.choices[0].message.parsed, Weather)


def test_an_answer_that_is_cut_is_told_as_cut(starter_daemon):
    with starter_daemon.openai() as client, pytest.raises(openai.LengthFinishReasonError):
        client.chat.completions.parse(
            model="starter", messages=QUESTION, response_format=Weather, max_tokens=2
        )


def test_a_schema_that_means_nothing_is_a_bad_request_of_its_own(starter_daemon):
    schema = {"name": "x", "schema": {"$ref": "#/$defs/none"}}
    with starter_daemon.openai() as client:
        with pytest.raises(openai.BadRequestError) as caught:
            client.chat.completions.create(
                **CHAT, response_format={"type": "json_schema", "json_schema": schema}
            )
        assert caught.value.param == "response_format"
        assert client.chat.completions.create(**CHAT).choices[0].message.content


def test_the_last_chunk_tells_where_the_time_went(starter_daemon):
    options = {"include_usage": True, "include_timings": True}
    with starter_daemon.openai() as client:
        *_, last = client.chat.completions.create(**CHAT, stream=True, stream_options=options)
    assert last.usage.completion_tokens == CHAT["max_tokens"]
    assert last.timings["decode_s"] > 0
    assert last.timings["prefill_s"] > 0
    assert last.timings["tokens_per_second"] == pytest.approx(11 / last.timings["decode_s"])


def test_a_deadline_ends_an_answer_with_what_is_there(starter_daemon):
    with starter_daemon.openai() as client:
        # On a machine that is busy the first token alone may take longer than a second.
        for deadline_s in (1, 4, 16):
            extensions = {"deadline_s": deadline_s, "ignore_eos": True}
            answer = client.chat.completions.create(**CHAT | {"max_tokens": 900}, extra_body=extensions)
            assert answer.choices[0].finish_reason == "length"
            if answer.usage.completion_tokens:
                break
    assert 0 < answer.usage.completion_tokens < 900


def test_a_model_without_tools_ignores_them_and_says_so(starter_daemon):
    function = {"name": "f", "parameters": {"type": "object", "properties": {}}}
    with starter_daemon.openai() as client:
        raw = client.chat.completions.with_raw_response.create(
            **CHAT, tools=[{"type": "function", "function": function}]
        )
    assert raw.headers["x-ondol-ignored"] == "tools"
    assert raw.parse().choices[0].message.content


@pytest.mark.parametrize("stream", [False, True])
def test_a_forced_call_has_arguments_that_fit_the_schema(tool_daemon, stream):
    function = {"name": "weather", "parameters": Weather.model_json_schema()}
    options = {
        "model": "tiny",
        "messages": QUESTION,
        "tools": [{"type": "function", "function": function}],
        "tool_choice": "required",
        "parallel_tool_calls": False,
        "max_tokens": 200,
        "seed": 3,
    }
    with tool_daemon.openai() as client:
        if stream:
            with client.chat.completions.stream(**options) as events:
                (choice,) = events.get_final_completion().choices
        else:
            (choice,) = client.chat.completions.create(**options).choices
    assert choice.finish_reason == "tool_calls"
    (call,) = choice.message.tool_calls
    assert call.function.name == "weather"
    Weather.model_validate_json(call.function.arguments)


def test_langchain_streams_calls_tools_and_fills_schemas(starter_daemon, tool_daemon):
    starter = ChatOpenAI(
        base_url=f"{starter_daemon.url}/v1", api_key="any", model="starter", temperature=0, max_tokens=12
    )
    whole = starter.invoke([HumanMessage(QUESTION[0]["content"])])
    chunks = list(starter.stream(QUESTION[0]["content"]))
    assert "".join(chunk.content for chunk in chunks) == whole.content
    assert whole.usage_metadata["output_tokens"] == 12
    tiny = ChatOpenAI(base_url=f"{tool_daemon.url}/v1", api_key="any", model="tiny", max_tokens=200, seed=3)
    called = tiny.bind_tools([weather], tool_choice="any", parallel_tool_calls=False, strict=True).invoke(
        "서울 날씨?"
    )
    assert called.tool_calls[0]["name"] == "weather"
    assert called.tool_calls[0]["args"]["city"] in ("서울", "부산")
    filled = tiny.with_structured_output(Weather, method="json_schema").invoke("서울 날씨?")
    assert isinstance(filled, Weather)


def test_the_llm_command_streams_an_answer(starter_daemon, tmp_path):
    model = {"model_id": "ondol", "model_name": "starter", "api_base": f"{starter_daemon.url}/v1"}
    (tmp_path / "extra-openai-models.yaml").write_text(json.dumps([model]), encoding="utf-8")
    (tmp_path / "keys.json").write_text(json.dumps({"openai": "any"}), encoding="utf-8")
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "llm",
            "-m",
            "ondol",
            "-o",
            "max_tokens",
            "8",
            "-o",
            "temperature",
            "0",
            "Hello",
        ],
        env=clean_environment() | {"LLM_USER_PATH": str(tmp_path)},
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.strip()
