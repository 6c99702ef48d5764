"""Asking, stopping, continuing, editing: what a reader does, and what the daemon is asked then."""

import pytest
from playwright.sync_api import expect
from support.daemon import poll
from support.keyboard import Keyboard
from support.scripted_answer import Answer
from support.stub_daemon import error_object


def test_an_answer_streams_in_and_tells_its_model_and_speed(stub, chat):
    answer = Answer(("온돌은 ", "**바닥**", "을 데워요."), hold_at=2, queued=(2,))
    stub.answers = [answer]
    chat.ask("온돌이 뭐야?")
    expect(chat.answers.last.locator("strong")).to_have_text("바닥")
    expect(chat.box).to_have_value("")
    answer.resume.set()
    shown = chat.wait_for_answer("온돌은 바닥을 데워요.")
    expect(shown.locator(".message-stats")).to_contain_text("stub · 50 토큰/초 · 첫 토큰")
    assert stub.asked[0] == ["온돌이 뭐야?"]
    assert stub.num_aborted == 0


def test_the_place_in_the_queue_is_told_while_waiting(stub, chat):
    answer = Answer(queued=(3,), hold_at=0)
    stub.answers = [answer]
    chat.ask("줄 서기")
    expect(chat.answers.last).to_contain_text("앞에 요청이 2개 있어요")
    answer.resume.set()
    chat.wait_for_answer("안녕하세요.")


def test_escape_stops_the_answer_and_it_can_be_continued(stub, chat):
    stub.answers = [Answer(("처음", " 둘째", " 셋째"), hold_at=2), Answer((" 이어서",))]
    chat.ask("세어 줘")
    expect(chat.answers.last).to_contain_text("처음 둘째")
    chat.box.press("Escape")
    expect(chat.answers.last).to_contain_text("멈추기를 눌러서")
    chat.press("이어 쓰기")
    chat.wait_for_answer("처음 둘째 이어서")
    poll(lambda: stub.num_aborted, bool)
    assert stub.bodies[1]["continue_final_message"] is True
    assert stub.bodies[1]["add_generation_prompt"] is False
    assert stub.asked[1] == ["세어 줘", "처음 둘째"]


def test_another_answer_is_a_branch_and_the_first_one_stays(stub, chat):
    stub.answers = [Answer(("첫 답",)), Answer(("둘째 답",))]
    chat.ask("골라 줘")
    chat.press("다시 답하기", chat.wait_for_answer("첫 답"))
    answer = chat.wait_for_answer("둘째 답")
    expect(answer.locator(".message-branch")).to_have_text("2/2")
    assert stub.asked[1] == ["골라 줘"]
    chat.press("이전 갈래", answer)
    expect(chat.answers.last).to_contain_text("첫 답")
    expect(chat.answers.last.locator(".message-branch")).to_have_text("1/2")


def test_an_edited_question_is_asked_anew_and_branches_are_switched(stub, chat):
    stub.answers = [Answer(("서울 답",)), Answer(("부산 답",))]
    chat.ask("서울 날씨")
    chat.wait_for_answer("서울 답")
    chat.box.press("ArrowUp")
    editor = chat.page.get_by_label("메시지 고치기")
    expect(editor).to_be_focused()
    editor.fill("부산 날씨")
    chat.press("고쳐서 묻기")
    chat.wait_for_answer("부산 답")
    assert stub.asked[1] == ["부산 날씨"]
    chat.press("이전 갈래", chat.questions.last)
    expect(chat.answers.last).to_contain_text("서울 답")
    assert chat.texts() == ["서울 날씨", "서울 답"]


def test_an_edited_answer_is_what_the_model_reads_from_then_on(stub, chat):
    stub.answers = [Answer(("틀린 답",))]
    chat.ask("질문")
    chat.press("고치기", chat.wait_for_answer("틀린 답"))
    chat.page.get_by_label("메시지 고치기").fill("맞는 답")
    chat.press("저장")
    expect(chat.answers.last).to_contain_text("맞는 답")
    chat.ask("그다음은?")
    chat.wait_for_answer("안녕하세요.")
    assert stub.asked[1] == ["질문", "맞는 답", "그다음은?"]


