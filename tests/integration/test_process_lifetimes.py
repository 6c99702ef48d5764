"""How the daemon's processes end: by signals, by force, under load, and before they have begun."""

import asyncio
import json
import os
import signal
import socket

import httpx
import openai
import pytest
from support.daemon import Daemon, has_ended, poll
from support.served_models import ENDLESS, save_served_model
from support.streams import DONE, endless, error_of, open_streams

pytestmark = pytest.mark.anyio

NUM_STREAMS = 8
LEAVE_TIMEOUT_S = 5
ROOMY = ("--kv-cache-memory", "64MiB")


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "tiny"
    return str(save_served_model(folder, max_position_embeddings=ENDLESS + 1000))


@pytest.fixture
def serve(model_folder):
    daemons = []

    def start(*arguments):
        daemons.append(Daemon(model_folder, *ROOMY, *arguments))
        return daemons[-1]

    yield start
    for daemon in daemons:
        daemon.close()


def engine_of(daemon):
    """The engine's process id; waits until there is one."""
    (engine_id,) = poll(daemon.engine_ids, len, timeout_s=60)
    return engine_id


def expect_gone(engine_id):
    poll(lambda: has_ended(engine_id), bool, LEAVE_TIMEOUT_S)


def ask(daemon, **changes):
    return httpx.post(f"{daemon.url}/v1/completions", json=endless(**changes), timeout=60)


async def read_with_openai(daemon):
    async with daemon.async_openai() as client:
        async for _ in await client.completions.create(
            model="tiny", prompt="hi", max_tokens=ENDLESS, extra_body={"ignore_eos": True}, stream=True
        ):
            pass


async def test_killed_under_streams_it_leaves_no_engine_behind(serve):
    daemon = serve().wait_until_serving()
    engine_id = engine_of(daemon)
    async with open_streams(daemon, NUM_STREAMS, endless()) as streams:
        daemon.send_signal(signal.SIGKILL)
        expect_gone(engine_id)
        ends = await asyncio.gather(*streams, return_exceptions=True)
    assert all(isinstance(end, httpx.TransportError) for end in ends)


def test_killed_while_it_loads_it_leaves_no_engine_behind(serve):
    daemon = serve()
    engine_id = engine_of(daemon)
    daemon.send_signal(signal.SIGKILL)
    expect_gone(engine_id)
    daemon.end()
    assert not any("serving" in line for line in daemon.seen)


