"""The conversation on a terminal of its own, as `ondol chat` and as the program that stands alone."""

import threading

from support.chat_server import echo
from support.terminal import CHAT_PY, ONDOL_CHAT, STANDALONE, Terminal

CTRL_C = "\x03"
CTRL_D = "\x04"


def user(text):
    return {"role": "user", "content": text}


def assistant(text):
    return {"role": "assistant", "content": text}


def test_on_a_terminal_ctrl_c_stops_the_answer_and_ctrl_d_ends(server, tmp_path):
    server.answer = lambda body: ["시작했습니다", None]
    with Terminal(ONDOL_CHAT, "chat", "chat", "tiny", "--url", server.url, home=tmp_path) as terminal:
        terminal.wait_for_prompt(1)
        terminal.type("한글 질문\r")
        terminal.wait_for("시작했습니다")
        assert server.is_streaming.wait(10)
        terminal.type(CTRL_C)
        assert server.was_left.wait(10)
        terminal.wait_for("Stopped.")
        server.answer = lambda body: ["두 번째"]
        terminal.type("다시\r")
        terminal.wait_for("두 번째")
        terminal.wait_for_prompt(3)
        terminal.type(CTRL_D)
        assert terminal.wait_for_end() == 0
    assert server.bodies[1]["messages"] == [user("한글 질문"), assistant("시작했습니다"), user("다시")]
    assert "한글 질문" in (tmp_path / "chat_history").read_text(encoding="utf-8")


def test_what_is_typed_during_an_answer_is_the_next_line_and_not_in_its_middle(server, tmp_path):
    has_typed = threading.Event()

    def answer(body):
        server.answer = echo
        yield "처음"
        assert has_typed.wait(10)
        yield "부터 끝까지"

    server.answer = answer
    with Terminal(CHAT_PY, str(STANDALONE), "--base-url", f"{server.url}/v1", home=tmp_path) as terminal:
        terminal.wait_for_prompt(1)
        terminal.type("하나\r")
        terminal.wait_for("처음")
        terminal.type("둘\r")
        has_typed.set()
        terminal.wait_for("You said: 둘")
        assert "처음부터 끝까지" in terminal.read()
        terminal.wait_for_prompt(3)
        terminal.type(CTRL_D)
        assert terminal.wait_for_end() == 0


def test_the_program_that_stands_alone_is_the_same_conversation(server, tmp_path):
    arguments = (str(STANDALONE), "--base-url", f"{server.url}/v1", "--set", "seed=5", "--system", "짧게")
    with Terminal(CHAT_PY, *arguments, home=tmp_path, language="ko_KR.UTF-8") as terminal:
        terminal.wait_for("tiny 모델과 대화합니다")
        terminal.wait_for_prompt(1)
        terminal.type("/show\r")
        terminal.wait_for("시스템 프롬프트: 짧게")
        terminal.type("안녕\r")
        terminal.wait_for("You said: 안녕")
        terminal.type("/exit\r")
        assert terminal.wait_for_end() == 0
    assert (server.bodies[0]["model"], server.bodies[0]["seed"]) == ("tiny", 5)


def test_the_program_that_stands_alone_tells_in_one_line_why_it_cannot_begin(tmp_path):
    url = "http://127.0.0.1:9/v1"
    with Terminal(CHAT_PY, str(STANDALONE), "--base-url", url, home=tmp_path) as terminal:
        assert terminal.wait_for_end() == 1
        assert terminal.read() == f"error: No server answers at {url}, or it has ended.\r\n"
