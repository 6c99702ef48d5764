import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wcwidth import iter_graphemes

from ondol.cli.repl.text_stream import TextStream

# Letters of which any may become part of the one before it, or not.
CHARACTERS = st.sampled_from("가한aé \n㉠ㅋ漢\u1112\u1161\u11ab\u0301👨\u200d👩🏽🇰🇷\ufe0f☀")


def pieces(texts):
    stream = TextStream()
    return [*(stream.push(text) for text in texts), stream.flush()]


@given(st.lists(CHARACTERS))
def test_nothing_is_lost_however_it_is_cut(characters):
    assert "".join(pieces(characters)) == "".join(characters)


@given(st.lists(st.sampled_from(["가", "한", " ", "\u1112\u1161\u11ab", "👨\u200d👩", "🇰🇷", "☀\ufe0f", "a"])))
def test_no_character_is_written_in_parts(characters):
    text = "".join(characters)
    written = [piece for piece in pieces(text) if piece]
    assert [grapheme for piece in written for grapheme in iter_graphemes(piece)] == list(iter_graphemes(text))


@pytest.mark.parametrize("text", ["안녕하세요", "hello, ", "漢字。", "ㅋㅋㅋ"])
def test_usual_text_is_written_at_once(text):
    stream = TextStream()
    assert [stream.push(character) for character in text] == list(text)


def test_conjoining_jamo_are_written_as_a_syllable():
    first, second = unicodedata.normalize("NFD", "한"), unicodedata.normalize("NFD", "글")
    assert [piece for piece in pieces(f"{first}{second}.") if piece] == [first, f"{second}."]


def test_halves_of_a_character_are_joined_and_a_lone_one_is_marked():
    assert "".join(pieces(["\ud83d", "\ude00", "\ud83d"])) == "😀\ufffd"


def test_a_model_gives_the_terminal_no_orders():
    shown = "".join(pieces(["\x1b]52;c;", "aGk=\x07 \x1b[2J\x9b31m\r\n\tok\x7f"]))
    assert shown == "␛]52;c;aGk=␇ ␛[2J\ufffd31m\n\tok␡"
