import io
import sys

from ondol.cli import main as cli_main


def test_a_chat_without_a_terminal_is_wrong_usage_that_names_the_way_out(monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", io.StringIO("hello\n"))
    assert cli_main.run(["chat", "tiny"]) == 2
    assert "ondol run" in capsys.readouterr().err