@pytest.mark.parametrize(("which", "expected_code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_a_signal_while_it_loads_ends_both_processes(serve, which, expected_code):
    daemon = serve()
    engine_id = engine_of(daemon)
    daemon.send_signal(which)
    code, output = daemon.end(LEAVE_TIMEOUT_S)
    assert (code, output) == (expected_code, "")
    assert has_ended(engine_id)
    assert not any("Traceback" in line or "serving" in line for line in daemon.seen)


@pytest.mark.parametrize("which", [pytest.param(signal.SIGINT, marks=pytest.mark.slow), signal.SIGTERM])
async def test_the_first_signal_lets_streams_finish_and_turns_new_requests_away(serve, which):
    daemon = serve().wait_until_serving()
    engine_id = engine_of(daemon)
    async with open_streams(daemon, NUM_STREAMS, endless(max_tokens=1000)) as streams:
        # Held up, so that the answers are not whole before the signal has come.
        os.kill(engine_id, signal.SIGSTOP)
        daemon.send_signal(which)
        await asyncio.to_thread(daemon.wait_until_draining)
        refused = await asyncio.to_thread(ask, daemon)
        health = await asyncio.to_thread(daemon.get, "health")
        assert not any(stream.done() for stream in streams)
        os.kill(engine_id, signal.SIGCONT)
        answers = await asyncio.gather(*streams)
    for *texts, last, done in answers:
        assert done == DONE
        assert json.loads(last)["choices"][0]["finish_reason"] == "length"
        assert not any("error" in json.loads(text) for text in texts)
    assert refused.status_code == 503
    assert int(refused.headers["retry-after"]) > 0
    assert refused.json()["error"]["code"] == "shutting_down"
    assert health.status_code == 200
    assert daemon.end(LEAVE_TIMEOUT_S) == (0, "")
    assert has_ended(engine_id)
    assert not any("Traceback" in line for line in daemon.seen)


async def test_when_the_grace_period_is_over_every_answer_ends_with_a_reason(serve):
    daemon = serve("--shutdown-grace-s", "0.5").wait_until_serving()
    engine_id = engine_of(daemon)
    async with open_streams(daemon, NUM_STREAMS, endless()) as streams:
        whole = asyncio.create_task(asyncio.to_thread(ask, daemon))
        await asyncio.to_thread(daemon.wait_for_metrics, {"ondol_requests_running": NUM_STREAMS + 1})
        daemon.send_signal(signal.SIGTERM)
        answers = await asyncio.gather(*streams)
        cut = await whole
    assert {error_of(events)["code"] for events in answers} == {"shutting_down"}
    assert (cut.status_code, cut.json()["error"]["code"]) == (503, "shutting_down")
    assert daemon.end(LEAVE_TIMEOUT_S) == (0, "")
    assert has_ended(engine_id)


async def test_a_second_signal_ends_it_at_once(serve):
    daemon = serve().wait_until_serving()
    engine_id = engine_of(daemon)
    async with open_streams(daemon, NUM_STREAMS, endless()):
        daemon.send_signal(signal.SIGINT)
        await asyncio.to_thread(daemon.wait_until_draining)
        daemon.send_signal(signal.SIGINT)
        code, output = await asyncio.to_thread(daemon.end, LEAVE_TIMEOUT_S)
    assert (code, output) == (0, "")
    assert has_ended(engine_id)
    assert not any("Traceback" in line for line in daemon.seen)


async def test_when_the_engine_is_killed_every_answer_ends_with_an_error_and_the_next_gets_a_new_one(serve):
    daemon = serve().wait_until_serving()
    engine_id = engine_of(daemon)
    async with open_streams(daemon, NUM_STREAMS, endless()) as streams:
        whole = asyncio.create_task(asyncio.to_thread(ask, daemon))
        of_openai = asyncio.create_task(read_with_openai(daemon))
        await asyncio.to_thread(daemon.wait_for_metrics, {"ondol_requests_running": NUM_STREAMS + 2})
        os.kill(engine_id, signal.SIGKILL)
        answers = await asyncio.gather(*streams)
        failed = await whole
        with pytest.raises(openai.APIError, match="SIGKILL"):
            await of_openai
    for events in answers:
        assert error_of(events)["code"] == "engine_failed"
        assert "SIGKILL" in error_of(events)["message"]
    assert (failed.status_code, failed.json()["error"]["code"]) == (500, "engine_failed")
    health = daemon.get("health").json()
    assert health["status"] == "degraded"
    assert "SIGKILL" in health["reason"]
    daemon.wait_for_metrics({"ondol_requests_running": 0, "ondol_kv_blocks_used": 0})
    answer = await asyncio.to_thread(ask, daemon, max_tokens=4)
    assert answer.status_code == 200
    assert daemon.get("health").json() == {"status": "ok"}
    assert engine_of(daemon) != engine_id
    daemon.send_signal(signal.SIGTERM)
    assert daemon.end(LEAVE_TIMEOUT_S) == (0, "")
    assert not any("Traceback" in line for line in daemon.seen)


def refuse_to_start(*arguments):
    """Exit code and the one line that a daemon says before it has loaded anything."""
    with Daemon(*arguments) as daemon:
        code, output = daemon.end()
    assert output == ""
    assert len(daemon.seen) == 1, daemon.seen
    (line,) = daemon.seen
    assert line.startswith("ondol: error: ")
    return code, line


def test_a_port_in_use_is_one_line_and_exit_code_9(model_folder):
    with socket.create_server(("127.0.0.1", 0)) as occupied:
        port = str(occupied.getsockname()[1])
        code, line = refuse_to_start(model_folder, "--port", port)
    assert code == 9
    assert port in line


def test_a_missing_folder_is_one_line_and_exit_code_3(tmp_path):
    missing = str(tmp_path / "no-such-folder")
    code, line = refuse_to_start(missing)
    assert code == 3
    assert missing in line


def test_an_open_door_without_a_key_is_one_line_and_exit_code_2(model_folder):
    code, line = refuse_to_start(model_folder, "--host", "0.0.0.0")
    assert code == 2
    assert "--api-key" in line


def test_pickled_weights_are_one_line_and_exit_code_8(tmp_path):
    folder = save_served_model(tmp_path / "pickled")
    (weights,) = folder.glob("*.safetensors")
    weights.rename(folder / "pytorch_model.bin")
    code, line = refuse_to_start(str(folder))
    assert code == 8
    assert "safetensors" in line
