"""What stands around the chat: models, settings, the API key, notices, figures, shortcuts.

Each test takes a second in a browser, and `make test` has room for the main ways only; the others are slow.
"""

import re

import pytest
from playwright.sync_api import expect
from support.daemon import poll
from support.scripted_answer import Answer
from support.stub_daemon import model_entry


@pytest.fixture
def ready(page):
    page.wait_for_selector("#composer-input")
    return page


def ask(page, text):
    page.fill("#composer-input", text)
    page.keyboard.press("Enter")


def option(page, name):
    return page.get_by_role("option", name=re.compile(name))


def show_models(stub, open_page, *models):
    stub.models = list(models)
    page = open_page(stub.url)
    page.locator("#model-button .is-loaded").wait_for()
    page.click("#model-button")
    return page


def test_a_model_is_loaded_by_keyboard_and_shows_how_far_it_is(stub, open_page):
    page = show_models(stub, open_page, model_entry("stub"), model_entry("other", "unloaded"))
    assert page.get_by_role("group").all_inner_texts()[0].startswith("올라와 있는 모델")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    assert stub.orders == []
    page.keyboard.press("Enter")
    poll(lambda: stub.orders, lambda orders: orders == [("/models/load", {"model": "other"})])
    progress = {"stages": ["starting", "waiting", "weights"], "current": "weights", "value": 0.4}
    stub.publish("other", "model_status", status="loading", progress=progress)
    expect(option(page, "other")).to_contain_text("올리고 있어요. 40%")
    expect(page.locator("#model-button")).to_contain_text("40%")
    stub.publish("other", "model_status", status="loaded", info=model_entry("other"))
    expect(page.get_by_role("button", name="내리기")).to_be_visible()
    expect(page.locator("#model-button")).to_contain_text("other")
    page.get_by_role("button", name="내리기").click()
    poll(lambda: stub.orders[1:], lambda orders: orders == [("/models/unload", {"model": "other"})])


@pytest.mark.slow
def test_a_load_that_fails_later_says_what_to_do(stub, open_page):
    page = show_models(stub, open_page, model_entry("stub"), model_entry("huge", "unloaded"))
    option(page, "huge").click()
    page.get_by_role("button", name="올리기").click()
    poll(lambda: stub.orders, bool)
    error = {"message": "It needs 40 GiB.", "type": "", "param": "model", "code": "model_does_not_fit"}
    stub.publish("huge", "model_status", status="unloaded", failed=True, exit_code=5, error=error)
    words = "‘huge’ 모델이 메모리보다 커서 올릴 수 없어요."
    expect(page.get_by_role("alert").filter(has_text=words)).to_be_visible()
    expect(option(page, "huge")).to_contain_text("(It needs 40 GiB.)")
    page.get_by_role("button", name="들어갈지 확인").click()
    expect(
        page.get_by_text("들어가요. nf4 형식으로 6 GiB가 필요하고, 10 GiB까지 쓸 수 있어요.")
    ).to_be_visible()


@pytest.mark.slow
def test_a_model_that_is_not_here_is_downloaded_by_its_own_button_only(stub, open_page):
    far = model_entry("far", "unloaded") | {"in_cache": False}
    page = show_models(stub, open_page, model_entry("stub"), far)
    option(page, "far").click()
    expect(page.locator("#model-button")).to_contain_text("stub")
    assert stub.orders == []
    page.keyboard.press("Enter")
    poll(lambda: stub.orders, lambda orders: orders == [("/models/load", {"model": "far"})])


def test_a_chat_s_own_settings_reach_the_daemon_and_survive_a_reload(ready, stub):
    ready.get_by_role("button", name="이 대화의 설정").click()
    temperature = ready.get_by_label("온도")
    expect(temperature).to_have_attribute("placeholder", "0.7")
    temperature.fill("3")
    expect(ready.get_by_text("0부터 2까지 쓸 수 있어요.")).to_be_visible()
    temperature.fill("0")
    ready.get_by_label("시스템 프롬프트").fill("반말로 답해 줘")
    ready.get_by_label("멈춤 문구").fill("끝\n그만")
    ready.keyboard.press("Escape")
    ask(ready, "안녕")
    poll(lambda: stub.bodies, bool)
    body = stub.bodies[0]
    assert (body["temperature"], body["stop"]) == (0, ["끝", "그만"])
    assert body["messages"][0] == {"role": "system", "content": "반말로 답해 줘"}
    ready.locator(".conversation").wait_for()
    ready.reload()
    ready.get_by_role("button", name="이 대화의 설정").click()
    expect(temperature).to_have_value("0")
    ready.get_by_role("button", name="모두 기본값으로").click()
    ready.keyboard.press("Escape")
    ask(ready, "다시")
    poll(lambda: stub.bodies, lambda bodies: len(bodies) == 2)
    assert "temperature" not in stub.bodies[1]
    assert stub.bodies[1]["messages"][0]["role"] == "user"


@pytest.mark.slow
def test_a_setting_that_was_typed_a_moment_ago_holds_for_the_next_question(ready, stub):
    ready.get_by_role("button", name="이 대화의 설정").click()
    ready.get_by_label("온도").press("0")
    # In one task, as on a machine too busy for a frame in between.
    ready.evaluate(
        """() => {
          document.querySelector("dialog[open]").close();
          const box = document.querySelector("#composer-input");
          box.value = "안녕";
          box.dispatchEvent(new Event("input", { bubbles: true }));
          const enter = { key: "Enter", code: "Enter", bubbles: true, cancelable: true };
          box.dispatchEvent(new KeyboardEvent("keydown", enter));
        }"""
    )
    poll(lambda: stub.bodies, bool)
    assert stub.bodies[0]["temperature"] == 0


