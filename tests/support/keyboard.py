"""A Korean input method over the DevTools protocol: syllables that grow, and keys that belong to it.

Knows nothing about the page. Invariant: it sends what browsers report, in their order.
"""

from playwright.sync_api import Page


class Keyboard:
    """The keyboard of one page; what is typed goes to the focused field."""

    # What Windows and macOS report for a key that the input method takes.
    PROCESS_KEY = 229
    ENTER_KEY = 13

    def __init__(self, page: Page) -> None:
        self._session = page.context.new_cdp_session(page)

    def compose(self, *steps: str) -> None:
        """Grow one syllable: "ㅎ", "하", "한"."""
        for text in steps:
            selection = {"selectionStart": len(text), "selectionEnd": len(text)}
            self._session.send("Input.imeSetComposition", {"text": text, **selection})

    def commit(self, text: str) -> None:
        """End the composition with this text."""
        self._session.send("Input.insertText", {"text": text})

    def enter(self, key_code: int = ENTER_KEY) -> None:
        """Press Enter; `PROCESS_KEY` is what a page sees while the input method has the key."""
        key = {"key": "Enter", "code": "Enter", "windowsVirtualKeyCode": key_code}
        self._session.send("Input.dispatchKeyEvent", {"type": "rawKeyDown", **key})
        if key_code == self.ENTER_KEY:
            self._session.send("Input.dispatchKeyEvent", {"type": "char", "text": "\r", **key})
        self._session.send("Input.dispatchKeyEvent", {"type": "keyUp", **key})
