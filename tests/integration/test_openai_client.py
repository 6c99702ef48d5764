"""The daemon as OpenAI's own Python client meets it, and what its departures leave behind."""

import asyncio
import http.client
import json
import re
import select
import shutil
import subprocess
from contextlib import suppress
from urllib.parse import urlsplit

import httpx
import openai
import pytest
from support.daemon import IDLE, Daemon
from support.served_models import ENDLESS, save_served_model
from support.streams import endless

pytestmark = pytest.mark.anyio

QUESTION = [{"role": "user", "content": "Give me a short introduction to large language models."}]
CHAT = {"model": "starter", "messages": QUESTION, "temperature": 0, "max_tokens": 12}
# At the starter's pace these take far longer than a test; no end token cuts them short.
LONG_CHAT = CHAT | {"max_tokens": 900, "extra_body": {"ignore_eos": True}}
# Longer than the 5 s after which the HTTP server would close an idle connection by default.
IDLE_S = 6
KEY = "secret-key"


@pytest.fixture
def client(starter_daemon):
    with starter_daemon.openai() as client:
        yield client


def expect_that_nothing_runs(daemon):
    """Zero running, zero waiting, every block free; and later tokens are those of later requests only."""
    before = daemon.wait_for_metrics(IDLE)
    with daemon.openai() as client:
        usage = client.chat.completions.create(**CHAT).usage
    after = daemon.wait_for_metrics(IDLE)
    name = "ondol_generation_tokens_total"
    assert after[name] - before[name] == usage.completion_tokens


def test_a_chat_streams_token_by_token_and_ends_with_usage(client):
    chunks = list(client.chat.completions.create(**CHAT, stream=True, stream_options={"include_usage": True}))
    assert chunks[0].choices[0].delta.role == "assistant"
    texts = [chunk.choices[0].delta.content for chunk in chunks[1:-1] if chunk.choices[0].delta.content]
    assert len(texts) == CHAT["max_tokens"]
    assert chunks[-2].choices[0].finish_reason == "length"
    assert chunks[-1].choices == []
    whole = client.chat.completions.create(**CHAT)
    assert "".join(texts) == whole.choices[0].message.content
    assert whole.choices[0].finish_reason == "length"
    assert whole.usage.completion_tokens == chunks[-1].usage.completion_tokens == CHAT["max_tokens"]
    assert whole.usage.total_tokens == whole.usage.prompt_tokens + CHAT["max_tokens"]
    assert whole.usage.prompt_tokens_details.cached_tokens > 0


def test_a_stream_closed_midway_stops_and_frees_every_block(starter_daemon, client):
    before = starter_daemon.metrics()["ondol_generation_tokens_total"]
    stream = client.chat.completions.create(**LONG_CHAT, stream=True)
    for _ in range(5):
        next(stream)
    assert starter_daemon.metrics()["ondol_requests_running"] == 1
    stream.close()
    expect_that_nothing_runs(starter_daemon)
    generated = starter_daemon.metrics()["ondol_generation_tokens_total"] - before
    assert generated < LONG_CHAT["max_tokens"] / 2


async def test_cancelled_tasks_stop_their_streams(starter_daemon):
    async def chat_for_ever(client):
        async for _ in await client.chat.completions.create(**LONG_CHAT, stream=True):
            pass

    async with starter_daemon.async_openai() as client:
        tasks = [asyncio.create_task(chat_for_ever(client)) for _ in range(4)]
        await asyncio.to_thread(starter_daemon.wait_for_metrics, {"ondol_requests_running": 4})
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        await asyncio.to_thread(expect_that_nothing_runs, starter_daemon)


def test_a_whole_answer_that_times_out_at_the_client_stops_and_frees_every_block(starter_daemon, client):
    with pytest.raises(openai.APITimeoutError):
        client.with_options(timeout=1).chat.completions.create(**LONG_CHAT)
    expect_that_nothing_runs(starter_daemon)


