import io
import json
import signal
import subprocess
import sys
from typing import ClassVar

import pytest
from support.chat_server import ChatServer
from support.daemon import clean_environment

from ondol.cli import main as cli_main
from ondol.cli import serving_model as serving_module


@pytest.fixture
def server():
    with ChatServer().serve() as running:
        yield running


def run(server, *arguments):
    return cli_main.run(["run", "tiny", "--url", server.url, *arguments])


def test_the_answer_to_a_prompt_is_all_that_stdout_carries(server, capsys):
    assert run(server, "온돌이 뭐예요?", "--system", "짧게", "--max-tokens", "9", "--temperature", "0") == 0
    assert capsys.readouterr() == ("You said: 온돌이 뭐예요?\n", "")
    body = server.bodies[0]
    assert body["messages"] == [
        {"role": "system", "content": "짧게"},
        {"role": "user", "content": "온돌이 뭐예요?"},
    ]
    assert (body["model"], body["max_tokens"], body["temperature"], body["stream"]) == ("tiny", 9, 0, True)


def test_sampling_that_is_not_given_is_left_to_the_model(server):
    run(server, "hi")
    assert not {"max_tokens", "temperature"} & set(server.bodies[0])


def test_without_a_prompt_the_text_of_a_pipe_is_answered(server, capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("한 줄\n두 줄\n".encode())))
    assert run(server) == 0
    assert capsys.readouterr().out == "You said: 한 줄\n두 줄\n"


@pytest.mark.parametrize("data", [b"", b"  \n", b"\xff\xfe"])
def test_an_empty_pipe_or_one_that_is_no_text_is_wrong_usage(server, capsys, monkeypatch, data):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
    assert run(server) == 2
    assert server.bodies == []
    assert "Error: The" in capsys.readouterr().err


def test_an_argument_that_is_no_unicode_is_wrong_usage(server):
    assert run(server, b"\xff".decode("utf-8", "surrogateescape")) == 2
    assert server.bodies == []


def test_json_tells_text_ending_and_usage(server, capsys):
    assert run(server, "hi", "--json") == 0
    assert json.loads(capsys.readouterr().out) == {
        "model": "tiny",
        "text": "You said: hi",
        "finish_reason": "stop",
        "usage": {"prompt_tokens": 3, "completion_tokens": 2},
    }


def test_a_cut_answer_is_told_on_stderr(server, capsys):
    server.finish_reason = "length"
    run(server, "hi")
    assert "limit of tokens" in capsys.readouterr().err


def test_a_base_model_continues_the_text(server, capsys):
    server.has_template = False
    assert run(server, "Once upon") == 0
    assert server.paths == ["/v1/chat/completions", "/v1/completions"]
    assert server.bodies[1]["prompt"] == "Once upon"
    assert capsys.readouterr().out == "You said: Once upon\n"


def test_a_base_model_takes_no_system_prompt(server, capsys):
    server.has_template = False
    assert run(server, "Once upon", "--system", "Be brief.") == 2
    assert "no chat template" in capsys.readouterr().err


def test_what_the_daemon_refuses_with_decides_the_exit_code(server, capsys):
    server.error = (400, {"message": "It has NaN.", "type": "x", "param": None, "code": "model_refused"})
    assert run(server, "hi") == 8
    assert capsys.readouterr() == ("", "ondol: error: It has NaN.\n")


def test_an_error_in_the_middle_of_an_answer_is_raised(server, capsys):
    server.broken_by = {"message": "The engine died.", "type": "server_error", "code": "engine_failed"}
    assert run(server, "hi") == 70
    assert capsys.readouterr() == ("You said: hi", "ondol: error: The engine died.\n")


def test_an_answer_that_breaks_off_is_no_whole_answer(server, capsys):
    server.finish_reason = None
    assert run(server, "hi") == 6
    assert "broke off" in capsys.readouterr().err


def test_a_daemon_that_is_named_and_lacks_the_model_is_an_error_with_its_names(server, capsys):
    server.ids = ("other", "third")
    assert run(server, "hi") == 3
    assert "other, third" in capsys.readouterr().err


def test_a_named_daemon_that_does_not_answer_is_an_error(capsys):
    assert cli_main.run(["run", "tiny", "hi", "--url", "http://127.0.0.1:9"]) == 6


class FakeTemporary:
    """Stands for the child process; what it serves is a chat server of the test's."""

    started: ClassVar[list[object]] = []
    url = ""

    def __init__(self, model, flags):
        self.started.append((model, flags))

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.started.append("ended")

    def wait_until_ready(self):
        pass


@pytest.fixture
def temporary(monkeypatch):
    with ChatServer(ids=("starter",)).serve() as running:
        monkeypatch.setattr(FakeTemporary, "url", running.url)
        monkeypatch.setattr(FakeTemporary, "started", [])
        monkeypatch.setattr(serving_module, "TemporaryDaemon", FakeTemporary)
        yield running


def test_the_daemon_of_the_settings_is_used_without_starting_another(server, temporary, monkeypatch):
    monkeypatch.setenv("ONDOL_PORT", server.url.rpartition(":")[2])
    assert cli_main.run(["run", "tiny", "hi"]) == 0
    assert len(server.bodies) == 1
    assert FakeTemporary.started == []


def test_a_model_that_the_daemon_does_not_offer_gets_a_daemon_of_its_own(
    server, temporary, monkeypatch, capsys
):
    monkeypatch.setenv("ONDOL_PORT", server.url.rpartition(":")[2])
    assert cli_main.run(["run", "starter", "hi"]) == 0
    assert "does not offer starter" in capsys.readouterr().err
    assert (len(server.bodies), len(temporary.bodies)) == (0, 1)
    assert FakeTemporary.started[-1] == "ended"


def test_flags_that_say_how_to_load_get_a_daemon_of_their_own(server, temporary, monkeypatch):
    server.ids = ("starter",)
    monkeypatch.setenv("ONDOL_PORT", server.url.rpartition(":")[2])
    assert cli_main.run(["run", "starter", "hi", "--quantization", "nf4", "--api-key", "a"]) == 0
    assert FakeTemporary.started[0] == ("starter", ["--api-key=a", "--quantization=nf4"])
    assert server.bodies == []


def test_a_name_that_nobody_knows_fails_before_anything_is_started(temporary, monkeypatch, capsys):
    monkeypatch.setenv("ONDOL_PORT", "9")
    assert cli_main.run(["run", "no-such-model", "hi"]) == 3
    assert FakeTemporary.started == []


def test_ctrl_c_ends_the_command_and_the_answer(server):
    server.answer = lambda body: ["begun", None]
    command = [sys.executable, "-m", "ondol", "run", "tiny", "hi", "--url", server.url]
    process = subprocess.Popen(
        command, env=clean_environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert server.is_streaming.wait(30)
    assert process.stdout.read(5) == "begun"
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=30) == ("", "\nondol: interrupted\n")
    assert process.returncode == 130
    assert server.was_left.wait(10)
