"""Server-sent events are cut right however the bytes are cut."""

from hypothesis import given
from hypothesis import strategies as st

from ondol.bench.sse import EventParser

DATA = st.text(alphabet=st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]), min_size=1)


@given(st.lists(DATA), st.sampled_from(["\n", "\r\n"]), st.lists(st.integers(0, 200)))
def test_events_are_the_same_for_every_way_of_cutting_the_stream(texts, line_end, cuts):
    stream = "".join(f": ping{line_end}data: {text}{line_end}{line_end}" for text in texts).encode()
    parser = EventParser()
    bounds = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    events = [e for i in range(len(bounds) - 1) for e in parser.push(stream[bounds[i] : bounds[i + 1]])]
    assert [event.decode() for event in events] == texts


def test_a_raw_line_separator_in_the_data_does_not_cut_the_event():
    assert EventParser().push('data: {"a":"x\u2028y\x85z"}\n\n'.encode()) == [
        '{"a":"x\u2028y\x85z"}'.encode()
    ]


def test_data_lines_of_one_event_are_joined():
    assert EventParser().push(b"event: x\ndata: one\ndata:two\nid: 3\n\n") == [b"one\ntwo"]


def test_an_event_without_data_is_skipped():
    assert EventParser().push(b"event: ping\n\n: comment\n\n") == []
