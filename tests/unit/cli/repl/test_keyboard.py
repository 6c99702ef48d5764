import stat

import pytest
from prompt_toolkit.completion import CompleteEvent
from prompt_toolkit.document import Document

from ondol.cli.repl.errors import ChatError
from ondol.cli.repl.keyboard import CommandCompleter, open_history


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("/s", ["/set", "/save"]),
        ("/set t", ["top_p", "top_k"]),
        ("/save t", []),
        ("", []),
        ("안녕", []),
    ],
)
def test_what_can_be_completed(typed, offered):
    completer = CommandCompleter(("set", "save", "help"), ("top_p", "top_k", "seed"))
    found = completer.get_completions(Document(typed), CompleteEvent(completion_requested=True))
    assert [completion.text for completion in found] == offered


def test_history_is_kept_in_a_file_for_its_owner_only(tmp_path):
    path = tmp_path / "home" / "chat_history"
    open_history(path).store_string("안녕")
    assert list(open_history(path).load_history_strings()) == ["안녕"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_history_that_cannot_be_kept_is_told(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ChatError, match="chat_history"):
        open_history(tmp_path / "file" / "chat_history")
