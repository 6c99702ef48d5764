"""`ondol chat` on a terminal, before a daemon whose model does not end by itself."""

import json

import pytest
from support.daemon import IDLE, Daemon, poll
from support.served_models import ENDLESS, save_endless_model
from support.terminal import ONDOL_CHAT, Terminal

CTRL_C = "\x03"
CTRL_D = "\x04"
GENERATED = "ondol_generation_tokens_total"


@pytest.fixture
def daemon(tmp_path):
    folder = save_endless_model(tmp_path / "endless")
    with Daemon(str(folder), "--kv-cache-memory", "64MiB") as daemon:
        yield daemon.wait_until_serving()


@pytest.mark.slow
def test_an_answer_is_stopped_gone_on_with_and_saved(daemon, tmp_path):
    """Slow: a daemon of its own; its unit tests talk with a scripted server."""
    stopped, whole = tmp_path / "멈춘 대화.json", tmp_path / "대화.json"
    command = ("chat", "chat", "endless", "--temperature", "0", "--url", daemon.url)
    with Terminal(ONDOL_CHAT, *command, home=tmp_path) as terminal:
        terminal.wait_for_prompt(1)
        terminal.type("Write a long story about a warm house.\r")
        poll(daemon.metrics, lambda metrics: metrics.get(GENERATED, 0) > 50, timeout_s=30)
        terminal.type(CTRL_C)
        terminal.wait_for("/continue goes on with the answer.")
        assert daemon.wait_for_metrics(IDLE)[GENERATED] < ENDLESS / 2
        commands = (f"/save {stopped}", "/set max_tokens 50", "/continue", f"/save {whole}")
        for number, line in enumerate(commands, start=2):
            terminal.wait_for_prompt(number)
            terminal.type(f"{line}\r")
        terminal.wait_for_prompt(6)
        terminal.type(CTRL_D)
        assert terminal.wait_for_end() == 0
    before, after = (json.loads(file.read_text(encoding="utf-8")) for file in (stopped, whole))
    assert (after["model"], after["max_tokens"]) == ("endless", 50)
    assert [message["role"] for message in after["messages"]] == ["user", "assistant"]
    begun, continued = (file["messages"][1]["content"] for file in (before, after))
    assert continued.startswith(begun)
    assert len(continued) > len(begun)