def test_several_choices_are_sampled_apart_and_streamed_side_by_side(client):
    options = CHAT | {"temperature": 1, "seed": 7, "n": 2, "extra_body": {"ignore_eos": True}}
    whole = client.chat.completions.create(**options)
    assert [choice.index for choice in whole.choices] == [0, 1]
    texts = [choice.message.content for choice in whole.choices]
    assert texts[0] != texts[1]
    assert whole.usage.completion_tokens == 2 * CHAT["max_tokens"]
    streamed = ["", ""]
    for chunk in client.chat.completions.create(**options, stream=True):
        (choice,) = chunk.choices
        streamed[choice.index] += choice.delta.content or ""
    assert streamed == texts


def test_an_unknown_model_is_not_found(client):
    with pytest.raises(openai.NotFoundError, match="starter") as caught:
        client.chat.completions.create(**CHAT | {"model": "gpt-4"})
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")
    assert client.models.retrieve("starter").id == "starter"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("gpt-4")


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"messages": []}, "messages"),
        ({"temperature": "warm"}, "temperature"),
        ({"messages": [{"role": "user", "content": 3}]}, "messages[0].content"),
        ({"n": 1000}, "n"),
    ],
)
def test_a_wrong_field_is_a_bad_request_that_names_it(client, changes, param):
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(**CHAT | changes)
    assert caught.value.param == param


@pytest.mark.parametrize("stream", [False, True])
def test_a_prompt_that_does_not_fit_is_told_both_numbers(starter_daemon, client, stream):
    words = [{"role": "user", "content": "floor " * 3000}]
    with pytest.raises(openai.BadRequestError, match="maximum context length is 1024 tokens") as caught:
        client.chat.completions.create(**CHAT | {"messages": words}, stream=stream)
    assert caught.value.code == "context_length_exceeded"
    (num_tokens,) = re.findall(r"prompt has (\d+) tokens", str(caught.value))
    assert int(num_tokens) > 3000
    starter_daemon.wait_for_metrics(IDLE)


def test_an_answer_may_fill_the_context_to_its_last_token(starter_daemon, client):
    prompt = {"model": "starter", "prompt": [1000] * 1020, "temperature": 0}
    answer = client.completions.create(**prompt, extra_body={"ignore_eos": True})
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage.total_tokens == 1024
    with pytest.raises(openai.BadRequestError) as caught:
        client.completions.create(**prompt, max_tokens=5)
    assert caught.value.code == "context_length_exceeded"


def test_without_keys_any_key_is_accepted(starter_daemon):
    with starter_daemon.openai(api_key="whatever") as client:
        assert [model.id for model in client.models.list()] == ["starter"]


def expect_server_sent_events(raw):
    """The bytes of one streamed chat: nothing but data events, the last one [DONE]."""
    *events, rest = raw.split(b"\n\n")
    assert rest == b""
    assert all(re.fullmatch(rb"data: [^\n]+", event) for event in events)
    assert events[-1] == b"data: [DONE]"
    chunks = [json.loads(event.removeprefix(b"data: ")) for event in events[:-1]]
    assert len(chunks) == CHAT["max_tokens"] + 2
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}


def test_a_stream_is_server_sent_events_that_no_proxy_holds_back(starter_daemon):
    url = f"{starter_daemon.url}/v1/chat/completions"
    with httpx.stream("POST", url, json=CHAT | {"stream": True}, timeout=60) as answer:
        pieces = list(answer.iter_raw())
    expect_server_sent_events(b"".join(pieces))
    assert len(pieces) >= CHAT["max_tokens"]
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.headers["cache-control"] == "no-cache"
    assert answer.headers["x-accel-buffering"] == "no"


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_curl_streams_a_chat(starter_daemon):
    command = ["curl", "-sN", f"{starter_daemon.url}/v1/chat/completions"]
    body = json.dumps(CHAT | {"stream": True})
    done = subprocess.run(
        [*command, "-H", "content-type: application/json", "-d", body],
        check=True,
        capture_output=True,
        timeout=60,
    )
    expect_server_sent_events(done.stdout)


