"""Typing Hangul into the box, as input methods do it: through Chromium's own composition (CDP)."""

import pytest
from playwright.sync_api import expect
from support.chat_page import ChatPage, InputMethod
from support.stub_daemon import Answer, StubDaemon

PHONE = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True}


@pytest.fixture(scope="module")
def stub():
    with StubDaemon().running() as daemon:
        yield daemon


@pytest.fixture(scope="module")
def shared_page(stub, open_shared_page):
    return open_shared_page(stub.url)


@pytest.fixture
def chat(stub, shared_page):
    return ChatPage(shared_page).begin(stub)


@pytest.fixture
def hangul(shared_page):
    return InputMethod(shared_page)


def questions(stub):
    return [body["messages"][-1]["content"] for body in stub.bodies]


def test_enter_ends_a_syllable_and_the_next_one_sends_once(stub, chat, hangul):
    chat.box.focus()
    hangul.compose("ㅎ", "하", "한")
    hangul.commit("한")
    hangul.compose("ㄱ", "그", "글")
    hangul.press_enter()
    assert questions(stub) == []
    hangul.commit("글")
    assert chat.box.input_value() == "한글"
    chat.box.press("Enter")
    chat.wait_for_answer("안녕하세요.")
    assert questions(stub) == ["한글"]
    expect(chat.box).to_have_value("")
    assert chat.texts() == ["한글", "안녕하세요."]


def test_safari_ends_the_syllable_before_it_tells_of_the_key(stub, chat, hangul):
    chat.box.focus()
    hangul.compose("ㄴ", "나")
    hangul.commit("나")
    # No composition any more, and only the key code tells whose key it was.
    hangul.press_enter()
    assert questions(stub) == []
    assert chat.box.input_value().startswith("나")
    chat.box.press("Enter")
    chat.wait_for_answer("안녕하세요.")
    assert [question.strip() for question in questions(stub)] == ["나"]


def test_a_click_on_send_takes_the_last_syllable_along(stub, chat, hangul):
    chat.box.focus()
    hangul.compose("ㅇ", "아", "안")
    hangul.commit("안")
    hangul.compose("ㄴ", "녀", "녕")
    chat.page.get_by_role("button", name="보내기").click()
    chat.wait_for_answer("안녕하세요.")
    assert questions(stub) == ["안녕"]
    expect(chat.box).to_have_value("")


def test_the_text_is_not_touched_while_a_syllable_is_open(stub, chat, hangul):
    answer = Answer(hold_at=1)
    stub.answers = [answer]
    chat.ask("먼저")
    expect(chat.answers.last).to_contain_text("안녕")
    chat.box.focus()
    hangul.compose("ㄷ", "다")
    answer.resume.set()
    chat.wait_for_answer("안녕하세요.")
    hangul.compose("단")
    hangul.commit("단")
    assert chat.box.input_value() == "단"


def test_two_quick_presses_send_once(stub, chat):
    chat.box.fill("한 번만")
    button = chat.page.get_by_role("button", name="보내기")
    button.evaluate("(button) => { button.click(); button.click(); }")
    chat.wait_for_answer("안녕하세요.")
    assert questions(stub) == ["한 번만"]


def test_decomposed_hangul_is_sent_composed(stub, chat):
    chat.ask("\u1112\u1161\u11ab\u1100\u1173\u11af")
    chat.wait_for_answer("안녕하세요.")
    assert questions(stub) == ["한글"]


def test_shift_enter_makes_a_line_and_the_box_grows(stub, chat):
    height = chat.box.bounding_box()["height"]
    chat.box.press_sequentially("첫 줄")
    chat.box.press("Shift+Enter")
    chat.box.press_sequentially("둘째 줄")
    assert chat.box.input_value() == "첫 줄\n둘째 줄"
    assert chat.box.bounding_box()["height"] > height
    assert stub.bodies == []
    chat.box.fill("")


def test_enter_while_an_answer_is_written_keeps_the_next_question(stub, chat):
    answer = Answer(hold_at=1)
    stub.answers = [answer]
    chat.ask("먼저")
    expect(chat.answers.last).to_contain_text("안녕")
    chat.ask("나중에")
    expect(chat.box).to_have_value("나중에")
    answer.resume.set()
    chat.wait_for_answer("안녕하세요.")
    assert questions(stub) == ["먼저"]
    chat.box.fill("")


def test_on_a_phone_enter_is_a_new_line_and_the_button_sends(stub, open_page):
    stub.bodies.clear()
    chat = ChatPage(open_page(stub.url, **PHONE))
    chat.box.tap()
    chat.box.press_sequentially("손가락")
    chat.box.press("Enter")
    chat.box.press_sequentially("으로")
    assert stub.bodies == []
    chat.page.get_by_role("button", name="보내기").tap()
    chat.wait_for_answer("안녕하세요.")
    assert questions(stub) == ["손가락\n으로"]
    assert chat.page.evaluate("document.documentElement.scrollWidth") <= 360
