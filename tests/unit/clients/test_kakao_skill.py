"""The skill bridge before a daemon that answers as told; payloads have the shape that Kakao documents."""

import asyncio
import json
import threading
import time
from contextlib import contextmanager

import pytest
from fastapi.testclient import TestClient
from support.http_servers import QuietHandler, served

from clients.examples import kakao_skill
from clients.examples.kakao_skill import (
    CONTINUE,
    FAILED,
    FORGOTTEN,
    MAX_MESSAGES,
    MAX_USERS,
    NOT_YET,
    RESET,
    THINKING,
    TOO_LONG,
    SkillBridge,
    SkillSettings,
    Talks,
    create_app,
    cut,
)


class ScriptedDaemon:
    """Answers each chat with the next of `answers`: text and finish reason, or status and code."""

    def __init__(self):
        self.answers = []
        self.bodies = []
        self.url = ""

    @contextmanager
    def serve(self):
        daemon = self

        class Handler(QuietHandler):
            def do_POST(self):
                daemon.bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                told, reason = daemon.answers.pop(0)
                if isinstance(told, int):
                    body = {"error": {"message": "No.", "type": "x", "param": None, "code": reason}}
                    self.reply(told, json.dumps(body).encode(), {"Content-Type": "application/json"})
                    return
                message = {"role": "assistant", "content": told}
                choice = {"index": 0, "message": message, "finish_reason": reason}
                body = {
                    "id": "a",
                    "object": "chat.completion",
                    "created": 1,
                    "model": "m",
                    "choices": [choice],
                }
                self.reply(200, json.dumps(body).encode(), {"Content-Type": "application/json"})

        with served(Handler) as url:
            self.url = f"{url}/v1"
            yield self

    def turns(self, number):
        """What the model was sent at the so-manieth request, without the system prompt."""
        return [(message["role"], message["content"]) for message in self.bodies[number]["messages"][1:]]


@pytest.fixture
def daemon():
    with ScriptedDaemon().serve() as running:
        yield running


@pytest.fixture
def kakao(daemon):
    with TestClient(create_app(SkillSettings(daemon.url))) as client:
        yield client


def payload(utterance, user="a1b2", **user_request):
    """SkillPayload as an open builder block sends it."""
    return {
        "bot": {"id": "5a548e36", "name": "온돌봇"},
        "intent": {"id": "5a56ec00", "name": "폴백 블록", "extra": {"reason": {"code": 1, "message": "OK"}}},
        "action": {"id": "5a56ebaa", "name": "온돌", "params": {}, "detailParams": {}, "clientExtra": {}},
        "userRequest": {
            "block": {"id": "5a56ec00", "name": "폴백 블록"},
            "user": {"id": user, "type": "botUserKey", "properties": {"botUserKey": user}},
            "utterance": utterance,
            "params": {"surface": "Kakaotalk.plusfriend"},
            "lang": "ko",
            "timezone": "Asia/Seoul",
            **user_request,
        },
        "contexts": [],
    }


def ask(kakao, utterance, **options):
    answer = kakao.post("/skill", json=payload(utterance, **options))
    assert answer.status_code == 200
    return answer.json()


def text(answer):
    (output,) = answer["template"]["outputs"]
    return output["simpleText"]["text"]


def replies(answer):
    return [reply["messageText"] for reply in answer["template"]["quickReplies"]]


def test_an_answer_has_the_shape_that_kakao_wants(kakao, daemon):
    daemon.answers = [("온돌은 바닥 난방이에요.", "stop")]
    assert ask(kakao, "온돌이 뭐야?\n") == {
        "version": "2.0",
        "template": {
            "outputs": [{"simpleText": {"text": "온돌은 바닥 난방이에요."}}],
            "quickReplies": [{"label": RESET, "action": "message", "messageText": RESET}],
        },
    }
    assert daemon.turns(0) == [("user", "온돌이 뭐야?")]
    assert daemon.bodies[0]["deadline_s"] < kakao_skill.SKILL_TIMEOUT_S


def test_an_answer_that_was_cut_by_the_deadline_is_gone_on_with(kakao, daemon):
    daemon.answers = [("온돌은", "length"), (" 따뜻해요.", "stop"), ("네.", "stop")]
    first = ask(kakao, "온돌은?")
    assert (text(first), replies(first)) == ("온돌은", [CONTINUE, RESET])
    second = ask(kakao, CONTINUE)
    assert (text(second), replies(second)) == ("따뜻해요.", [RESET])
    assert daemon.turns(1) == [("user", "온돌은?"), ("assistant", "온돌은")]
    assert (daemon.bodies[1]["continue_final_message"], daemon.bodies[1]["add_generation_prompt"]) == (
        True,
        False,
    )
    ask(kakao, "정말?")
    assert daemon.turns(2) == [("user", "온돌은?"), ("assistant", "온돌은 따뜻해요."), ("user", "정말?")]
    assert "continue_final_message" not in daemon.bodies[2]


def test_a_long_answer_fits_its_bubble_and_the_model_goes_on_from_there(kakao, daemon):
    daemon.answers = [("가" * 999 + "😀끝", "stop"), ("😀끝", "stop")]
    first = ask(kakao, "길게")
    assert (text(first), replies(first)) == ("가" * 999, [CONTINUE, RESET])
    ask(kakao, CONTINUE)
    assert daemon.turns(1)[-1] == ("assistant", "가" * 999)


def test_without_a_word_in_time_the_question_is_asked_again(kakao, daemon):
    daemon.answers = [("", "length"), ("네", "stop")]
    first = ask(kakao, "거기 있어?")
    assert (text(first), replies(first)) == (NOT_YET, [CONTINUE, RESET])
    assert text(ask(kakao, CONTINUE)) == "네"
    assert daemon.turns(1) == [("user", "거기 있어?")]


