"""The page on a real daemon: typed Hangul in, streamed letters out, and nothing left running."""

import socket

import pytest
from playwright.sync_api import expect
from support.chat_page import ENDLESS_LETTERS, ChatPage
from support.daemon import IDLE, START_TIMEOUT_S, Daemon, poll
from support.keyboard import Keyboard


@pytest.fixture(scope="module")
def shared_page(starter_daemon, open_shared_page):
    return open_shared_page(starter_daemon.url, ENDLESS_LETTERS)


@pytest.fixture
def chat(shared_page):
    return ChatPage(shared_page).begin()


def test_composed_hangul_is_sent_once_whole_and_answered(starter_daemon, chat):
    keyboard = Keyboard(chat.page)
    before = starter_daemon.metrics().get("ondol_requests_total", 0)
    for syllable in (("ㅇ", "아", "안"), ("ㄴ", "녀", "녕")):
        keyboard.compose(*syllable)
        keyboard.commit(syllable[-1])
    keyboard.compose("ㅎ", "하", "해")
    keyboard.enter(Keyboard.PROCESS_KEY)
    keyboard.commit("해")
    expect(chat.questions).to_have_count(0)
    keyboard.enter()
    expect(chat.questions).to_have_text(["안녕해"])
    expect(chat.box).to_have_value("")
    expect(chat.answers.last.locator(".message-content")).not_to_be_empty()
    chat.box.press("Escape")
    starter_daemon.wait_for_metrics(IDLE)
    assert starter_daemon.metrics()["ondol_requests_total"] == before + 1


def test_a_stopped_answer_is_aborted_in_the_daemon(starter_daemon, chat):
    before = starter_daemon.num_aborted()
    chat.ask("끝없이 써 줘.")
    expect(chat.answers.last.locator(".message-content")).not_to_be_empty()
    chat.press("답 멈추기")
    poll(starter_daemon.num_aborted, lambda number: number == before + 1)
    starter_daemon.wait_for_metrics(IDLE)
    expect(chat.answers.last).to_contain_text("멈추기를 눌러서")


@pytest.mark.slow
@pytest.mark.timeout(3 * START_TIMEOUT_S)
def test_an_answer_goes_on_when_a_killed_daemon_is_back(starter_folder, open_page):
    """Slow: it starts two daemons with the starter model."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = str(probe.getsockname()[1])
    options = ("starter", "--port", port, "--kv-cache-memory", "256MiB", "--max-model-len", "1024")
    with Daemon(*options) as first:
        chat = ChatPage(open_page(first.wait_until_serving().url, ENDLESS_LETTERS))
        chat.ask("끝없이 써 줘.")
        words = chat.answers.last.locator(".message-content")
        expect(words).not_to_be_empty()
        first.process.kill()
        expect(chat.answers.last).to_contain_text("다시 연결되면")
    kept = words.inner_text()
    with Daemon(*options) as second:
        second.wait_until_serving()
        poll(words.inner_text, lambda text: len(text) > len(kept) + 20, timeout_s=60)
        assert words.inner_text().startswith(kept)
        chat.box.press("Escape")
        second.wait_for_metrics(IDLE)
