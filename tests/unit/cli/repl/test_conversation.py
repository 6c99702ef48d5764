import json

import pytest

from ondol.cli.repl.conversation import Conversation, load, save
from ondol.cli.repl.errors import ChatError

TURNS = [{"role": "user", "content": "가"}, {"role": "assistant", "content": "나"}]
SYSTEM = {"role": "system", "content": "짧게"}


def test_what_is_saved_is_what_is_loaded(tmp_path):
    save(tmp_path / "a.json", Conversation("짧게", TURNS), "tiny", {"seed": 1})
    conversation, fields = load(tmp_path / "a.json")
    assert (conversation.system, conversation.messages) == ("짧게", TURNS)
    assert fields == {"model": "tiny", "seed": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_a_conversation_of_another_program_needs_no_more_than_messages(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps({"messages": [SYSTEM, *TURNS]}), encoding="utf-8")
    assert load(tmp_path / "a.json")[0].sent() == [SYSTEM, *TURNS]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff",
        b"[]",
        b"{}",
        b'{"messages": {}}',
        b'{"messages": [1]}',
        b'{"messages": [{"role": "user", "content": [{"type": "text"}]}]}',
        json.dumps({"messages": TURNS[:1]}).encode(),
        json.dumps({"messages": TURNS[1:]}).encode(),
        json.dumps({"messages": [*TURNS, SYSTEM, TURNS[1]]}).encode(),
        json.dumps({"messages": [TURNS[0], TURNS[0]]}).encode(),
    ],
)
def test_another_file_is_refused(tmp_path, body):
    (tmp_path / "a.json").write_bytes(body)
    with pytest.raises(ChatError, match=r"a\.json"):
        load(tmp_path / "a.json")


def test_a_file_that_cannot_be_read_or_written_is_told(tmp_path):
    with pytest.raises(ChatError, match="read"):
        load(tmp_path / "none.json")
    with pytest.raises(ChatError, match="written"):
        save(tmp_path / "none" / "a.json", Conversation(), "tiny", {})


def test_an_answer_takes_the_place_of_the_one_before_it():
    conversation = Conversation(messages=TURNS)
    conversation.set_answer("나다")
    assert conversation.answer == "나다"
    conversation.ask("라")
    assert conversation.answer is None