def test_a_question_after_one_without_an_answer_keeps_roles_alternating(kakao, daemon):
    daemon.answers = [("", "length"), ("네", "stop")]
    ask(kakao, "하나")
    ask(kakao, "둘")
    assert daemon.turns(1) == [("user", "둘")]


def test_the_word_for_going_on_is_a_question_when_there_is_nothing_to_go_on_with(kakao, daemon):
    daemon.answers = [("무엇을요?", "stop")]
    ask(kakao, CONTINUE)
    assert daemon.turns(0) == [("user", CONTINUE)]


def test_people_do_not_read_each_others_conversations(kakao, daemon):
    daemon.answers = [("가", "stop"), ("나", "stop")]
    ask(kakao, "비밀", user="a")
    ask(kakao, "뭐라고 했어?", user="b")
    assert daemon.turns(1) == [("user", "뭐라고 했어?")]


def test_a_new_conversation_forgets_and_asks_nobody(kakao, daemon):
    daemon.answers = [("가", "stop"), ("나", "stop")]
    ask(kakao, "하나")
    assert text(ask(kakao, RESET)) == FORGOTTEN
    ask(kakao, "둘")
    assert daemon.turns(1) == [("user", "둘")]


def test_the_model_is_reminded_of_the_latest_turns_only(kakao, daemon):
    daemon.answers = [(f"답 {number}", "stop") for number in range(8)]
    for number in range(8):
        ask(kakao, f"질문 {number}")
    turns = daemon.turns(-1)
    assert len(turns) == MAX_MESSAGES - 1
    assert [role for role, _ in turns] == [("user", "assistant")[place % 2] for place in range(len(turns))]
    assert turns[-1] == ("user", "질문 7")


def test_only_those_who_spoke_last_are_remembered():
    talks = Talks()
    first = talks.of("first")
    for number in range(MAX_USERS - 1):
        talks.of(str(number))
    assert talks.of("first") is first
    talks.of("one more")
    assert talks.of("first") is first


@pytest.mark.parametrize(
    ("refusal", "said"), [((503, "queue_full"), FAILED), ((400, "context_length_exceeded"), TOO_LONG)]
)
def test_a_daemon_that_refuses_is_told_in_korean_and_what_was_said_before_stays_fit(
    kakao, daemon, refusal, said
):
    daemon.answers = [refusal, ("네", "stop")]
    assert text(ask(kakao, "하나")) == said
    assert text(ask(kakao, "둘")) == "네"
    assert daemon.turns(1) == [("user", "둘")]


def test_a_daemon_that_does_not_answer_does_not_use_up_kakaos_time():
    is_over = threading.Event()

    class Silent(QuietHandler):
        def do_POST(self):
            is_over.wait(10)

    with served(Silent) as url:
        bridge = SkillBridge(SkillSettings(f"{url}/v1"))
        begin_s = time.monotonic()
        answer = asyncio.run(bridge.respond("a", "하나", timeout_s=1.5))
        duration_s = time.monotonic() - begin_s
        is_over.set()
    assert text(answer) == FAILED
    assert duration_s < 1.5


def test_a_block_with_a_callback_gets_its_answer_there(daemon, monkeypatch):
    daemon.answers = [("오래 생각했어요.", "stop")]
    posted = []

    class Taken(QuietHandler):
        def do_POST(self):
            posted.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.reply(200, b'{"status": "SUCCESS"}')

    with served(Taken) as url, TestClient(create_app(SkillSettings(daemon.url))) as kakao:
        monkeypatch.setattr(SkillBridge, "is_kakaos", lambda self, address: address == url)
        answer = ask(kakao, "생각해 봐", callbackUrl=url)
    assert answer == {"version": "2.0", "useCallback": True, "data": {"text": THINKING}}
    assert [text(body) for body in posted] == ["오래 생각했어요."]
    assert daemon.bodies[0]["deadline_s"] > kakao_skill.SKILL_TIMEOUT_S


@pytest.mark.parametrize(
    "url",
    [
        "http://bot-api.kakao.com/callback/1",
        "https://127.0.0.1/",
        "https://kakao.com.example/",
        "https://evilkakao.com/",
        "file:///etc/passwd",
        "https://kakao.com@127.0.0.1/",
    ],
)
def test_answers_are_posted_to_kakao_only(kakao, daemon, url):
    assert kakao.post("/skill", json=payload("하나", callbackUrl=url)).status_code == 403
    assert daemon.bodies == []


def test_kakaos_own_addresses_are_taken():
    assert SkillBridge(SkillSettings()).is_kakaos("https://bot-api.kakao.com/callback/1")


def test_a_secret_keeps_others_out(daemon):
    daemon.answers = [("네", "stop")]
    with TestClient(create_app(SkillSettings(daemon.url, secret="s3cret"))) as kakao:
        assert kakao.post("/skill", json=payload("하나")).status_code == 403
        headers = {"x-skill-secret": "s3cret"}
        assert kakao.post("/skill", json=payload("하나"), headers=headers).status_code == 200


def test_what_is_no_skill_payload_is_refused(kakao):
    assert kakao.post("/skill", json={"userRequest": {"utterance": "하나"}}).status_code == 422


@pytest.mark.parametrize(
    ("whole", "kept"),
    [
        ("가나다", "가나"),
        ("가👨\u200d👩", "가"),
        ("\u1112\u1161\u11ab글", ""),
        ("e\u0301e\u0301", "e\u0301"),
        ("", ""),
    ],
)
def test_a_text_is_cut_between_characters(whole, kept):
    assert cut(whole, 2) == kept
