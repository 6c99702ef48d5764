"""Takes the pictures of the web chat that the documentation shows: `make screenshots`.

The page is the real one and the daemon is scripted, so the same page makes the same pictures. Knows nothing
about what is tested. Invariant: every picture waits for what it shows.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, expect, sync_playwright
from support.browsers import browser_path
from support.kept_talks import Talk, keep_talks
from support.scripted_answer import Answer
from support.stub_daemon import StubDaemon, error_object, model_entry

WIDE = {"width": 1280, "height": 880}
PHONE = {"width": 360, "height": 740}

TALKS = (
    Talk("거래처에 보낼 메일", "회의를 다음 주로 미루자고 써 줘.", 0, is_pinned=True),
    Talk("김치찌개 끓이는 법", "돼지고기 없이 끓이고 싶어.", 0),
    Talk("경주 2박 3일", "부모님과 갈 거야.", 1),
    Talk("정규식으로 전화번호 찾기", "010-1234-5678 같은 번호야.", 1),
    Talk("양자 컴퓨터란", "중학생도 알아듣게 설명해 줘.", 4),
    Talk("자기소개서 다듬기", "세 문장으로 줄여 줘.", 20),
)
QUESTION = "CSV에서 부서별 평균 급여를 구하는 파이썬 코드를 짜 줘."
ANSWER = """`csv` 모듈만으로 구할 수 있어요. **부서**마다 합계와 사람 수를 세면 돼요.

```python
import csv
from collections import defaultdict

salaries = defaultdict(list)
with open("people.csv", encoding="utf-8") as file:
    for row in csv.DictReader(file):
        salaries[row["부서"]].append(int(row["급여"]))

for team, values in salaries.items():
    print(f"{team}: {sum(values) / len(values):,.0f}원")
```

예시 데이터로 돌리면 이렇게 나와요.

| 부서 | 사람 | 평균 급여 |
|---|--:|--:|
| 개발 | 12 | 5,420,000원 |
| 디자인 | 5 | 4,870,000원 |
"""

LOADED = model_entry("qwen2.5-7b-instruct") | {
    "quantization": "nf4",
    "max_model_len": 32768,
    "device": "cuda",
    "memory": {
        "weights_bytes": 4_900_000_000,
        "kv_cache_bytes": 1_870_000_000,
        "workspace_bytes": 310_000_000,
        "total_bytes": 7_080_000_000,
    },
}
WEIGHTS = {"stages": ["starting", "waiting", "weights"], "current": "weights", "value": 0.62}
TOO_LARGE = {"message": "It needs 21.4 GiB.", "type": "", "param": "model", "code": "model_does_not_fit"}
MODELS = [
    LOADED,
    model_entry("llama-3.2-korean-bllossom-3b", "loading", progress=WEIGHTS),
    model_entry("starter", "unloaded"),
    model_entry("qwen2.5-32b-instruct", "unloaded", failed=True, exit_code=5, error=TOO_LARGE),
    model_entry("mistral-7b-instruct-v0.3", "unloaded") | {"in_cache": False},
]


class Studio:
    """A scripted daemon and a browser; `take` makes one picture."""

    def __init__(self, browser: Browser, stub: StubDaemon, folder: Path) -> None:
        self._browser = browser
        self._stub = stub
        self._folder = folder

    def take(self, name: str, pose: Callable[[Page, StubDaemon], Any], **context: Any) -> None:
        """Open the page for somebody who has talked before, have it pose, and take its picture."""
        options = {"locale": "ko-KR", "viewport": WIDE, "reduced_motion": "reduce"} | context
        opened = self._browser.new_context(**options)
        page = opened.new_page()
        page.goto(self._stub.url)
        keep_talks(page, TALKS)
        pose(page, self._stub)
        page.screenshot(path=self._folder / f"{name}.png")
        opened.close()


def empty(page: Page, _: StubDaemon) -> None:
    """Before anything was said."""
    page.locator("#model-button .is-loaded").wait_for()
    page.locator(".conversation").last.wait_for(state="attached")


def ask(page: Page, text: str) -> None:
    """With the button: where fingers type, Enter is a new line."""
    page.fill("#composer-input", text)
    page.get_by_role("button", name="보내기").click()


def chat(page: Page, stub: StubDaemon) -> None:
    """An answer with code and a table."""
    empty(page, stub)
    stub.answers.append(Answer(tuple(line + "\n" for line in ANSWER.split("\n"))))
    ask(page, QUESTION)
    page.locator(".message-actions:not(.message-writing)").last.wait_for()
    page.wait_for_selector(".hljs-keyword")
    page.mouse.move(0, 0)


def drawer(page: Page, stub: StubDaemon) -> None:
    """The list of conversations on a phone."""
    empty(page, stub)
    page.get_by_role("button", name="대화 목록 열기").click()
    expect(page.locator(".sidebar-frame")).to_have_class("sidebar-frame is-open")


def models(page: Page, stub: StubDaemon) -> None:
    """The list of models while one is loaded."""
    chat(page, stub)
    page.click("#model-button")
    expect(page.locator("#model-list")).to_be_focused()
    page.keyboard.press("End")
    page.keyboard.press("ArrowUp")
    page.keyboard.press("ArrowUp")
    page.get_by_role("button", name="들어갈지 확인").click()
    page.get_by_text("들어가요.").wait_for()


def search(page: Page, stub: StubDaemon) -> None:
    """Found by initial consonants."""
    empty(page, stub)
    page.fill("#sidebar-search", "ㅈㅎ")
    page.locator(".conversation mark").first.wait_for()


def settings(page: Page, stub: StubDaemon) -> None:
    """One conversation's own settings."""
    chat(page, stub)
    page.get_by_role("button", name="이 대화의 설정").click()
    page.get_by_label("시스템 프롬프트").fill("항상 존댓말로, 코드에는 주석을 달아 답해 줘.")
    page.get_by_label("온도").fill("0.3")
    expect(page.get_by_label("누적 확률")).to_have_attribute("placeholder", "0.9")


