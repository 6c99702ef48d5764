"""The daemon's life from bind to exit, as a real process that gets real signals."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import pytest

from ondol.api.server import bind_socket
from ondol.errors import AddressInUse, ConfigError

TESTS = Path(__file__).parents[2]
BODY = {"model": "tiny", "prompt": "hi", "stream": True}


class Daemon:
    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.url = f"http://127.0.0.1:{int(self.line())}"

    def line(self) -> str:
        return self.process.stdout.readline().strip()

    def wait_until_ready(self) -> None:
        assert [self.line(), self.line()] == ["loading", "loaded"]

    def exit_code(self, timeout_s: float = 20) -> int:
        return self.process.wait(timeout_s)


@contextmanager
def daemon(tokenizer_folder: Path, load: str = "works", grace_s: float = 30) -> Iterator[Daemon]:
    process = subprocess.Popen(
        [sys.executable, "-m", "support.drained_daemon", str(tokenizer_folder), load, str(grace_s)],
        env=os.environ | {"PYTHONPATH": str(TESTS)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield Daemon(process)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        process.stderr.close()


def polled(url: str, is_wanted: Callable[[httpx.Response], bool], timeout_s: float = 10) -> httpx.Response:
    deadline_s = time.monotonic() + timeout_s
    while not is_wanted(answer := httpx.get(url)):
        assert time.monotonic() < deadline_s, answer.text
    return answer


def events(lines: Iterator[str]) -> list[str]:
    return [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]


@pytest.mark.parametrize("which", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_lets_open_streams_finish_and_the_exit_code_is_0(tokenizer_folder, which):
    with daemon(tokenizer_folder) as running, httpx.Client(timeout=20) as client:
        running.wait_until_ready()
        url = f"{running.url}/v1/completions"
        with client.stream("POST", url, json=BODY | {"max_tokens": 20}) as answer:
            lines = answer.iter_lines()
            first = next(lines)
            running.process.send_signal(which)
            # The drain begins at the server's next tick; until then the daemon may still be ready.
            ready = polled(f"{running.url}/ready", lambda answer: answer.status_code != 200)
            refused = httpx.post(url, json=BODY)
            health = httpx.get(f"{running.url}/health")
            rest = events(lines)
        assert first.startswith("data: ")
        assert rest[-1] == "[DONE]"
        assert json.loads(rest[-2])["choices"][0]["finish_reason"] == "length"
        assert len(rest) == 20 + 1
        assert (ready.status_code, ready.json()["status"]) == (503, "draining")
        assert refused.status_code == 503
        assert refused.headers["retry-after"] == "5"
        assert refused.json()["error"]["code"] == "shutting_down"
        assert health.status_code == 200
        assert running.exit_code() == 0
        assert [running.line(), running.line()] == ["closed", "returned"]
        assert running.process.stderr.read() == ""


def test_when_the_grace_period_is_over_streams_end_with_an_error_event(tokenizer_folder):
    with daemon(tokenizer_folder, grace_s=0.3) as running, httpx.Client(timeout=20) as client:
        running.wait_until_ready()
        url = f"{running.url}/v1/completions"
        with client.stream("POST", url, json=BODY | {"max_tokens": 200}) as answer:
            lines = answer.iter_lines()
            next(lines)
            running.process.terminate()
            rest = events(lines)
        assert json.loads(rest[-1])["error"]["code"] == "shutting_down"
        assert running.exit_code() == 0
        assert running.process.stderr.read() == ""


def test_when_the_grace_period_is_over_whole_answers_become_a_503(tokenizer_folder):
    with daemon(tokenizer_folder, grace_s=0.3) as running:
        running.wait_until_ready()
        url = f"{running.url}/v1/completions"
        answers: list[httpx.Response] = []

        def ask() -> None:
            answers.append(httpx.post(url, json=BODY | {"stream": False, "max_tokens": 200}, timeout=20))

        asking = threading.Thread(target=ask)
        asking.start()
        first_token = 'ondol_time_to_first_token_seconds_count{model="tiny"} 1'
        polled(f"{running.url}/metrics", lambda answer: first_token in answer.text)
        running.process.terminate()
        asking.join(20)
        assert answers[0].status_code == 503
        assert answers[0].json()["error"]["code"] == "shutting_down"
        assert running.exit_code() == 0


def test_a_second_signal_ends_everything_at_once(tokenizer_folder):
    with daemon(tokenizer_folder, grace_s=60) as running, httpx.Client(timeout=20) as client:
        running.wait_until_ready()
        url = f"{running.url}/v1/completions"
        with client.stream("POST", url, json=BODY | {"max_tokens": 200}) as answer:
            lines = answer.iter_lines()
            next(lines)
            running.process.terminate()
            polled(f"{running.url}/ready", lambda answer: answer.status_code != 200)
            running.process.terminate()
            assert running.exit_code(5) == 0
            with suppress(httpx.RemoteProtocolError):
                assert "[DONE]" not in events(lines)


def test_an_idle_keep_alive_connection_does_not_delay_the_exit(tokenizer_folder):
    with daemon(tokenizer_folder) as running, httpx.Client() as client:
        running.wait_until_ready()
        client.get(f"{running.url}/health")
        running.process.terminate()
        assert running.exit_code(5) == 0


def test_while_the_model_loads_probes_answer_and_generation_has_to_wait(tokenizer_folder):
    with daemon(tokenizer_folder, load="never") as running:
        assert running.line() == "loading"
        health = httpx.get(f"{running.url}/health")
        ready = httpx.get(f"{running.url}/ready")
        answer = httpx.post(f"{running.url}/v1/completions", json=BODY)
        models = httpx.get(f"{running.url}/v1/models")
        assert (health.status_code, health.json()) == (200, {"status": "ok"})
        assert (ready.status_code, ready.json()) == (503, {"status": "loading"})
        assert answer.status_code == 503
        assert answer.headers["retry-after"] == "5"
        assert answer.json()["error"]["code"] == "model_loading"
        assert models.json()["data"] == []
        running.process.terminate()
        assert running.exit_code(5) == 0
        assert running.line() == "closed"


def test_ctrl_c_while_the_model_loads_is_an_interrupt(tokenizer_folder):
    with daemon(tokenizer_folder, load="never") as running:
        assert running.line() == "loading"
        httpx.get(f"{running.url}/health")
        running.process.send_signal(signal.SIGINT)
        running.process.wait(5)
        assert running.line() == "closed"
        assert "KeyboardInterrupt" in running.process.stderr.read()


def test_a_load_that_fails_stops_the_server_and_its_error_comes_out(tokenizer_folder):
    with daemon(tokenizer_folder, load="fails") as running:
        assert running.exit_code(10) == 1
        assert (
            running.process.stderr.read()
            .splitlines()[-1]
            .endswith("ModelRefused: model.safetensors is truncated")
        )


def test_a_port_in_use_is_noticed_when_binding():
    with bind_socket("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        with pytest.raises(AddressInUse, match=f"port {port} on 127.0.0.1 is in use"):
            bind_socket("127.0.0.1", port)


def test_a_host_that_is_not_ours_is_a_config_error():
    with pytest.raises(ConfigError):
        bind_socket("203.0.113.7", 0)
    with pytest.raises(ConfigError, match="cannot be resolved"):
        bind_socket("no such host", 0)


@pytest.mark.skipif(not socket.has_ipv6, reason="this machine has no IPv6")
def test_ipv6_addresses_work():
    with bind_socket("::1", 0) as listener:
        assert listener.family == socket.AF_INET6
