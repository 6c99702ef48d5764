import io
import json

import pytest
from support.fake_hub import Visitor

from ondol.cli.main import run

TOKEN = "hf_secret"


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture(autouse=True)
def hana(fake_hub):
    fake_hub.visitors[TOKEN] = Visitor()


@pytest.fixture
def log_in(fake_hub, monkeypatch):
    def log_in(typed=f"{TOKEN}\n"):
        monkeypatch.setattr("sys.stdin", io.StringIO(typed))
        return run(["login", "--token-stdin"])

    return log_in


def test_a_piped_token_is_confirmed_and_stored_without_being_shown(log_in, fake_hub, tmp_path, capsys):
    assert log_in() == 0
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == f"Logged in to {fake_hub.base_url} as hana with the token 'laptop' (read).\n"
    assert (tmp_path / "hf" / "token").read_text() == TOKEN


def test_a_typed_token_is_not_echoed(fake_hub, monkeypatch, capsys):
    asked = []
    monkeypatch.setattr("sys.stdin", Terminal())
    monkeypatch.setattr("click.termui.hidden_prompt_func", lambda prompt: asked.append(prompt) or TOKEN)
    assert run(["login"]) == 0
    captured = capsys.readouterr()
    assert len(asked) == 1
    assert TOKEN not in captured.out + captured.err


def test_without_a_terminal_the_way_to_pipe_a_token_is_named(fake_hub, monkeypatch, capsys):
    monkeypatch.setattr("sys.stdin", io.StringIO())
    assert run(["login"]) == 2
    assert "--token-stdin" in capsys.readouterr().err


@pytest.mark.parametrize("typed", ["", "\n", "two words\n"])
def test_what_is_no_token_is_refused_before_it_is_sent(log_in, fake_hub, typed):
    assert log_in(typed) == 2
    assert fake_hub.requests == []


def test_an_unknown_token_ends_with_exit_code_4_and_the_page(log_in, fake_hub, capsys):
    assert log_in("hf_mistyped") == 4
    captured = capsys.readouterr()
    assert f"{fake_hub.base_url}/settings/tokens" in captured.err
    assert "hf_mistyped" not in captured.err


def test_a_token_that_cannot_read_gated_models_is_told_so_at_login(log_in, fake_hub, capsys):
    fake_hub.visitors[TOKEN] = Visitor(role="fineGrained", can_read_gated=False)
    assert log_in() == 0
    assert "may not read gated repositories" in capsys.readouterr().err


def test_a_login_that_a_variable_overrides_says_so_once(log_in, monkeypatch, capsys):
    monkeypatch.setenv("HF_TOKEN", "hf_other")
    assert log_in() == 0
    assert capsys.readouterr().err.count("HF_TOKEN") == 1


def test_whoami_prints_a_table_and_json(log_in, fake_hub, capsys):
    log_in()
    capsys.readouterr()
    assert run(["whoami"]) == 0
    headers, row = capsys.readouterr().out.splitlines()
    assert headers.split() == ["NAME", "TOKEN", "KIND", "READS", "GATED", "FROM", "HUB"]
    assert row.split()[:4] == ["hana", "laptop", "read", "yes"]
    assert run(["whoami", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "name": "hana",
        "token_name": "laptop",
        "token_kind": "read",
        "can_read_gated": True,
        "token_source": "store",
        "endpoint": fake_hub.base_url,
    }


def test_whoami_without_a_token_ends_with_exit_code_4(fake_hub, capsys):
    assert run(["whoami"]) == 4
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "`ondol login`" in captured.err


def test_a_logout_forgets_the_token_and_names_the_variable_that_stays(log_in, monkeypatch, capsys):
    log_in()
    monkeypatch.setenv("HF_TOKEN", "hf_other")
    capsys.readouterr()
    assert run(["logout"]) == 0
    assert capsys.readouterr().err.splitlines() == [
        "The stored token was removed.",
        "HF_TOKEN is set: unset it to stop using that token.",
    ]
    monkeypatch.delenv("HF_TOKEN")
    assert run(["logout"]) == 0
    assert capsys.readouterr().err == "No token was stored.\n"


@pytest.mark.parametrize("command", ["login", "logout", "whoami"])
def test_help_has_an_example(command, capsys):
    assert run([command, "--help"]) == 0
    assert f"  Example:\n    ondol {command}\n" in capsys.readouterr().out
