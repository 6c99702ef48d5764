"""A real engine process on a tiny checkpoint, through the client that the API process uses."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.checkpoints import SIZES, reference_model, reference_tokens, save_checkpoint
from support.engine import greedy
from support.tokenizers import save_byte_level_tokenizer

from ondol.engine.client import EngineClient
from ondol.engine.messages import EngineConfig
from ondol.engine.sampling_params import SamplingParams
from ondol.errors import DoesNotFit, EngineFailed, ModelRefused, QueueFull
from ondol.text.structured_output import regex_grammar

DEADLINE_S = 5.0
# Importing the engine's libraries takes seconds, more of them where others compute too.
START_DEADLINE_S = 90.0
BLOCK_BYTES = 4 * 2 * 3 * 2 * 16 * 4
PROMPTS = [[5, 6, 7], [40, 41, 42, 43, 44, 45, 46, 47, 48], list(range(100, 123))]

PARENT_SCRIPT = """
import asyncio, sys
from ondol.engine.client import EngineClient
from ondol.engine.messages import EngineConfig

async def start(path):
    client = await EngineClient.spawn()
    print(client.process_id, flush=True)
    await client.load(EngineConfig(model_path=path, device="cpu", num_threads=1), max_queue_size=1)
    print("ready", flush=True)
    await asyncio.Event().wait()

async def main():
    await asyncio.gather(*map(start, sys.argv[1:]))

asyncio.run(main())
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = save_checkpoint(tmp_path_factory.mktemp("llama"), "llama")
    save_byte_level_tokenizer(folder)
    return folder


def config_for(folder, **options):
    """Two requests at once, 150 blocks of 4 tokens."""
    defaults = {
        "device": "cpu",
        "dtype": "float32",
        "max_num_seqs": 2,
        "max_num_batched_tokens": 64,
        "kv_cache_bytes": 150 * BLOCK_BYTES,
        "block_size": 4,
        "num_threads": 1,
    }
    return EngineConfig(model_path=str(folder), **{**defaults, **options})


@pytest.fixture(scope="module")
def loop():
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture(scope="module")
def client(loop, folder):
    """One engine for all tests that leave it as they found it; three requests may be open."""
    client = loop.run(EngineClient.start(config_for(folder), max_queue_size=1))
    yield client
    loop.run(client.close())


async def collect(client, prompt_ids, params):
    outputs = [output async for output in client.generate(prompt_ids, params)]
    token_ids = []
    for output in outputs:
        assert output.first_index == len(token_ids)
        token_ids += output.token_ids
    return token_ids, outputs[-1]


async def until(condition, deadline_s=DEADLINE_S):
    """Poll until the condition holds."""
    end = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        await asyncio.sleep(0.01)


