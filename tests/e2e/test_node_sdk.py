"""The daemon as OpenAI's own Node client meets it; `chat.mjs` asks, this file judges."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from support.daemon import IDLE

HERE = Path(__file__).parent

pytestmark = pytest.mark.skipif(
    shutil.which("node") is None or not (HERE / "node_modules" / "openai").is_dir(),
    reason="node or the packages of tests/e2e are missing; `make node-setup` installs the packages",
)


@pytest.fixture
def play(starter_daemon):
    """Play one scenario of chat.mjs; returns the objects that it printed."""

    def run(scenario):
        command = ["node", "chat.mjs", scenario, f"{starter_daemon.url}/v1", "starter"]
        done = subprocess.run(command, cwd=HERE, check=False, capture_output=True, text=True, timeout=60)
        assert (done.returncode, done.stderr) == (0, "")
        return [json.loads(line) for line in done.stdout.splitlines()]

    return run


def test_a_chat_streams_token_by_token_and_ends_with_usage(play):
    opening, *texts, finish, usage = play("stream")
    assert opening["delta"] == {"role": "assistant", "content": ""}
    assert len(texts) == 12
    assert all(text["delta"]["content"] for text in texts)
    assert finish["finish_reason"] == "length"
    assert usage["usage"]["completion_tokens"] == 12
    (whole,) = play("whole")
    assert whole["content"] == "".join(text["delta"]["content"] for text in texts)
    assert whole["usage"]["completion_tokens"] == 12
    assert play("helper") == [{"content": whole["content"]}]


def test_an_answer_is_parsed_by_its_schema_and_every_token_is_told(play):
    (answer,) = play("parse")
    assert answer["parsed"]["city"] in ("서울", "부산")
    assert answer["parsed"]["isWarm"] in (True, False)
    told = bytes(value for entry in answer["logprobs"] for value in entry["bytes"])
    assert told.decode() == answer["content"]
    assert all(len(entry["top_logprobs"]) == 2 for entry in answer["logprobs"])


@pytest.mark.parametrize(
    ("scenario", "printed"),
    [("abort_stream", {"is_aborted": True}), ("abort_whole", {"error": "APIUserAbortError"})],
)
def test_an_aborted_chat_stops_and_frees_every_block(starter_daemon, play, scenario, printed):
    num_aborted = starter_daemon.num_aborted()
    before = starter_daemon.metrics()["ondol_generation_tokens_total"]
    assert play(scenario) == [printed]
    generated = starter_daemon.wait_for_metrics(IDLE)["ondol_generation_tokens_total"] - before
    assert generated < 450
    assert starter_daemon.num_aborted() == num_aborted + 1


def test_refusals_are_the_clients_own_error_classes(play):
    assert play("errors") == [
        {"error": "NotFoundError", "status": 404, "code": "model_not_found", "param": "model"},
        {"error": "BadRequestError", "status": 400, "code": None, "param": "messages"},
        {"error": "BadRequestError", "status": 400, "code": "context_length_exceeded", "param": "prompt"},
    ]


def test_the_served_model_is_listed(play):
    assert play("models") == [{"id": "starter"}]
