"""`ondol chat` on a terminal, before the daemon with the starter."""

import json

import pytest
from support.daemon import IDLE, poll
from support.terminal import ONDOL_CHAT, Terminal

CTRL_C = "\x03"
CTRL_D = "\x04"
GENERATED = "ondol_generation_tokens_total"


@pytest.mark.slow
def test_an_answer_is_stopped_gone_on_with_and_saved(starter_daemon, tmp_path):
    """Slow: the starter writes a while; its unit tests talk with a scripted server."""
    before = starter_daemon.metrics().get(GENERATED, 0)
    file = tmp_path / "대화.json"
    command = ("chat", "chat", "starter", "--temperature", "0", "--url", starter_daemon.url)
    with Terminal(ONDOL_CHAT, *command, home=tmp_path) as terminal:
        terminal.wait_for_prompt(1)
        terminal.type("Write a long story about a warm house.\r")
        poll(starter_daemon.metrics, lambda metrics: metrics.get(GENERATED, 0) > before + 5, timeout_s=30)
        terminal.type(CTRL_C)
        terminal.wait_for("/continue goes on with the answer.")
        generated = starter_daemon.wait_for_metrics(IDLE)[GENERATED] - before
        assert generated < 900
        for number, line in enumerate(("/set max_tokens 8", "/continue", f"/save {file}"), start=2):
            terminal.wait_for_prompt(number)
            terminal.type(f"{line}\r")
        terminal.wait_for("Saved to")
        terminal.wait_for_prompt(5)
        terminal.type(CTRL_D)
        assert terminal.wait_for_end() == 0
    saved = json.loads(file.read_text(encoding="utf-8"))
    assert (saved["model"], saved["max_tokens"]) == ("starter", 8)
    assert [message["role"] for message in saved["messages"]] == ["user", "assistant"]
    with starter_daemon.openai() as client:
        whole = client.chat.completions.create(
            model="starter", messages=saved["messages"][:1], temperature=0, max_tokens=int(generated) + 8
        )
    assert whole.choices[0].message.content[:20] == saved["messages"][1]["content"][:20]