def is_running(process_id):
    """Whether a process exists and is no zombie, whoever its parent is."""
    try:
        stat = Path(f"/proc/{process_id}/stat").read_text(encoding="ascii", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


@contextlib.contextmanager
def folder_that_never_loads(folder):
    """Its config.json is a pipe without an end; yields whether somebody is reading it."""
    folder.mkdir()
    os.mkfifo(folder / "config.json")
    writers = []

    def is_being_read():
        if not writers:
            with contextlib.suppress(OSError):  # nobody has opened it yet
                writers.append(os.open(folder / "config.json", os.O_WRONLY | os.O_NONBLOCK))
        return bool(writers)

    try:
        yield is_being_read
    finally:
        for writer in writers:
            os.close(writer)


def test_the_engine_says_what_it_loaded(client):
    ready = client.ready
    assert (ready.device, ready.dtype, ready.block_size) == ("cpu", "float32", 4)
    assert (ready.num_blocks, ready.kv_cache_bytes) == (150, 150 * BLOCK_BYTES)
    assert ready.max_model_len == 512
    assert ready.weights_bytes > 0
    assert ready.load_seconds > 0
    assert client.is_alive


def test_streams_side_by_side_equal_the_reference(loop, client, folder):
    model = reference_model(folder)
    expected = [reference_tokens(model, prompt, 12) for prompt in PROMPTS]

    async def all_of_them():
        return await asyncio.gather(*(collect(client, prompt, greedy(12)) for prompt in PROMPTS))

    results = loop.run(all_of_them())
    assert [tokens for tokens, _ in results] == expected
    assert [last.finish_reason for _, last in results] == ["length"] * 3
    assert client.num_open == 0


def test_an_end_token_ends_the_stream_and_is_named(loop, client, folder):
    (first, second, *_) = reference_tokens(reference_model(folder), PROMPTS[0], 4)
    assert first != second
    params = SamplingParams(max_tokens=12, temperature=0.0, stop_token_ids=(second,))
    tokens, last = loop.run(collect(client, PROMPTS[0], params))
    assert tokens == [first, second]
    assert (last.finish_reason, last.stop_token_id) == ("stop", second)


def test_a_repeated_prompt_comes_from_the_cache_unless_its_salt_differs(loop, client):
    prompt = list(range(200, 221))

    async def num_cached(salt):
        return [output async for output in client.generate(prompt, greedy(3), cache_salt=salt)][
            -1
        ].num_cached_tokens

    assert [loop.run(num_cached(salt)) for salt in ("", "", "other", "other")] == [0, 20, 0, 20]


def test_a_request_is_kept_with_all_that_it_was_sent_with(loop, client):
    async def read():
        generator = client.generate(PROMPTS[0], greedy(400), cache_salt="salt", priority=-7)
        async with contextlib.aclosing(generator):
            first = await anext(generator)
            (request,) = client._open.values()
            message = request.to_message()
        await until(lambda: client.stats.num_used_blocks == 0)
        return first.token_ids, message

    token_ids, message = loop.run(read())
    assert (message.prompt_ids, message.params) == (PROMPTS[0], greedy(400))
    # The engine goes on while the first token is read.
    assert message.output_ids[: len(token_ids)] == token_ids
    assert (message.cache_salt, message.priority) == ("salt", -7)


def test_closing_a_generator_frees_its_blocks(loop, client):
    async def take_two_and_close():
        generator = client.generate(PROMPTS[0], greedy(400))
        await anext(generator)
        await anext(generator)
        assert client.num_open == 1
        assert client.stats.num_used_blocks > 0
        await generator.aclose()
        assert client.num_open == 0
        await until(lambda: client.stats.num_used_blocks == 0 and client.stats.num_running == 0)

    loop.run(take_two_and_close())


def test_cancelling_a_reader_frees_its_blocks(loop, client):
    async def cancel():
        task = asyncio.create_task(collect(client, PROMPTS[0], greedy(400)))
        await until(lambda: client.stats.num_used_blocks > 0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await until(lambda: client.stats.num_used_blocks == 0)

    loop.run(cancel())
    assert client.num_open == 0


def test_a_waiting_request_can_be_closed_too(loop, client):
    async def close_the_third():
        running = [client.generate(prompt, greedy(400)) for prompt in PROMPTS[:2]]
        for generator in running:
            await anext(generator)
        waiting = asyncio.create_task(collect(client, PROMPTS[2], greedy(4)))
        await until(lambda: client.stats.num_waiting == 1)
        waiting.cancel()
        await until(lambda: client.stats.num_waiting == 0)
        assert client.stats.num_running == 2
        for generator in running:
            await generator.aclose()
        await until(lambda: client.stats.num_used_blocks == 0)

    loop.run(close_the_third())


def test_one_request_too_many_is_refused_and_room_is_made_by_ending_one(loop, client):
    async def fill():
        generators = [client.generate(prompt, greedy(400)) for prompt in PROMPTS]
        readers = [asyncio.create_task(anext(generator)) for generator in generators]
        await until(lambda: client.num_open == 3)
        with pytest.raises(QueueFull) as refusal:
            await anext(client.generate(PROMPTS[0], greedy(1)))
        assert refusal.value.retry_after_s > 0
        with pytest.raises(QueueFull):
            client.check_admission()
        await readers[0]
        await generators[0].aclose()
        tokens, _ = await collect(client, PROMPTS[0], greedy(1))
        assert len(tokens) == 1
        await asyncio.gather(*readers[1:])
        for generator in generators[1:]:
            await generator.aclose()
        await until(lambda: client.stats.num_used_blocks == 0)

    loop.run(fill())


@pytest.mark.parametrize(("prompt_ids", "max_tokens"), [([5] * 600, 1), ([5] * 100, 413), ([], 5)])
def test_a_request_that_can_never_run_fails_alone(loop, client, prompt_ids, max_tokens):
    with pytest.raises(EngineFailed, match="does not fit the context of 512 tokens"):
        loop.run(collect(client, prompt_ids, greedy(max_tokens)))
    assert client.is_alive
    assert len(loop.run(collect(client, [5, 6], greedy(3)))[0]) == 3


def test_logprobs_and_grammars_come_through_the_process(loop, client):
    grammar = regex_grammar("[가-힣]{2}|[0-9]{4}")
    params = SamplingParams(max_tokens=40, seed=4, grammar=grammar, logprobs=2, prompt_logprobs=0)

    async def generate():
        return [output async for output in client.generate(PROMPTS[0], params)]

    outputs = loop.run(generate())
    assert outputs[-1].finish_reason == "stop"
    assert len(outputs[0].prompt_logprobs) == len(PROMPTS[0])
    for output in outputs:
        assert [one.token_id for one in output.logprobs] == output.token_ids
        assert all(len(one.top_ids) == 2 for one in output.logprobs)


def test_a_grammar_that_cannot_be_used_fails_alone(loop, client):
    params = SamplingParams(max_tokens=4, grammar="no grammar")
    with pytest.raises(EngineFailed, match="the grammar cannot be used"):
        loop.run(collect(client, PROMPTS[0], params))
    assert len(loop.run(collect(client, PROMPTS[0], greedy(3)))[0]) == 3


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_meant_for_the_daemon_do_not_end_the_engine(loop, client, number):
    async def signal_in_the_middle():
        generator = client.generate(PROMPTS[0], greedy(20))
        outputs = [await anext(generator)]
        os.kill(client.process_id, number)
        return outputs + [output async for output in generator]

    assert loop.run(signal_in_the_middle())[-1].finish_reason == "length"
    assert len(loop.run(collect(client, PROMPTS[0], greedy(5)))[0]) == 5


def test_a_killed_engine_ends_its_open_streams_with_the_signals_name(folder):
    async def kill():
        client = await EngineClient.start(config_for(folder), max_queue_size=1)
        generators = [client.generate(prompt, greedy(400)) for prompt in PROMPTS]
        await asyncio.gather(*map(anext, generators[:2]))
        waiting = asyncio.create_task(drain(generators[2]))
        await until(lambda: client.stats.num_waiting == 1)
        os.kill(client.process_id, signal.SIGKILL)
        for generator in generators[:2]:
            with pytest.raises(EngineFailed, match="killed by SIGKILL"):
                await asyncio.wait_for(drain(generator), DEADLINE_S)
        with pytest.raises(EngineFailed, match="killed by SIGKILL"):
            await waiting
        assert not client.is_alive
        assert client.num_open == 0
        assert client.stats.num_used_blocks == 0
        with pytest.raises(EngineFailed, match="killed by SIGKILL"):
            await anext(client.generate([5], greedy(1)))
        await client.close()

    asyncio.run(kill())


async def drain(generator):
    async for _ in generator:
        pass


def test_closing_the_client_ends_the_process_and_the_open_streams(folder):
    async def close():
        seen = []
        client = await EngineClient.start(config_for(folder), max_queue_size=1, on_progress=seen.append)
        assert all(0 < progress.loaded_bytes <= progress.total_bytes for progress in seen)
        assert seen
        generator = client.generate(PROMPTS[0], greedy(400))
        await anext(generator)
        await asyncio.wait_for(client.close(), DEADLINE_S)
        assert not is_running(client.process_id)
        with pytest.raises(EngineFailed, match="closed"):
            await drain(generator)
        assert not client.is_alive
        await client.close()

    asyncio.run(close())


def test_what_the_engine_refuses_to_load_comes_back_as_the_same_error(folder, tmp_path):
    unknown = {**SIZES, "model_type": "own_thing"}
    (tmp_path / "config.json").write_text(json.dumps(unknown))

    async def load_both():
        starts = [
            EngineClient.start(config_for(tmp_path), max_queue_size=1),
            EngineClient.start(
                config_for(folder, max_model_len=512, kv_cache_bytes=127 * BLOCK_BYTES), max_queue_size=1
            ),
        ]
        return await asyncio.gather(*starts, return_exceptions=True)

    refused, too_large = asyncio.run(load_both())
    assert isinstance(refused, ModelRefused)
    assert "model type 'own_thing' is not known" in str(refused)
    assert isinstance(too_large, DoesNotFit)
    assert "at most 508" in str(too_large)


def test_a_load_that_is_killed_or_cancelled_leaves_no_process(tmp_path):
    async def load(folder, end):
        with folder_that_never_loads(folder) as is_being_read:
            client = await EngineClient.spawn()
            task = asyncio.create_task(client.load(config_for(folder), max_queue_size=1))
            await until(is_being_read, START_DEADLINE_S)
            assert not client.is_alive
            end(client, task)
            (result,) = await asyncio.wait_for(asyncio.gather(task, return_exceptions=True), DEADLINE_S)
            assert not is_running(client.process_id)
            return result

    async def load_both():
        return await asyncio.gather(
            load(tmp_path / "one", lambda client, task: os.kill(client.process_id, signal.SIGKILL)),
            load(tmp_path / "two", lambda client, task: task.cancel()),
        )

    killed, cancelled = asyncio.run(load_both())
    assert isinstance(killed, EngineFailed)
    assert "killed by SIGKILL" in str(killed)
    assert isinstance(cancelled, asyncio.CancelledError)


def test_engines_end_when_their_parent_is_killed_also_while_they_load(folder, tmp_path):
    async def orphan():
        with folder_that_never_loads(tmp_path / "loading") as is_being_read:
            parent = await asyncio.create_subprocess_exec(
                sys.executable,
                "-c",
                PARENT_SCRIPT,
                str(folder),
                str(tmp_path / "loading"),
                stdout=subprocess.PIPE,
            )
            process_ids = [int(await parent.stdout.readline()) for _ in range(2)]
            assert await asyncio.wait_for(parent.stdout.readline(), START_DEADLINE_S) == b"ready\n"
            await until(is_being_read, START_DEADLINE_S)
            assert all(map(is_running, process_ids))
            parent.kill()
            await parent.wait()
            await until(lambda: not any(map(is_running, process_ids)))

    asyncio.run(orphan())
