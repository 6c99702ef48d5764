"""What streaming an answer into a long conversation costs the page's main thread.

Knows nothing about a real model: a scripted daemon streams at an even pace. Invariant: the conversation is
stored and opened by the page's own code, and the measured time begins when it is shown and still.
"""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, expect
from support.daemon import poll
from support.scripted_answer import Answer
from support.stub_daemon import StubDaemon

from benchmarks.web.main_thread import traced
from benchmarks.web.page_load import COMPOSER, page_files

ANSWER = Path(__file__).with_name("answer.md")
# About what a tokenizer that knows Korean makes of it.
CHARACTERS_PER_TOKEN = 2
LAST_WORDS = "끝이에요"
# Saving, colouring and the like, after the last token.
SETTLING_S = 2.0

SEED = """async ([numMessages, answer]) => {
  const { append, createConversation, newId } = await import("/conversation.js");
  const { openStore } = await import("/store/store.js");
  let conversation = createConversation({ title: "긴 대화", modelId: "stub" });
  for (let index = 0; index < numMessages; index++) {
    const message = index % 2
      ? { role: "assistant", content: answer, finishReason: "stop", modelId: "stub" }
      : { role: "user", content: `물음 ${index}: 온돌을 다시 설명해 주세요.` };
    ({ conversation } = append(conversation, message));
  }
  await (await openStore({ newId })).save(conversation);
  return conversation.id;
}"""


# How fast this machine runs one fixed piece of JavaScript, beside every figure.
CALIBRATE = """() => {
  const times = [];
  for (let round = 0; round < 5; round++) {
    const begin = performance.now();
    let hash = 0;
    for (let index = 0; index < 20_000_000; index++) hash = (hash * 31 + index) | 0;
    times.push(performance.now() - begin + (hash === 1 ? 1 : 0));
  }
  return Math.min(...times);
}"""


@dataclass(frozen=True, slots=True)
class StreamingRun:
    """One workload: `num_messages` are there already, `num_tokens` come at `tokens_per_s`."""

    num_messages: int
    num_tokens: int
    tokens_per_s: float

    def measure(self, browser: Browser, stub: StubDaemon) -> dict[str, Any]:
        """Store, open, stream; raises where the page does not show the whole answer."""
        with browser.new_context(locale="ko-KR", viewport={"width": 1280, "height": 900}) as context:
            page = context.new_page()
            self._open(page, stub)
            before_ms = page.evaluate(CALIBRATE)
            stub.answers = [Answer(self._pieces(), tokens_per_s=self.tokens_per_s)]
            page.locator(COMPOSER).fill("처음부터 끝까지 다시 설명해 주세요.")
            with traced(browser, page) as tasks:
                self._stream(page, stub)
            expect(page.locator(".message.is-assistant").last).to_contain_text(LAST_WORDS)
            after_ms = page.evaluate(CALIBRATE)
            return {
                "main_thread": tasks.summary(),
                "calibration_ms": {"before": round(before_ms, 1), "after": round(after_ms, 1)},
                "num_elements": page.evaluate("document.querySelectorAll('*').length"),
                "files": dict(page_files(page)),
            }

    def _open(self, page: Page, stub: StubDaemon) -> None:
        page.goto(stub.url)
        page.wait_for_selector(COMPOSER)
        text = ANSWER.read_text(encoding="utf-8")
        conversation_id = page.evaluate(SEED, [self.num_messages, text])
        page.goto(f"{stub.url}/#c={conversation_id}")
        page.reload()
        page.wait_for_selector(".message.is-assistant math", state="attached")
        # Highlighting and other idle work of the messages in view is over.
        page.wait_for_selector(".message.is-assistant .hljs-comment")
        page.wait_for_timeout(1000)

    def _stream(self, page: Page, stub: StubDaemon) -> None:
        """Nothing is asked of the page meanwhile: looking for text in it would be its longest task."""
        num_ended = stub.num_ended
        page.keyboard.press("Enter")
        expected_s = self.num_tokens / self.tokens_per_s
        poll(lambda: stub.num_ended, lambda number: number > num_ended, timeout_s=10 + 3 * expected_s)
        time.sleep(SETTLING_S)

    def _pieces(self) -> tuple[str, ...]:
        text = ANSWER.read_text(encoding="utf-8")
        length = self.num_tokens * CHARACTERS_PER_TOKEN
        long = (text * (length // len(text) + 1))[:length] + f"\n\n{LAST_WORDS}"
        return tuple(long[i : i + CHARACTERS_PER_TOKEN] for i in range(0, len(long), CHARACTERS_PER_TOKEN))
