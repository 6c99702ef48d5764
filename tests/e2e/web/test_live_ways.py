"""The page's longer ways on a real daemon with keys and two models: key, branches, reload, a second model.

Slow: a daemon of its own, and a model that is loaded while the page looks on.
"""

import re
import subprocess
import sys

import pytest
from playwright.sync_api import expect
from support.chat_page import ENDLESS_LETTERS, ChatPage
from support.daemon import IDLE, START_TIMEOUT_S, Daemon, clean_environment, poll
from support.served_models import save_served_model

# A daemon and a second engine, each of which may take as long as a start may.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(3 * START_TIMEOUT_S)]

KEY = "sk-ondol-browser-test"


def register(home, folder, name):
    command = [sys.executable, "-m", "ondol", "import", str(folder), "--name", name, "--home", str(home)]
    subprocess.run(command, env=clean_environment(), check=True, stdout=subprocess.DEVNULL)


@pytest.fixture(scope="module")
def daemon(starter_folder, tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    register(home, starter_folder, "first")
    register(home, save_served_model(tmp_path_factory.mktemp("models") / "tiny"), "second")
    options = ("--home", str(home), "--api-key", KEY, "--max-loaded-models", "2", "--max-model-len", "1024")
    with Daemon("first", *options, "--kv-cache-memory", "256MiB") as daemon:
        yield daemon.wait_until_serving()


def statuses(daemon):
    models = daemon.get("models", authorization=f"Bearer {KEY}").json()["data"]
    return {model["id"]: model["status"]["value"] for model in models}


def give_key(page):
    """A wrong key first, then the right one."""
    field = page.get_by_role("dialog").get_by_label("API 키")
    field.fill("wrong")
    page.keyboard.press("Enter")
    expect(page.get_by_text("서버가 모르는 키예요.")).to_be_visible()
    page.keyboard.press("Escape")
    page.get_by_role("button", name="API 키 넣기").first.click()
    field.fill(KEY)
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog")).to_have_count(0)
    expect(page.locator("#model-button")).to_contain_text("first")


def answer_briefly(page):
    page.get_by_role("button", name="이 대화의 설정").click()
    page.get_by_label("온도").fill("0")
    page.get_by_label("최대 길이").fill("24")
    page.keyboard.press("Escape")


def load_second(page, daemon):
    """By the picker, which shows how far it is."""
    page.click("#model-button")
    option = page.get_by_role("option", name=re.compile("second"))
    option.click()
    page.get_by_role("button", name="올리기").click()
    expect(option).to_contain_text(re.compile("올리|올릴"))
    poll(lambda: statuses(daemon)["second"], lambda value: value == "loaded", timeout_s=60)
    expect(page.get_by_role("button", name="내리기")).to_be_visible()
    page.keyboard.press("Escape")


def test_a_key_branches_a_reload_and_a_second_model(daemon, open_page):
    page = open_page(daemon.url, ENDLESS_LETTERS)
    chat = ChatPage(page)
    asked = page.locator(".message-bubble")

    give_key(page)
    answer_briefly(page)
    chat.ask("Count to three.")
    chat.wait_for_answer("")
    daemon.wait_for_metrics(IDLE, api_key=KEY)
    first_texts = chat.texts()
    assert first_texts[1].strip()

    chat.press("고치기", chat.questions.last)
    page.locator(".editor-input").fill("Name two colours.")
    chat.press("고쳐서 묻기")
    expect(asked).to_have_text(["Name two colours."])
    chat.wait_for_answer("")
    daemon.wait_for_metrics(IDLE, api_key=KEY)
    second_texts = chat.texts()
    expect(chat.questions.last).to_contain_text(re.compile(r"2\s*/\s*2"))

    page.reload()
    expect(asked).to_have_text(["Name two colours."])
    assert chat.texts() == second_texts
    chat.questions.last.hover()
    page.get_by_role("button", name="이전 갈래").click()
    expect(asked).to_have_text(["Count to three."])
    assert chat.texts() == first_texts

    load_second(page, daemon)
    chat.press("새 대화")
    chat.ask("안녕")
    expect(chat.answers.last.locator(".message-content")).not_to_be_empty()
    poll(
        lambda: daemon.get("metrics", authorization=f"Bearer {KEY}").text,
        lambda text: re.search(r'^ondol_generation_tokens_total\{model="second"\} [1-9]', text, re.M),
    )
    chat.box.press("Escape")
    daemon.wait_for_metrics(IDLE, api_key=KEY)
