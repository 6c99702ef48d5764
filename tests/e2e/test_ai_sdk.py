"""The daemon as Vercel's AI SDK meets it; `ai_sdk.mjs` asks, this file judges."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent

pytestmark = pytest.mark.skipif(
    shutil.which("node") is None or not (HERE / "node_modules" / "ai").is_dir(),
    reason="node or the packages of tests/e2e are missing; `make node-setup` installs the packages",
)


@pytest.fixture
def play(starter_daemon):
    """Play one scenario of ai_sdk.mjs; returns the object that it printed."""

    def run(scenario):
        command = ["node", "ai_sdk.mjs", scenario, f"{starter_daemon.url}/v1", "starter"]
        done = subprocess.run(command, cwd=HERE, check=False, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        (line,) = done.stdout.splitlines()
        return json.loads(line)

    return run


def test_a_streamed_answer_is_the_whole_one_and_both_count_tokens(play):
    whole = play("whole")
    assert whole["text"]
    assert (whole["finishReason"], whole["outputTokens"]) == ("length", 12)
    assert play("stream") == whole


def test_an_object_fits_its_schema(play):
    answer = play("object")
    assert answer["city"] in ("서울", "부산")
    assert answer["isWarm"] in (True, False)


def test_a_refusal_is_the_sdks_own_error_with_the_daemons_words(play):
    error = play("error")
    assert (error["isCallError"], error["status"]) == (True, 404)
    assert "gpt-4" in error["message"]