def test_escape_leaves_an_edited_message_as_it_was(stub, chat):
    chat.ask("그대로")
    chat.press("고치기", chat.wait_for_answer("안녕하세요."))
    editor = chat.page.get_by_label("메시지 고치기")
    editor.fill("바꿈")
    editor.press("Escape")
    expect(chat.box).to_be_focused()
    assert chat.texts() == ["그대로", "안녕하세요."]


def test_a_reload_keeps_messages_branches_and_the_draft(stub, chat):
    stub.answers = [Answer(("첫 답",)), Answer(("둘째 답",))]
    chat.ask("처음 물음")
    chat.press("다시 답하기", chat.wait_for_answer("첫 답"))
    chat.wait_for_answer("둘째 답")
    chat.box.press_sequentially("쓰다 만 글")
    chat.page.reload()
    chat.wait_for_answer("둘째 답")
    expect(chat.answers.last.locator(".message-branch")).to_have_text("2/2")
    expect(chat.box).to_have_value("쓰다 만 글")


def test_a_reload_in_the_middle_of_an_answer_keeps_its_words(stub, chat):
    stub.answers = [Answer(("여기까지", " 왔다", "!"), hold_at=2), Answer((" 끝",))]
    chat.ask("길게")
    expect(chat.answers.last).to_contain_text("여기까지 왔다")
    chat.wait_until_kept("여기까지 왔다")
    chat.page.reload()
    expect(chat.answers.last).to_contain_text("여기까지 왔다")
    chat.press("이어 쓰기")
    chat.wait_for_answer("여기까지 왔다 끝")


def test_each_conversation_has_its_own_draft(stub, chat):
    chat.box.fill("첫 대화")
    chat.box.press("Enter")
    chat.wait_for_answer("안녕하세요.")
    chat.box.press_sequentially("남은 글")
    chat.press("새 대화")
    expect(chat.box).to_have_value("")
    chat.box.press_sequentially("새 글")
    chat.page.go_back()
    expect(chat.box).to_have_value("남은 글")
    chat.press("새 대화")
    expect(chat.box).to_have_value("새 글")


def test_thoughts_are_folded_away_from_the_answer(stub, chat):
    stub.answers = [Answer(("<think>", "곰곰이", "</think>", "\n\n답", "이에요")), Answer()]
    chat.ask("생각해 봐")
    answer = chat.wait_for_answer("답이에요")
    assert chat.texts() == ["생각해 봐", "답이에요"]
    expect(answer.locator(".thoughts-text")).to_be_hidden()
    answer.get_by_text("생각한 과정").click()
    expect(answer.locator(".thoughts-text")).to_have_text("곰곰이")
    chat.ask("또")
    chat.wait_for_answer("안녕하세요.")
    assert stub.asked[1] == ["생각해 봐", "답이에요", "또"]


def test_a_conversation_that_is_too_long_goes_on_without_its_beginning(stub, chat):
    stub.answers = [
        Answer(("긴 답",)),
        Answer(refusal=(400, error_object("too long", "context_length_exceeded", "messages"))),
        Answer(("짧게 답해요",)),
    ]
    chat.ask("첫 물음" * 50)
    chat.wait_for_answer("긴 답")
    chat.ask("둘째 물음")
    expect(chat.answers.last).to_contain_text("대화가 길어서")
    chat.press("앞 대화 덜어 내고 이어 가기")
    chat.wait_for_answer("짧게 답해요")
    assert stub.asked[2] == ["둘째 물음"]
    expect(chat.questions.last).to_contain_text("모델은 여기부터 읽어요")


