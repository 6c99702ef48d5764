"""Every program of clients/examples, as a reader would start it, before the daemon with the starter."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from support.daemon import clean_environment, poll

# What the skill says where it could not ask the model.
FAILED = "지금은 답할 수 없어요."
EXAMPLES = Path(__file__).parents[2] / "clients" / "examples"
NODE_MODULES = Path(__file__).parent / "node_modules"
QUESTION = "Answer with one word: which colour is the sky? 온돌"


@pytest.fixture
def start(starter_daemon):
    """Start an example with one question; returns what it printed."""

    def run(*command):
        environment = clean_environment() | {"ONDOL_URL": starter_daemon.url, "ONDOL_MODEL": "starter"}
        done = subprocess.run(
            [*command, QUESTION],
            env=environment,
            check=False,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    return run


def test_curl_prints_the_events_of_a_stream(start):
    *events, end = [line for line in start("sh", str(EXAMPLES / "stream.sh")).splitlines() if line]
    assert end == "data: [DONE]"
    chunks = [json.loads(event.removeprefix("data: ")) for event in events if not event.startswith(":")]
    assert "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks)


def test_openai_for_python_prints_an_answer(start):
    assert start(sys.executable, str(EXAMPLES / "stream.py")).strip()


@pytest.mark.skipif(
    shutil.which("node") is None or not (NODE_MODULES / "openai").is_dir(),
    reason="node or the packages of tests/e2e are missing; `make node-setup` installs the packages",
)
def test_openai_for_node_prints_an_answer(start, tmp_path):
    # Node looks for packages beside the program.
    program = shutil.copy(EXAMPLES / "stream.mjs", tmp_path)
    os.symlink(NODE_MODULES, tmp_path / "node_modules")
    assert start("node", program).strip()


@pytest.mark.slow
def test_a_langchain_chain_prints_an_answer(start):
    """Slow: LangChain takes seconds to be imported, and other tests ask through it already."""
    assert start(sys.executable, str(EXAMPLES / "langchain_chain.py")).strip()


@pytest.mark.slow
def test_the_kakao_skill_answers_in_time_and_goes_on(starter_daemon, free_port):
    """Slow: it uses up the seconds that Kakao gives; its unit tests ask a scripted daemon."""
    command = [sys.executable, str(EXAMPLES / "kakao_skill.py"), "--port", str(free_port)]
    server = subprocess.Popen(
        [*command, "--base-url", f"{starter_daemon.url}/v1", "--system", "Write long answers."],
        env=clean_environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    request = {"userRequest": {"utterance": "Tell a story of a house.", "user": {"id": "a"}}}
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{free_port}", timeout=20, trust_env=False) as kakao:
            poll(lambda: is_listening(kakao), bool, timeout_s=30)
            first = kakao.post("/skill", json=request)
            assert first.elapsed.total_seconds() < 5
            assert bubble(first)
            request["userRequest"]["utterance"] = "계속"
            poll(lambda: bubble(kakao.post("/skill", json=request)), is_answer, timeout_s=30)
    finally:
        server.kill()
        server.wait()


@pytest.fixture
def free_port():
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def is_listening(http):
    try:
        return http.get("/openapi.json").is_success
    except httpx.TransportError:
        return False


def is_answer(text):
    return not text.startswith(FAILED)


def bubble(answer):
    assert answer.status_code == 200
    (output,) = answer.json()["template"]["outputs"]
    return output["simpleText"]["text"]