def key(page: Page, stub: StubDaemon) -> None:
    """The daemon wants an API key."""
    stub.api_key = "another"
    page.reload()
    field = page.get_by_role("dialog").get_by_label("API 키")
    field.fill("mistyped")
    page.keyboard.press("Enter")
    page.get_by_text("서버가 모르는 키예요.").wait_for()
    stub.api_key = None


def gone(page: Page, stub: StubDaemon) -> None:
    """The daemon went away in the middle of an answer."""
    empty(page, stub)
    stub.answers.append(Answer(("좋아요. 며칠 동안 다녀오세요?",)))
    ask(page, "부모님과 경주에 가려고 해.")
    page.get_by_role("log").get_by_text("며칠 동안").wait_for()
    pieces = ("부모님과 함께라면 ", "첫날은 대릉원과 첨성대를 ", "천천히 걷는", " 길이 좋아요.")
    # The page asks again at once, maybe before the daemon is gone.
    refusal = (503, error_object("The server is shutting down.", "shutting_down"))
    stub.answers += [Answer(pieces, tokens_per_s=30, hold_at=3, cut_at=3), *[Answer(refusal=refusal)] * 5]
    ask(page, "2박 3일. 첫날 일정부터 짜 줘.")
    page.get_by_text("천천히 걷는").first.wait_for()
    stub.stop()
    page.get_by_text("서버에 연결할 수 없어요.").wait_for()
    page.get_by_text("다시 연결되면 이어서").wait_for()
    stub.answers.clear()
    stub.start()


def take_all(folder: Path) -> None:
    """Write every picture into the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    path = browser_path()
    if path is None:
        raise SystemExit("no Chromium on the PATH; `make browser-setup` installs one where it can")
    phone = {"viewport": PHONE, "has_touch": True, "is_mobile": True, "device_scale_factor": 2}
    with StubDaemon().running() as stub, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        stub.models = MODELS
        studio = Studio(browser, stub, folder)
        studio.take("gone", gone)
        studio.take("empty", empty)
        studio.take("chat", chat)
        studio.take("chat-dark", chat, color_scheme="dark")
        studio.take("chat-phone", chat, **phone)
        studio.take("list-phone", drawer, color_scheme="dark", **phone)
        studio.take("models", models)
        studio.take("models-dark", models, color_scheme="dark")
        studio.take("search", search)
        studio.take("settings", settings)
        studio.take("key", key)
        browser.close()


if __name__ == "__main__":
    take_all(Path(sys.argv[1]))
