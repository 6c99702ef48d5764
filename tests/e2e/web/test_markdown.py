"""Markdown in a browser while it is being written: what stays, what changes, what is loaded when."""

import shutil

import pytest
from playwright.sync_api import expect
from support.chat_page import ChatPage
from support.scripted_answer import Answer
from support.stub_daemon import StubDaemon

from ondol.api.web_page import FOLDER

# begin() puts an empty element on the page and show(text, isFinal) renders into it. Once per page: the
# policy allows one sanitizer.
PREPARE = """
async () => {
  const { createMarkdown } = await import("/markdown.js");
  const words = { "code.copy": "복사", "code.copied": "복사했어요" };
  window.isUnavailable = false;
  const onUnavailable = () => (window.isUnavailable = true);
  const markdown = createMarkdown({ t: (key) => words[key] ?? key, onUnavailable });
  window.begin = () => {
    window.shown = document.createElement("div");
    document.body.replaceChildren(window.shown);
  };
  window.begin();
  window.show = (text, isFinal = false) => markdown.render(window.shown, text, { isFinal });
}
"""


@pytest.fixture(scope="module")
def page(shared_page):
    shared_page.evaluate(PREPARE)
    return shared_page


@pytest.fixture
def show(page):
    page.evaluate("begin()")
    page.evaluate("show('**준비**')")
    page.wait_for_function("() => shown.querySelector('strong')")
    page.evaluate("begin()")

    def run(text, is_final=False):
        page.evaluate("([text, isFinal]) => show(text, isFinal)", [text, is_final])

    return run


def test_closed_blocks_keep_their_nodes_and_the_open_one_its_text(page, show):
    show("첫째 **문단**.\n\n- 항목 하나\n- 둘")
    page.evaluate(
        """() => {
          window.paragraph = shown.querySelector("p");
          window.item = shown.querySelector("li");
          window.text = shown.querySelectorAll("li")[1].firstChild;
          getSelection().selectAllChildren(window.item);
        }"""
    )
    for text in ("둘째", "둘째 항목", "둘째 항목\n- 셋"):
        show(f"첫째 **문단**.\n\n- 항목 하나\n- {text}")
    assert page.evaluate("shown.querySelector('p') === paragraph && shown.querySelector('li') === item")
    assert page.evaluate("shown.querySelectorAll('li')[1].firstChild === text")
    assert page.evaluate("getSelection().toString()").strip() == "항목 하나"
    assert page.locator("li").all_inner_texts() == ["항목 하나", "둘째 항목", "셋"]


def test_an_answer_that_grew_is_the_same_as_the_whole_one(page, show):
    items = "\n".join(f"{index}. **항목**과 $x_{index}$\n   - 안쪽" for index in range(3, 9))
    table = "| 가 | 나 |\n|:-:|--:|\n" + "\n".join(f"| {index} | `{index}` |" for index in range(5))
    text = f"앞글 $y$\n\n{items}\n\n{table}\n\n- 느슨한\n\n- 목록\n\n```js\nlet x = 1;\n```\n\n> 인용\n\n끝"
    for end in range(1, len(text), 4):
        show(text[:end])
    show(text, is_final=True)
    page.wait_for_selector("code .hljs-keyword")
    page.wait_for_function("() => shown.querySelectorAll('math').length === 7")
    grown = page.evaluate("shown.innerHTML")
    page.evaluate("begin()")
    show(text, is_final=True)
    page.wait_for_selector("code .hljs-keyword")
    assert page.evaluate("shown.innerHTML") == grown
    assert page.locator("ol").get_attribute("start") == "3"


def test_raw_marks_do_not_flash_while_an_answer_grows(page, show):
    table = "| 이름 | 값 |\n|---|---|\n| 가 | 1 |"
    text = f"**굵은 글**과 `코드`는\n\n{table}\n\n- 하나\n- **둘**\n\n[링크](https://example.com) 끝"
    for end in range(1, len(text)):
        show(text[:end])
        seen = page.evaluate("shown.textContent")
        assert not set("*`|") & set(seen), (text[:end], seen)
    show(text, is_final=True)
    assert page.locator("td").all_inner_texts() == ["가", "1"]


def test_code_is_coloured_once_it_is_closed_and_copied_as_it_was(page, show):
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    show("```python\nx = 1  # 수\n")
    assert page.locator(".code-language").inner_text() == "python"
    assert page.locator("code span").count() == 0
    show("```python\nx = 1  # 수\n```\n\n끝", is_final=True)
    page.wait_for_selector("code .hljs-comment")
    page.get_by_role("button", name="복사").click()
    page.wait_for_selector("text=복사했어요")
    assert page.evaluate("navigator.clipboard.readText()") == "x = 1  # 수"


def test_formulas_are_set_as_mathml_and_wrong_ones_stay_text(page, show):
    show(r"식 $\frac{a}{b}$와 $\nope{a}_^$ 그리고 $$\sqrt 2$$", is_final=True)
    page.wait_for_selector("mfrac, msqrt", state="attached")
    assert page.locator("math").count() == 2
    assert page.locator(".formula-failed").inner_text() == r"\nope{a}_^"
    assert page.locator("annotation").count() == 0


def test_links_leave_no_trace_and_lead_nowhere_else(page, show):
    show(
        "[하나](https://example.com/a) [둘](/models) [셋](javascript:alert(1)) <a@example.com>", is_final=True
    )
    links = page.evaluate(
        "[...shown.querySelectorAll('a')].map((a) => [a.getAttribute('href'), a.target, a.rel])"
    )
    outside = ["_blank", "noopener noreferrer nofollow"]
    assert links == [
        ["https://example.com/a", *outside],
        [None, "", ""],
        [None, "", ""],
        ["mailto:a@example.com", *outside],
    ]


@pytest.fixture
def stub_without_packages(tmp_path):
    """Serves the page as it is where npm was missing."""
    folder = tmp_path / "web"
    shutil.copytree(FOLDER, folder, ignore=shutil.ignore_patterns("vendor", "node_modules"))
    with StubDaemon(folder).running() as daemon:
        yield daemon


@pytest.mark.parametrize("api_key", [None, "key"])
def test_without_its_packages_the_page_chats_in_plain_text_and_says_so(
    stub_without_packages, open_page, api_key
):
    stub_without_packages.answers = [Answer(("**굵게**", " <b>\n", "둘째 줄"))]
    stub_without_packages.api_key = api_key
    page = open_page(stub_without_packages.url)
    if api_key is not None:
        page.get_by_role("dialog").get_by_label("API 키").fill(api_key)
        page.keyboard.press("Enter")
        expect(page.get_by_role("dialog")).to_have_count(0)
    chat = ChatPage(page)
    chat.ask("안녕")
    shown = chat.wait_for_answer("둘째 줄").locator(".message-content")
    expect(page.get_by_role("status").filter(has_text="make web-setup")).to_be_visible()
    assert shown.inner_text() == "**굵게** <b>\n둘째 줄"
