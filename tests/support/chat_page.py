"""The web chat as its reader handles it: by what buttons are called and what is to be read.

Knows nothing about daemons. Invariant: it waits for what is seen, never for a while.
"""

from playwright.sync_api import Locator, Page, Route, expect
from support.daemon import poll

KEPT = """(words) => new Promise((resolve, reject) => {
  const opening = indexedDB.open("ondol");
  opening.onerror = () => reject(opening.error);
  opening.onsuccess = () => {
    const reading = opening.result.transaction("settings").objectStore("settings").getAll();
    reading.onsuccess = () => {
      opening.result.close();
      resolve(reading.result.some((value) => value?.content?.includes(words)));
    };
  };
})"""

# A model that ends as it likes may end before it is stopped, or say nothing where it is to go on. This one
# writes something with every token, up to the end of its context.
LETTERS = {"response_format": {"type": "regex", "regex": "[a-z]{10000}"}}


def ask_for_letters(route: Route) -> None:
    """Sends the page's request and how to answer it. It runs while the test waits for Playwright."""
    route.continue_(post_data=route.request.post_data_json | LETTERS)


# What `open_page` takes as its route: the page's answers do not depend on what a real model likes to say.
ENDLESS_LETTERS = ("**/v1/chat/completions", ask_for_letters)


class ChatPage:
    """One open page."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.box = page.locator("#composer-input")
        self.log = page.get_by_role("log")
        self.questions = page.locator(".message.is-user")
        self.answers = page.locator(".message.is-assistant")

    def begin(self) -> "ChatPage":
        """A new chat that can be typed into."""
        self.press("새 대화")
        expect(self.log).to_contain_text("무엇을 도와드릴까요?")
        self.box.focus()
        expect(self.box).to_be_focused()
        return self

    def ask(self, text: str) -> None:
        """Type and send."""
        self.box.fill(text)
        self.box.press("Enter")

    def wait_for_answer(self, text: str) -> Locator:
        """The newest answer, once it holds `text` and nobody writes on it."""
        answer = self.answers.last
        expect(answer.locator(".message-content")).to_contain_text(text)
        expect(answer.locator(".message-actions:not(.message-writing)")).to_be_visible()
        return answer

    def press(self, name: str, within: Locator | None = None) -> None:
        """Press the button of this name, hovering first where that is what shows it."""
        root = within or self.page
        if within is not None:
            within.hover()
        root.get_by_role("button", name=name, exact=True).click()

    def texts(self) -> list[str]:
        """What is said in the open branch."""
        return self.page.locator(".message-bubble, .message-content").all_inner_texts()

    def wait_until_kept(self, words: str) -> None:
        """Until the browser's database holds an unfinished answer with these words."""
        poll(lambda: self.page.evaluate(KEPT, words), bool)
