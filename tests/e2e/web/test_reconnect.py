"""The daemon goes away in the middle of an answer, and comes back."""

import pytest
from playwright.sync_api import expect
from support.daemon import poll
from support.scripted_answer import Answer
from support.stub_daemon import error_object


@pytest.mark.parametrize(
    ("rest", "whole"), [((" 그리고 끝",), "절반까지 그리고 끝"), ((), "절반까지")], ids=["more", "nothing"]
)
def test_an_answer_goes_on_by_itself_once_the_daemon_is_back(stub, chat, rest, whole):
    stub.answers = [Answer(("절반", "까지", "만"), hold_at=2, cut_at=2), Answer(rest)]
    chat.ask("길게 말해 줘")
    expect(chat.answers.last).to_contain_text("절반까지")
    # Streams break a moment before nobody listens any more.
    stub.phase = "draining"
    stub.stop()
    expect(chat.answers.last).to_contain_text("다시 연결되면 이어서 받을게요")
    expect(chat.answers.last).to_contain_text("절반까지")
    stub.phase = "ready"
    stub.start()
    answer = chat.wait_for_answer(whole)
    expect(answer.locator(".message-content")).to_have_text(whole)
    expect(answer).not_to_contain_text("다시 연결되면")
    answer.get_by_text("왜 멈췄나").click()
    expect(answer).to_contain_text("스스로 멈췄어요")
    assert stub.bodies[1]["continue_final_message"] is True
    assert stub.asked[1] == ["길게 말해 줘", "절반까지"]


def test_a_question_waits_for_a_daemon_that_is_away_and_can_be_given_up(stub, chat):
    expect(chat.box).to_be_visible()
    stub.stop()
    chat.ask("거기 있어?")
    expect(chat.answers.last).to_contain_text("다시 연결되면")
    chat.box.press("Escape")
    expect(chat.answers.last).to_contain_text("멈추기를 눌러서")
    stub.start()
    chat.press("다시 시도", chat.answers.last)
    chat.wait_for_answer("안녕하세요.")


def test_a_failure_in_the_middle_keeps_the_words_and_can_be_continued(stub, chat):
    failed = error_object("The engine failed.", "engine_failed")
    stub.answers = [Answer(("여기", "서", "끊겨요"), cut_at=2, error=failed), Answer((" 이어져요",))]
    chat.ask("끊어 봐")
    expect(chat.answers.last).to_contain_text("모델을 돌리던 프로그램이 멈췄어요")
    expect(chat.answers.last).to_contain_text("여기서")
    chat.press("이어 쓰기")
    chat.wait_for_answer("여기서 이어져요")


def test_an_answer_that_leads_into_another_chat_is_written_to_its_end(stub, chat):
    answer = Answer(("뒤에", "서도", " 써요"), hold_at=1)
    stub.answers = [answer]
    chat.ask("계속 써 줘")
    expect(chat.answers.last).to_contain_text("뒤에")
    chat.press("새 대화")
    expect(chat.log).to_contain_text("무엇을 도와드릴까요?")
    answer.resume.set()
    chat.ask("다른 얘기")
    chat.wait_for_answer("안녕하세요.")
    chat.page.get_by_role("button", name="계속 써 줘", exact=True).click()
    chat.wait_for_answer("뒤에서도 써요")
    poll(lambda: stub.num_aborted, lambda aborted: aborted == 0)


def test_a_daemon_that_gets_ready_is_asked_again_by_itself(stub, chat):
    # The last one: the page's clock stays the test's.
    loading = error_object("The model is still loading. Retry after 1 s.", "model_loading")
    stub.answers = [Answer(refusal=(503, loading)), Answer(("준비됐어요",))]
    chat.page.clock.install()
    chat.ask("준비됐어?")
    expect(chat.answers.last).to_contain_text("서버가 준비하고 있어요")
    chat.page.clock.fast_forward(6000)
    chat.wait_for_answer("준비됐어요")
