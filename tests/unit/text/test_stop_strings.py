"""Stop strings against a reference that sees the whole text at once."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ondol.text.stop_strings import StopStringMatcher

# A busy machine must not fail a property: time is not what is tested.
UNTIMED = settings(deadline=None)

# Few letters make overlaps and self-overlapping stop strings likely.
TEXTS = st.text(alphabet="ab안", max_size=30)
STOPS = st.lists(st.text(alphabet="ab안", min_size=1, max_size=5), max_size=4)


def whole_text_reference(text: str, stops: list[str]) -> tuple[str, str | None]:
    for end in range(1, len(text) + 1):
        completed = [stop for stop in stops if text[:end].endswith(stop)]
        if completed:
            longest = max(completed, key=len)
            return text[: end - len(longest)], longest
    return text, None


def feed(stops: list[str], deltas: list[str]) -> tuple[str, str | None]:
    matcher = StopStringMatcher(stops)
    released = ""
    for delta in deltas:
        result = matcher.push(delta)
        released += result.text
        if result.stopped is not None:
            return released, result.stopped
    return released + matcher.flush(), None


@st.composite
def texts_in_deltas(draw):
    text = draw(TEXTS)
    cuts = sorted(draw(st.lists(st.integers(0, len(text)), max_size=6)))
    return [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]


@UNTIMED
@given(STOPS, texts_in_deltas())
def test_result_does_not_depend_on_where_the_text_is_cut(stops, deltas):
    assert feed(stops, deltas) == whole_text_reference("".join(deltas), stops)


@UNTIMED
@given(STOPS, TEXTS)
def test_only_what_may_still_become_a_stop_string_is_held_back(stops, text):
    matcher = StopStringMatcher(stops)
    released = ""
    for index, character in enumerate(text, start=1):
        result = matcher.push(character)
        if result.stopped is not None:
            return
        released += result.text
        held = text[len(released) : index]
        proper_prefixes = {stop[:length] for stop in stops for length in range(len(stop))}
        longest = max(
            (prefix for prefix in proper_prefixes if text[:index].endswith(prefix)), key=len, default=""
        )
        assert held == longest


def test_stop_string_is_found_across_deltas_and_not_emitted():
    matcher = StopStringMatcher(["사용자:"])
    assert matcher.push("좋아요.\n사용").text == "좋아요.\n"
    result = matcher.push("자: 다음")
    assert (result.text, result.stopped) == ("", "사용자:")


def test_held_text_is_released_when_it_turns_out_harmless():
    matcher = StopStringMatcher(["###"])
    assert matcher.push("a##").text == "a"
    assert matcher.push("b").text == "##b"


def test_flush_releases_a_half_finished_stop_string():
    matcher = StopStringMatcher(["###"])
    assert matcher.push("a##").text == "a"
    assert matcher.flush() == "##"
    assert matcher.flush() == ""


@pytest.mark.parametrize(
    ("stop", "text"),
    [("aab", "aaab"), ("ababc", "abababc"), ("\n\n##", "\n\n\n##"), ("가가나", "가가가가나")],
)
def test_stop_string_that_begins_inside_a_failed_attempt_is_found(stop, text):
    assert feed([stop], list(text)) == (text.removesuffix(stop), stop)


@pytest.mark.parametrize("stops", [["bc", "abcd"], ["abcd", "bc"]])
def test_stop_string_that_completes_first_wins_over_one_that_starts_earlier(stops):
    assert feed(stops, ["xabcd"]) == ("xa", "bc")


def test_of_stop_strings_completed_by_one_character_the_longest_wins():
    assert feed(["c", "abc", "bc"], ["xabc"]) == ("x", "abc")


def test_text_after_the_stop_is_swallowed():
    matcher = StopStringMatcher(["."])
    matcher.push("end.")
    assert matcher.push("more").text == ""
    assert matcher.flush() == ""


def test_text_passes_untouched_without_stop_strings():
    matcher = StopStringMatcher([])
    assert matcher.push("안녕").text == "안녕"
    assert matcher.flush() == ""
