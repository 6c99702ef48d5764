"""The list of conversations as a person uses it: by pointer, by keyboard, on a small screen.

Each test takes a second in a browser, and `make test` has room for the main ways only; the others are slow.
"""

import json
import re

import pytest
from playwright.sync_api import expect
from support.kept_talks import Talk, keep_talks
from support.keyboard import Keyboard

TALKS = (
    Talk("김치찌개 끓이는 법", "배추김치와 돼지고기", 0),
    Talk("부산 여행 계획", "해운대에서 이틀", 1),
    Talk("이력서 고치기", "경력 세 줄", 5),
    Talk("오래된 이야기", "옛날 옛적에", 40, is_pinned=True),
)


@pytest.fixture
def talked(stub, shared_page):
    """The page of somebody who has talked before."""
    shared_page.goto(stub.url)
    keep_talks(shared_page, TALKS)
    shared_page.locator(".conversation").nth(3).wait_for()
    return shared_page


def titles(page):
    return page.locator(".conversation-title").all_inner_texts()


def until_titles(page, expected):
    shown = "[...document.querySelectorAll('.conversation-title')].map((title) => title.textContent)"
    page.wait_for_function(f"expected => {shown}.join() === expected.join()", arg=expected)


def entry(page, title):
    return page.get_by_role("button", name=title, exact=True)


def menu(page, title, item):
    page.get_by_role("button", name=f"‘{title}’ 메뉴").click()
    page.get_by_role("menuitem", name=item).click()


def test_conversations_are_grouped_by_day_with_pinned_ones_first(talked):
    assert talked.locator(".sidebar-group-name").all_inner_texts() == [
        "고정한 대화",
        "오늘",
        "어제",
        "지난 7일",
    ]
    assert titles(talked) == ["오래된 이야기", "김치찌개 끓이는 법", "부산 여행 계획", "이력서 고치기"]
    menu(talked, "오래된 이야기", "고정 풀기")
    until_titles(talked, ["김치찌개 끓이는 법", "부산 여행 계획", "이력서 고치기", "오래된 이야기"])


def test_initial_consonants_find_titles_and_messages(talked):
    talked.fill("#sidebar-search", "ㅎㅇㄷ")
    until_titles(talked, ["부산 여행 계획"])
    assert talked.locator(".conversation-snippet mark").inner_text() == "해운대"
    expect(talked.get_by_text("대화 1개를 찾았어요.")).to_be_visible()
    talked.fill("#sidebar-search", "없는 말")
    talked.get_by_text("‘없는 말’에 맞는 대화가 없어요.").wait_for()
    talked.press("#sidebar-search", "Escape")
    talked.locator(".conversation").nth(3).wait_for()


def test_enter_that_ends_a_syllable_does_not_end_the_renaming(talked):
    entry(talked, "부산 여행 계획").press("F2")
    field = talked.get_by_role("textbox", name="대화의 새 이름")
    field.fill("")
    keyboard = Keyboard(talked)
    keyboard.compose("ㅎ", "하", "한")
    keyboard.enter(Keyboard.PROCESS_KEY)
    assert field.is_visible()
    keyboard.commit("한")
    field.press("Enter")
    expect(entry(talked, "한")).to_be_focused()
    talked.reload()
    entry(talked, "한").wait_for()


@pytest.mark.slow
def test_escape_gives_a_new_name_up(talked):
    menu(talked, "부산 여행 계획", "이름 바꾸기")
    talked.keyboard.type("x")
    talked.keyboard.press("Escape")
    expect(entry(talked, "부산 여행 계획")).to_be_visible()


def test_a_deleted_conversation_comes_back_whole(talked):
    entry(talked, "김치찌개 끓이는 법").click()
    talked.get_by_text("배추김치와 돼지고기").wait_for()
    menu(talked, "김치찌개 끓이는 법", "삭제")
    talked.get_by_text("‘김치찌개 끓이는 법’ 대화를 삭제했어요.").wait_for()
    until_titles(talked, ["오래된 이야기", "부산 여행 계획", "이력서 고치기"])
    expect(entry(talked, "부산 여행 계획")).to_be_focused()
    talked.get_by_role("button", name="되돌리기").click()
    entry(talked, "김치찌개 끓이는 법").click()
    talked.get_by_text("배추김치와 돼지고기").wait_for()


@pytest.mark.slow
def test_the_menu_goes_by_arrows_and_gives_the_focus_back(talked):
    button = talked.get_by_role("button", name="‘부산 여행 계획’ 메뉴")
    button.press("Enter")
    expect(talked.get_by_role("menuitem", name="이름 바꾸기")).to_be_focused()
    talked.keyboard.press("ArrowUp")
    expect(talked.get_by_role("menuitem", name="삭제")).to_be_focused()
    talked.keyboard.press("Escape")
    expect(talked.locator("[role=menu]")).to_have_count(0)
    expect(button).to_be_focused()


def test_what_was_exported_can_be_imported_elsewhere(talked, stub, open_page, tmp_path):
    talked.get_by_role("button", name="설정", exact=True).click()
    with talked.expect_download() as download:
        talked.get_by_role("button", name="모두 내보내기").click()
    assert re.fullmatch(r"ondol-\d{4}-\d\d-\d\d\.json", download.value.suggested_filename)
    file = tmp_path / "export.json"
    download.value.save_as(file)
    assert json.loads(file.read_text(encoding="utf-8"))["format"] == "ondol.conversations"
    elsewhere = open_page(stub.url)
    elsewhere.set_input_files("input[type=file]", file)
    elsewhere.get_by_text("대화 4개를 가져왔어요.").wait_for()
    until_titles(elsewhere, titles(talked))


@pytest.mark.slow
def test_a_file_of_another_kind_is_refused(page, tmp_path):
    file = tmp_path / "picture.json"
    file.write_text("not json", encoding="utf-8")
    page.get_by_role("button", name="설정", exact=True).click()
    page.set_input_files("input[type=file]", file)
    alert = page.get_by_role("alert").filter(has_text="대화를 내보낸 파일이 아니에요.")
    expect(alert).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    alert.get_by_role("button", name="닫기").click()
    expect(alert).to_have_count(0)


@pytest.mark.slow
def test_a_conversation_can_be_saved_as_markdown(talked):
    with talked.expect_download() as download:
        menu(talked, "부산 여행 계획", "마크다운으로 내보내기")
    assert download.value.suggested_filename == "부산 여행 계획.md"
    assert "## 나\n\n해운대에서 이틀" in download.value.path().read_text(encoding="utf-8")


@pytest.mark.slow
def test_on_a_small_screen_the_list_is_a_drawer_that_keeps_the_focus(stub, open_page):
    page = open_page(stub.url, viewport={"width": 360, "height": 740})
    keep_talks(page, TALKS)
    opener = page.get_by_role("button", name="대화 목록 열기")
    opener.click()
    assert page.evaluate("document.activeElement.closest('#sidebar') !== null")
    assert page.evaluate("document.querySelector('main').inert")
    page.keyboard.press("Escape")
    assert not page.evaluate("document.querySelector('main').inert")
    assert page.evaluate("document.querySelector('#sidebar').inert")
    assert opener.evaluate("(button) => button === document.activeElement")
    opener.click()
    entry(page, "부산 여행 계획").click()
    page.get_by_text("해운대에서 이틀").wait_for()
    assert page.evaluate("document.querySelector('#sidebar').inert")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
