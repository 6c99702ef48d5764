import io
import sys

import pytest
from prompt_toolkit.application import create_app_session
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output import DummyOutput
from support.chat_server import ChatServer

from ondol.cli import main as cli_main
from ondol.cli.asked_model import AskedModel, Sampling
from ondol.cli.chat import converse
from ondol.cli.daemon_client import DaemonClient
from ondol.cli.language import spoken


def test_a_chat_without_a_terminal_is_wrong_usage_that_names_the_way_out(monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", io.StringIO("hello\n"))
    assert cli_main.run(["chat", "tiny"]) == 2
    assert "ondol run" in capsys.readouterr().err


@pytest.fixture
def talk(tmp_path):
    """Type these keys into the chat of a command; returns what its server was asked."""

    def talk(keys, history=tmp_path / "chat_history"):
        with (
            ChatServer().serve() as server,
            DaemonClient(server.url, "열쇠") as client,
            create_pipe_input() as pipe,
            create_app_session(input=pipe, output=DummyOutput()),
        ):
            pipe.send_text(keys)
            converse(AskedModel(client, "tiny", Sampling(9, 0)), "짧게", history)
            return server.bodies

    return talk


def test_a_chat_begins_with_what_its_command_was_given(talk, capsys):
    with spoken("ko"):
        (body,) = talk("안녕\r/exit\r")
    assert body["messages"] == [
        {"role": "system", "content": "짧게"},
        {"role": "user", "content": "안녕"},
    ]
    assert (body["model"], body["max_tokens"], body["temperature"]) == ("tiny", 9, 0)
    captured = capsys.readouterr()
    assert captured.out == "You said: 안녕\n"
    assert "tiny 모델과 대화합니다" in captured.err


def test_a_chat_goes_on_where_its_history_cannot_be_kept(talk, tmp_path, capsys):
    (tmp_path / "file").touch()
    assert len(talk("hi\r/exit\r", history=tmp_path / "file" / "chat_history")) == 1
    assert "chat_history cannot be written" in capsys.readouterr().err
