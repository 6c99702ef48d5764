"""The page's main states before axe-core: nothing that it calls serious, in either theme, wide and narrow."""

from pathlib import Path

import pytest
from playwright.sync_api import expect
from support.chat_page import ChatPage
from support.scripted_answer import Answer
from support.stub_daemon import error_object, model_entry

AXE = Path(__file__).parents[1] / "node_modules" / "axe-core" / "axe.min.js"
NARROW = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True}
WIDE = {"viewport": {"width": 1280, "height": 900}}
MARKDOWN = (
    "# 제목\n\n**굵게** [링크](https://example.com) `코드`\n\n| 가 | 나 |\n|---|---|\n| 1 | 2 |\n\n",
    '```python\n# 주석\nprint("안녕", 1)\n```\n\n> 인용\n\n- 하나\n- 둘\n\n$x^2$\n',
)

pytestmark = pytest.mark.skipif(
    not AXE.is_file(), reason="axe-core is missing; `make node-setup` installs the packages of tests/e2e"
)


# Slow where the same states are looked at again: axe-core takes about a second for each.
LOOKS = [
    "light",
    pytest.param("dark", marks=pytest.mark.slow),
    pytest.param("narrow", marks=pytest.mark.slow),
]


@pytest.fixture(scope="module", params=LOOKS)
def shared_page(request, shared_stub, open_shared_page):
    options = NARROW if request.param == "narrow" else WIDE
    scheme = "dark" if request.param == "dark" else "light"
    return open_shared_page(shared_stub.url, color_scheme=scheme, reduced_motion="reduce", **options)


@pytest.fixture
def chat(stub, shared_page):
    stub.models.append(model_entry("other", "unloaded"))
    shared_page.reload()
    chat = ChatPage(shared_page)
    expect(chat.box).to_be_visible()
    return chat


def findings(page):
    """What axe-core calls serious or worse, with where and why."""
    page.evaluate(AXE.read_text(encoding="utf-8"))
    return page.evaluate(
        """async () => (await axe.run(document, { resultTypes: ["violations"] })).violations
          .filter(({ impact }) => ["serious", "critical"].includes(impact))
          .map(({ id, nodes }) => [id, nodes.map(({ html, failureSummary }) => [html, failureSummary])])"""
    )


def ask(chat, text):
    """With the button: where fingers type, Enter is a new line."""
    chat.box.fill(text)
    chat.press("보내기")


def test_an_empty_chat(chat):
    assert findings(chat.page) == []


def test_an_answer_with_all_that_markdown_has_and_one_that_failed(stub, chat):
    stub.answers = [Answer(MARKDOWN), Answer(refusal=(400, error_object("이유", "model_refused")))]
    ask(chat, "모두 보여 줘")
    chat.wait_for_answer("둘")
    chat.page.wait_for_selector(".hljs-comment")
    chat.page.wait_for_selector("math", state="attached")
    ask(chat, "이제 안 돼")
    expect(chat.answers.last.locator(".ending")).to_be_visible()
    assert findings(chat.page) == []


def test_an_answer_that_is_being_written(stub, chat):
    answer = Answer(("쓰는", " 중"), hold_at=1)
    stub.answers = [answer]
    ask(chat, "천천히")
    expect(chat.answers.last).to_contain_text("쓰는")
    assert findings(chat.page) == []
    answer.resume.set()
    chat.wait_for_answer("쓰는 중")


@pytest.mark.parametrize("button", ["모델 고르기", "이 대화의 설정"])
def test_an_open_panel(chat, button):
    chat.page.get_by_role("button", name=button).click()
    expect(chat.page.locator(":popover-open, dialog[open]").first).to_be_visible()
    assert findings(chat.page) == []


def test_the_question_for_a_key(stub, chat):
    stub.api_key = "secret"
    chat.page.reload()
    expect(chat.page.locator("dialog[open] input").first).to_be_visible()
    assert findings(chat.page) == []
