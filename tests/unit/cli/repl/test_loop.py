import json

import pytest
from prompt_toolkit.application import create_app_session
from prompt_toolkit.history import InMemoryHistory
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output import DummyOutput

from ondol.cli.repl.conversation import Conversation
from ondol.cli.repl.keyboard import Keyboard
from ondol.cli.repl.language import Speech
from ondol.cli.repl.loop import COMMANDS, HELP, Repl
from ondol.cli.repl.parameters import PARSERS
from ondol.cli.repl.served_model import ServedModel

CTRL_C = "\x03"
CTRL_D = "\x04"
ALT_ENTER = "\x1b\r"
LEFT = "\x1b[D"
BACKSPACE = "\x7f"


@pytest.fixture
def talk(server):
    """Type these keys into a conversation, which ends with Ctrl-D; returns what the model was sent."""

    def talk(keys, language="en", system=None, **options):
        with (
            ServedModel(f"{server.url}/v1", "tiny") as model,
            create_pipe_input() as pipe,
            create_app_session(input=pipe, output=DummyOutput()),
        ):
            pipe.send_bytes((keys if isinstance(keys, bytes) else keys.encode()) + CTRL_D.encode())
            keyboard = Keyboard(COMMANDS, PARSERS, InMemoryHistory(), Speech(language))
            Repl(model, keyboard.read, Speech(language), conversation=Conversation(system), **options).run()
        return [body.get("messages", body.get("prompt")) for body in server.bodies]

    return talk


def user(text):
    return {"role": "user", "content": text}


def assistant(text):
    return {"role": "assistant", "content": text}


def once(server, answer):
    """Answer so one time; afterwards everything is fine."""

    def answer_once(body):
        server.answer = lambda body: ["fine"]
        return answer(body)

    server.answer = answer_once


def break_off(body):
    raise ConnectionError


def test_every_turn_carries_the_conversation_before_it(talk, capsys):
    sent = talk("안녕\r뭐 해?\r")
    assert sent == [[user("안녕")], [user("안녕"), assistant("You said: 안녕"), user("뭐 해?")]]
    assert capsys.readouterr().out == "You said: 안녕\nYou said: 뭐 해?\n"


def test_wide_characters_are_edited_one_by_one(talk):
    # One backspace takes one syllable; one step left stands before it.
    assert talk(f"온돌방{BACKSPACE}{LEFT}{LEFT}새 \r") == [[user("새 온돌")]]


def test_several_lines_are_one_message(talk):
    pasted = "\x1b[200~셋\n넷\x1b[201~"
    assert talk(f"하나{ALT_ENTER}둘\r{pasted}\r") == [
        [user("하나\n둘")],
        [user("하나\n둘"), assistant("You said: 하나\n둘"), user("셋\n넷")],
    ]


def test_tab_completes_commands_and_parameters(talk, server):
    talk("/se\t max\t 7\rhi\r")
    assert server.bodies[0]["max_tokens"] == 7


def test_the_system_prompt_can_be_set_and_removed(talk):
    sent = talk("one\r/system 반말로\rtwo\r/clear\r/system\rthree\r", system="Be brief.")
    assert sent[0] == [{"role": "system", "content": "Be brief."}, user("one")]
    assert sent[1][0] == {"role": "system", "content": "반말로"}
    assert sent[2] == [user("three")]


def test_clear_forgets_the_conversation(talk):
    assert talk("one\r/clear\rtwo\r") == [[user("one")], [user("two")]]


def test_exit_ends_and_sends_nothing(talk):
    assert talk("/exit\rnever sent\r") == []


def test_an_unknown_command_is_told_and_not_sent(talk, capsys):
    assert talk("/hlep\r") == []
    assert "/hlep" in capsys.readouterr().err


def test_a_path_is_no_command(talk):
    assert talk("/etc/passwd 파일은 뭐야?\r") == [[user("/etc/passwd 파일은 뭐야?")]]


def test_help_lists_every_command(talk, capsys):
    talk("/help\r")
    shown = capsys.readouterr().err
    assert all(f"/{command}" in shown for command in COMMANDS if command != "help")
    assert HELP[-1] in shown


def test_empty_lines_are_not_sent(talk):
    assert talk("\r   \r") == []


def test_what_is_no_utf_8_is_not_sent(talk):
    assert talk("온돌".encode("euc-kr") + f"\r{CTRL_C}온돌\r".encode()) == [[user("온돌")]]


def test_ctrl_c_empties_the_line_being_typed(talk):
    assert talk(f"wrong{CTRL_C}right\r") == [[user("right")]]


def test_parameters_are_sent_as_they_were_set_and_only_those(talk, server):
    talk("/set temperature 0.5\r/set top_k 3\r/set stop 끝\rone\r/set temperature\rtwo\r")
    first, second = server.bodies
    assert (first["temperature"], first["top_k"], first["stop"]) == (0.5, 3, "끝")
    assert "temperature" not in second
    assert set(second) - {"model", "messages", "stream", "stream_options"} == {"top_k", "stop"}


def test_a_wrong_parameter_is_one_line_and_changes_nothing(talk, server, capsys):
    talk("/set temprature 1\r/set top_k many\r/set seed nan\r/set min_p nan\rhi\r")
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 4
    assert "temperature" in errors[0]
    assert set(server.bodies[0]) == {"model", "messages", "stream", "stream_options"}