@pytest.mark.parametrize(
    ("status", "code", "words"),
    [
        (404, "model_not_found", "모델이 이 서버에 없어요"),
        (429, "rate_limit_exceeded", "쓸 수 있는 양을 다 썼어요"),
        (400, "model_does_not_fit", "메모리보다 커서"),
        (400, None, "서버가 요청을 받아들이지 않았어요: 이유"),
    ],
)
def test_a_refusal_is_told_in_plain_words_with_a_way_on(stub, chat, status, code, words):
    stub.answers = [Answer(refusal=(status, error_object("이유", code))), Answer()]
    chat.ask("안녕")
    expect(chat.answers.last.locator(".ending")).to_contain_text(words)
    chat.press("다시 시도")
    chat.wait_for_answer("안녕하세요.")


def test_why_an_answer_ended_is_told(stub, chat):
    stub.answers = [Answer(), Answer(("잘린",), finish_reason="length")]
    chat.ask("하나")
    answer = chat.wait_for_answer("안녕하세요.")
    answer.get_by_text("왜 멈췄나").click()
    expect(answer).to_contain_text("스스로 멈췄어요")
    chat.ask("둘")
    expect(chat.answers.last.locator(".ending")).to_contain_text("길이가 다 찼어요")


def test_the_text_is_not_touched_while_a_syllable_is_open(stub, chat):
    keyboard = Keyboard(chat.page)
    answer = Answer(hold_at=1)
    stub.answers = [answer]
    chat.ask("먼저")
    expect(chat.answers.last).to_contain_text("안녕")
    chat.box.focus()
    keyboard.compose("ㄷ", "다")
    answer.resume.set()
    chat.wait_for_answer("안녕하세요.")
    keyboard.compose("단")
    keyboard.commit("단")
    assert chat.box.input_value() == "단"


def test_two_quick_presses_send_once(stub, chat):
    chat.box.fill("한 번만")
    button = chat.page.get_by_role("button", name="보내기")
    button.evaluate("(button) => { button.click(); button.click(); }")
    chat.wait_for_answer("안녕하세요.")
    assert stub.asked == [["한 번만"]]


def test_decomposed_hangul_is_sent_composed(stub, chat):
    chat.ask("\u1112\u1161\u11ab\u1100\u1173\u11af")
    chat.wait_for_answer("안녕하세요.")
    assert stub.asked == [["한글"]]


def test_enter_while_an_answer_is_written_keeps_the_next_question(stub, chat):
    answer = Answer(hold_at=1)
    stub.answers = [answer]
    chat.ask("먼저")
    expect(chat.answers.last).to_contain_text("안녕")
    chat.ask("나중에")
    expect(chat.page.get_by_text("답이 끝나면 보낼 수 있어요")).to_be_visible()
    expect(chat.box).to_have_value("나중에")
    answer.resume.set()
    chat.wait_for_answer("안녕하세요.")
    assert stub.asked == [["먼저"]]
    chat.box.fill("")


def test_screen_readers_are_told_whole_sentences_once(stub, chat):
    answer = Answer(("온돌은 ", "바닥을 ", "데워요. ", "따뜻", "해요"), hold_at=4)
    stub.answers = [answer]
    chat.ask("읽어 줘")
    told = chat.page.locator("[role=status][aria-live=polite] p")
    expect(told).to_have_text(["답을 쓰고 있어요.", "온돌은 바닥을 데워요."])
    answer.resume.set()
    expect(told).to_have_text(["답을 쓰고 있어요.", "온돌은 바닥을 데워요.", "따뜻해요", "답이 끝났어요."])


def test_an_answer_is_copied_as_it_was_written(stub, chat):
    chat.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    stub.answers = [Answer(("<think>음</think>", "**굵게**"))]
    chat.ask("복사할래")
    chat.press("복사", chat.wait_for_answer("굵게"))
    expect(chat.page.get_by_role("button", name="복사했어요")).to_be_visible()
    assert chat.page.evaluate("navigator.clipboard.readText()") == "**굵게**"