@pytest.mark.slow
def test_theme_send_key_and_language_are_kept(ready):
    ready.keyboard.press("Control+,")
    ready.get_by_text("어둡게").click()
    ready.get_by_text("Ctrl+Enter", exact=True).click()
    assert ready.evaluate("document.documentElement.dataset.theme") == "dark"
    with ready.expect_navigation():
        ready.get_by_label("언어").select_option("en")
    expect(ready.get_by_role("button", name="New chat")).to_be_visible()
    assert ready.evaluate("document.documentElement.dataset.theme") == "dark"
    assert ready.evaluate("document.documentElement.lang") == "en"
    ask(ready, "line")
    expect(ready.locator("#composer-input")).to_have_value("line\n")


def test_a_missing_key_is_asked_for_and_the_question_is_asked_again(stub, open_page):
    stub.api_key = "right"
    page = open_page(stub.url)
    field = page.get_by_role("dialog").get_by_label("API 키")
    expect(field).to_be_focused()
    field.fill("wrong")
    page.keyboard.press("Enter")
    expect(page.get_by_text("서버가 모르는 키예요.")).to_be_visible()
    page.keyboard.press("Escape")
    page.get_by_role("button", name="API 키 넣기").first.click()
    field.fill("right")
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog")).to_have_count(0)
    page.locator("#model-button .is-loaded").wait_for()
    page.reload()
    page.locator("#model-button .is-loaded").wait_for()
    stub.api_key = "changed"
    ask(page, "안녕")
    field.fill("changed")
    page.keyboard.press("Enter")
    expect(page.get_by_role("log").get_by_text("안녕하세요.")).to_be_visible()
    page.keyboard.press("Control+,")
    expect(page.get_by_text("끝자리가 nged인 키를 쓰고 있어요.")).to_be_visible()
    page.get_by_role("button", name="키 지우기").click()
    expect(page.get_by_text("넣어 둔 키가 없어요.")).to_be_visible()


@pytest.mark.slow
def test_a_daemon_that_is_away_is_told_and_so_is_its_return(ready, stub):
    ready.locator("#model-button .is-loaded").wait_for()
    stub.stop()
    expect(ready.get_by_text("서버에 연결할 수 없어요. 다시 켜지면 저절로 이어져요.")).to_be_visible()
    expect(ready.locator("#model-button .is-gone")).to_be_visible()
    expect(ready).to_have_title("연결 끊김 · Ondol")
    stub.phase = "loading"
    stub.start()
    expect(ready.get_by_text("서버가 첫 모델을 올리고 있어요.")).to_be_visible()
    stub.phase = "ready"
    expect(ready.get_by_text("서버에 다시 연결됐어요.")).to_be_visible()
    expect(ready.locator("#model-button .is-loaded")).to_be_visible()
    expect(ready).to_have_title("Ondol")


@pytest.mark.slow
def test_figures_tell_draft_speed_and_context(ready, stub):
    ready.locator("#model-button .is-loaded").wait_for()
    ready.fill("#composer-input", "안녕하세요")
    expect(ready.locator(".gauge-draft")).to_have_text("3토큰, 글자당 0.6")
    answer = Answer(pieces=("가", "나", "다", "라"), hold_at=3)
    stub.answers.append(answer)
    ready.keyboard.press("Enter")
    expect(ready.locator(".gauge-draft")).to_be_hidden()
    expect(ready.locator(".gauge-speed")).to_contain_text("첫 토큰")
    answer.resume.set()
    meter = ready.get_by_role("meter", name="컨텍스트 사용량")
    expect(meter).to_have_attribute("aria-valuenow", "14")
    expect(meter).to_contain_text("14 / 4,096")


def test_shortcuts_work_in_the_hangul_layout_and_not_in_a_composition(ready):
    press = """([code, key, options]) => document.activeElement.dispatchEvent(
      new KeyboardEvent('keydown', { code, key, bubbles: true, cancelable: true, ...options }))"""
    ready.focus("#composer-input")
    ready.evaluate(press, ["KeyK", "ㅏ", {"ctrlKey": True, "isComposing": True}])
    expect(ready.locator("#composer-input")).to_be_focused()
    ready.evaluate(press, ["KeyK", "ㅏ", {"ctrlKey": True}])
    expect(ready.locator("#sidebar-search")).to_be_focused()
    ready.keyboard.press("Shift+Escape")
    expect(ready.locator("#composer-input")).to_be_focused()
    ready.keyboard.press("?")
    expect(ready.locator("#composer-input")).to_have_value("?")
    ready.keyboard.press("Control+/")
    expect(ready.get_by_role("dialog", name="단축키")).to_be_visible()
    ready.keyboard.press("Control+k")
    expect(ready.get_by_role("dialog", name="단축키")).to_be_visible()
    ready.keyboard.press("Escape")
    expect(ready.locator("#composer-input")).to_be_focused()
    ready.keyboard.press("Control+b")
    expect(ready.locator("#sidebar")).to_have_attribute("inert", "")
    ready.keyboard.press("Control+k")
    expect(ready.locator("#sidebar-search")).to_be_focused()