def test_show_tells_how_the_model_is_asked(talk, server, capsys):
    talk("/set seed 7\rhi\r/show\r", system="짧게")
    shown = capsys.readouterr().err
    assert all(fact in shown for fact in ("tiny", server.url, "짧게", "seed=7", "Messages: 2", "2 tokens"))


def test_another_model_is_asked_if_the_server_offers_it(talk, server, capsys):
    server.ids = ("tiny", "other")
    talk("/model\r/model other\rhi\r/model third\ragain\r")
    assert [body["model"] for body in server.bodies] == ["other", "other"]
    shown = capsys.readouterr().err
    assert "* tiny\n  other\n" in shown
    assert "third is not offered" in shown


def test_regenerate_answers_the_last_question_anew(talk, server):
    once(server, lambda body: ["first try"])
    assert talk("one\r/regenerate\rtwo\r")[1:] == [
        [user("one")],
        [user("one"), assistant("fine"), user("two")],
    ]


def test_the_old_answer_stays_if_there_is_no_new_one(talk, server):
    once(server, lambda body: ["kept"])

    def fail_second(body):
        once(server, break_off)
        return ["kept"]

    server.answer = fail_second
    assert talk("one\r/regenerate\rtwo\r")[2] == [user("one"), assistant("kept"), user("two")]


def test_continue_goes_on_inside_of_the_answer(talk, server):
    once(server, lambda body: ["온돌은 따"])
    sent = talk("one\r/continue\rtwo\r")
    assert sent[1] == [user("one"), assistant("온돌은 따")]
    assert (server.bodies[1]["continue_final_message"], server.bodies[1]["add_generation_prompt"]) == (
        True,
        False,
    )
    assert sent[2] == [user("one"), assistant("온돌은 따fine"), user("two")]
    assert "continue_final_message" not in server.bodies[2]


@pytest.mark.parametrize("command", ["/regenerate", "/continue", "/save", "/load"])
def test_a_command_that_lacks_what_it_needs_is_told(talk, capsys, command):
    assert talk(f"{command}\r") == []
    assert "error: " in capsys.readouterr().err


def test_a_question_without_an_answer_is_taken_back(talk, server, capsys):
    once(server, break_off)
    assert talk("first\rsecond\r") == [[user("first")], [user("second")]]
    assert "broke off its answer" in capsys.readouterr().err


def test_what_came_of_an_answer_that_broke_off_is_kept(talk, server, capsys):
    server.broken_by = {"message": "The engine died.", "type": "server_error", "code": "engine_failed"}

    def half(body):
        server.answer = whole
        return ["반쪽"]

    def whole(body):
        server.broken_by = None
        return [" 나머지"]

    server.answer = half
    assert talk("one\r/continue\r")[1] == [user("one"), assistant("반쪽")]
    captured = capsys.readouterr()
    assert "error: The engine died.\n" in captured.err
    assert captured.out == "반쪽 나머지\n"


def test_the_servers_own_words_are_said_in_the_users_language(talk, server, capsys):
    server.error = (503, {"message": "Busy.", "type": "server_error", "code": "queue_full"})
    talk("one\r", language="ko", translate={"Busy.": "바쁩니다."}.__getitem__)
    assert "오류: 바쁩니다.\n" in capsys.readouterr().err


def test_a_base_model_continues_each_text_by_itself(talk, server, capsys):
    server.has_template = False
    assert talk("Once\rTwice\r/continue\r") == [[user("Once")], "Once", "Twice", "TwiceYou said: Twice"]
    assert capsys.readouterr().err.count("no chat template") == 1


def test_an_answer_at_its_limit_is_told(talk, server, capsys):
    server.finish_reason = "length"
    talk("hi\r")
    assert "limit of tokens" in capsys.readouterr().err


def test_an_empty_answer_is_told(talk, server, capsys):
    once(server, lambda body: [])
    assert talk("one\rtwo\r") == [[user("one")], [user("two")]]
    assert "without a word" in capsys.readouterr().err


def test_a_syllable_is_never_written_in_parts(talk, server, capsys):
    writes = []
    server.answer = lambda body: ["\u1112", "\u1161", "\u11ab글", "👨", "\u200d", "👩"]
    talk("hi\r", while_answering=lambda: recorded(writes))
    assert writes == ["\u1112\u1161\u11ab글", "👨\u200d👩\n"]


def recorded(writes):
    from contextlib import contextmanager
    from unittest.mock import patch

    @contextmanager
    def record():
        with patch("ondol.cli.repl.loop.sys.stdout") as out:
            out.write.side_effect = lambda text: writes.append(text) if text else None
            yield

    return record()


def test_a_conversation_is_saved_and_gone_on_with(talk, server, tmp_path, capsys):
    file = tmp_path / "대화.json"
    talk(
        f"/set seed 3\rone\r/save {file}\rtwo\r/save\r/clear\r/set seed\r/load {file}\rthree\r", system="짧게"
    )
    saved = json.loads(file.read_text(encoding="utf-8"))
    turns = [user("one"), assistant("You said: one"), user("two"), assistant("You said: two")]
    system = {"role": "system", "content": "짧게"}
    assert saved == {"model": "tiny", "seed": 3, "messages": [system, *turns]}
    assert (server.bodies[2]["messages"], server.bodies[2]["seed"]) == ([system, *turns, user("three")], 3)
    assert "4 messages" in capsys.readouterr().err


def test_another_file_is_never_written_over(talk, tmp_path, capsys):
    file = tmp_path / "notes.txt"
    file.write_text("mine")
    talk(f"hi\r/save {file}\r")
    assert file.read_text() == "mine"
    assert "exists" in capsys.readouterr().err
