import json

import pytest
from support.http_servers import QuietHandler, served

from ondol.cli.main import run
from ondol.model_manager.store import ModelStore


@pytest.fixture(autouse=True)
def empty_hub_cache(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub-cache"))


@pytest.fixture(autouse=True)
def no_daemon(monkeypatch):
    monkeypatch.setenv("ONDOL_PORT", "1")


@pytest.fixture
def registered(tmp_path):
    with ModelStore(tmp_path).staging("mine") as folder:
        (folder / "config.json").write_text('{"model_type": "llama", "max_position_embeddings": 4096}')
    return tmp_path / "models" / "mine"


def shown(text):
    """Labels and values of the lines before the files."""
    facts = text.partition("\n\n")[0]
    return {line.partition("  ")[0]: line.partition("  ")[2].strip() for line in facts.splitlines()}


def test_show_tells_what_the_files_say(tmp_path, registered, capsys):
    assert run(["show", "mine", "--home", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    facts = shown(out)
    assert (facts["folder"], facts["context"]) == (str(registered), "4,096 tokens")
    assert facts["chat template"] == "no: completions only"
    assert out.splitlines()[-1].split() == ["config.json", "56"]


def test_show_of_a_gated_model_that_is_not_here_says_how_to_get_it(tmp_path, capsys):
    assert run(["show", "llama-2-7b-chat", "--home", str(tmp_path)]) == 0
    facts = shown(capsys.readouterr().out)
    assert facts["status"] == "available"
    assert "ondol login" in facts["gated"]
    assert facts["page"].endswith("/meta-llama/Llama-2-7b-chat-hf")


def test_show_as_json_is_one_object(tmp_path, registered, capsys):
    assert run(["show", "mine", "--json", "--home", str(tmp_path)]) == 0
    described = json.loads(capsys.readouterr().out)
    assert described["config"]["model_type"] == "llama"
    assert described["files"] == [{"name": "config.json", "size_bytes": 56}]


def test_an_unknown_model_ends_with_exit_code_3(tmp_path, capsys):
    assert run(["show", "nosuch", "--home", str(tmp_path)]) == 3
    assert "nosuch" in capsys.readouterr().err


def test_a_daemon_that_does_not_tell_takes_nothing_from_the_description(
    tmp_path, registered, capsys, monkeypatch
):
    class Locked(QuietHandler):
        def do_GET(self):
            body = b'{"status": "ready"}'
            if self.path != "/health":
                body = b'{"error": {"code": "invalid_api_key", "message": "No.", "type": "x", "param": null}}'
            self.reply(200 if self.path == "/health" else 401, body, {"Content-Type": "application/json"})

    with served(Locked) as url:
        monkeypatch.setenv("ONDOL_PORT", url.rpartition(":")[2])
        assert run(["show", "mine", "--home", str(tmp_path)]) == 0
        printed = capsys.readouterr()
        assert shown(printed.out)["folder"] == str(registered)
        assert printed.err.startswith("Whether it is loaded is not known: No. Pass it with --api-key")
        assert run(["show", "mine", "--home", str(tmp_path), "--url", url]) == 4


def test_without_a_daemon_it_is_loaded_nowhere(tmp_path, registered, capsys):
    assert run(["show", "mine", "--json", "--home", str(tmp_path)]) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["loaded"] is None
    assert printed.err == ""
