"""Hangul as it is typed: syllables grow in the box, and only a finished one is sent, once and whole."""

import pytest
from playwright.sync_api import expect
from support.chat_page import ChatPage
from support.keyboard import Keyboard


@pytest.fixture
def keyboard(shared_page):
    return Keyboard(shared_page)


def test_enter_while_a_syllable_is_composed_sends_nothing_and_the_next_sends_once(stub, chat, keyboard):
    keyboard.compose("ㅎ", "하", "한")
    keyboard.commit("한")
    keyboard.compose("ㄱ", "그", "글")
    keyboard.enter(Keyboard.PROCESS_KEY)
    keyboard.commit("글")
    expect(chat.box).to_have_value("한글")
    expect(chat.questions).to_have_count(0)
    keyboard.enter()
    chat.wait_for_answer("안녕하세요.")
    expect(chat.box).to_have_value("")
    expect(chat.questions).to_have_count(1)
    assert stub.asked == [["한글"]]


def test_in_safaris_order_the_enter_that_ends_a_composition_sends_nothing(stub, chat, keyboard):
    keyboard.compose("ㅎ", "하", "한")
    keyboard.commit("한")
    # Safari has ended the composition when the key comes: only the key code tells.
    keyboard.enter(Keyboard.PROCESS_KEY)
    expect(chat.box).to_have_value("한")
    expect(chat.questions).to_have_count(0)
    keyboard.enter()
    chat.wait_for_answer("안녕하세요.")
    assert stub.asked == [["한"]]


def test_a_click_sends_the_syllable_that_is_being_composed(stub, chat, keyboard):
    keyboard.compose("ㅂ", "바")
    keyboard.commit("바")
    keyboard.compose("ㄷ", "다")
    chat.press("보내기")
    chat.wait_for_answer("안녕하세요.")
    expect(chat.box).to_have_value("")
    assert stub.asked == [["바다"]]


def test_shift_and_enter_begin_a_new_line(stub, chat):
    chat.box.press_sequentially("하나")
    chat.box.press("Shift+Enter")
    chat.box.press_sequentially("둘")
    chat.box.press("Enter")
    chat.wait_for_answer("안녕하세요.")
    assert stub.asked == [["하나\n둘"]]


def test_enter_is_a_new_line_where_fingers_type(stub, open_page):
    chat = ChatPage(
        open_page(stub.url, has_touch=True, is_mobile=True, viewport={"width": 360, "height": 740})
    )
    stub.bodies.clear()
    chat.box.press_sequentially("하나")
    chat.box.press("Enter")
    chat.box.press_sequentially("둘")
    expect(chat.box).to_have_value("하나\n둘")
    chat.press("보내기")
    chat.wait_for_answer("안녕하세요.")
    assert stub.asked == [["하나\n둘"]]


def test_words_are_not_broken_inside(chat):
    style = "getComputedStyle(document.documentElement)"
    assert chat.page.evaluate(f"{style}.wordBreak") == "keep-all"
    assert chat.page.evaluate(f"{style}.overflowWrap") == "anywhere"
