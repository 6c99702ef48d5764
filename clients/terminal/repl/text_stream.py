"""Makes a stream of text fit for a terminal: whole characters, and no orders to the terminal.

Knows nothing about where the text comes from or goes. Invariant: what comes out concatenates to what
went in, but for carriage returns, and for control characters, which become visible.
"""

from wcwidth import iter_graphemes

# Nothing that follows changes the cell of one of these: Latin letters (terminals put accents onto them),
# CJK marks, kana, single jamo and ideographs, and whole Hangul syllables.
SETTLED = (range(0x300), range(0x3000, 0xA000), range(0xAC00, 0xD7A4))
HIGH_SURROGATES = range(0xD800, 0xDC00)
SURROGATES = range(0xD800, 0xE000)
# A model could otherwise clear the screen, set the title or fill the clipboard of whoever reads it.
VISIBLE_CONTROLS = {
    **{code: 0x2400 + code for code in range(0x20) if chr(code) not in "\t\n"},
    0x7F: 0x2421,
    **dict.fromkeys(range(0x80, 0xA0), 0xFFFD),
    ord("\r"): None,
}


class TextStream:
    """Holds back the last character while what comes next may still become part of it.

    So a syllable of conjoining jamo, an emoji of several parts or one sent as two surrogates is written
    at once.
    """

    def __init__(self) -> None:
        self._held = ""

    def push(self, text: str) -> str:
        """The text that is settled now."""
        text = self._held + text
        self._held = ""
        if text and ord(text[-1]) in HIGH_SURROGATES:
            text, self._held = text[:-1], text[-1]
        text = _paired(text)
        if text and not self._held and not _is_settled(text[-1]):
            *_, last = iter_graphemes(text)
            text, self._held = text[: -len(last)], last
        return text.translate(VISIBLE_CONTROLS)

    def flush(self) -> str:
        """The rest, when nothing follows."""
        rest, self._held = self._held, ""
        return _paired(rest).translate(VISIBLE_CONTROLS)


def is_valid(text: str) -> bool:
    """Whether the text can be sent: what was not UTF-8 when it was typed cannot."""
    return not any(ord(character) in SURROGATES for character in text)


def _is_settled(character: str) -> bool:
    return any(ord(character) in codes for codes in SETTLED)


def _paired(text: str) -> str:
    """Halves of characters joined; a half by itself becomes U+FFFD."""
    if text.isascii():
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