def test_an_idle_connection_stays_open_for_the_next_request(starter_daemon):
    connection = http.client.HTTPConnection(urlsplit(starter_daemon.url).netloc, timeout=10)
    connection.request("GET", "/v1/models")
    connection.getresponse().read()
    open_socket = connection.sock
    # Readable would mean closed: nothing else comes unasked.
    assert select.select([open_socket], [], [], IDLE_S)[0] == []
    connection.request("GET", "/v1/models")
    assert connection.getresponse().status == 200
    assert connection.sock is open_socket
    connection.close()


@pytest.fixture(scope="module")
def narrow_daemon(tmp_path_factory):
    """Runs one request, lets two wait, and asks for a key."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    save_served_model(folder, max_position_embeddings=ENDLESS + 1000)
    limits = ("--max-num-seqs", "1", "--max-queue-size", "2", "--api-key", KEY)
    with Daemon(str(folder), *limits, "--kv-cache-memory", "64MiB") as daemon:
        yield daemon.wait_until_serving()


async def complete_endlessly(client, *, stream):
    body = endless()
    extensions = {"ignore_eos": body.pop("ignore_eos")}
    answer = await client.completions.create(**body, extra_body=extensions, stream=stream)
    async for _ in answer:
        pass


async def end(*tasks):
    for task in tasks:
        task.cancel()
    for task in tasks:
        with suppress(asyncio.CancelledError):
            await task


async def test_queued_requests_that_are_cancelled_leave_the_queue(narrow_daemon):
    def wait_for(num_running, num_waiting):
        expected = {"ondol_requests_running": num_running, "ondol_requests_waiting": num_waiting}
        return asyncio.to_thread(narrow_daemon.wait_for_metrics, expected, api_key=KEY)

    async with narrow_daemon.async_openai(api_key=KEY) as client:
        running = asyncio.create_task(complete_endlessly(client, stream=True))
        await wait_for(1, 0)
        queued_stream = asyncio.create_task(complete_endlessly(client, stream=True))
        queued_whole = asyncio.create_task(complete_endlessly(client, stream=False))
        await wait_for(1, 2)
        await end(queued_whole)
        await wait_for(1, 1)
        await end(queued_stream)
        await wait_for(1, 0)
        assert not running.done()
        await end(running)
        await asyncio.to_thread(narrow_daemon.wait_for_metrics, IDLE, api_key=KEY)


async def test_more_requests_than_may_wait_are_told_when_to_try_again(narrow_daemon):
    async with narrow_daemon.async_openai(api_key=KEY) as client:
        tasks = [asyncio.create_task(complete_endlessly(client, stream=True)) for _ in range(3)]
        busy = {"ondol_requests_running": 1, "ondol_requests_waiting": 2}
        await asyncio.to_thread(narrow_daemon.wait_for_metrics, busy, api_key=KEY)
        for stream in (False, True):
            with pytest.raises(openai.RateLimitError) as caught:
                await complete_endlessly(client, stream=stream)
            assert caught.value.code == "queue_full"
            assert int(caught.value.response.headers["retry-after"]) > 0
        await end(*tasks)
        await asyncio.to_thread(narrow_daemon.wait_for_metrics, IDLE, api_key=KEY)
        answer = await client.completions.create(model="tiny", prompt="hi", max_tokens=3)
        assert answer.usage.completion_tokens <= 3


def test_a_wrong_key_is_an_authentication_error(narrow_daemon):
    with narrow_daemon.openai(api_key="wrong") as client, pytest.raises(openai.AuthenticationError) as caught:
        client.models.list()
    assert caught.value.code == "invalid_api_key"
    for path in ("v1/models", "metrics", "no-such-path"):
        assert narrow_daemon.get(path).status_code == 401
    for probe in ("health", "ready"):
        assert narrow_daemon.get(probe).status_code == 200
