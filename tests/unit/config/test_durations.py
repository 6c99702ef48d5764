import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ondol.config.durations import Duration, duration_text, parse_duration


@pytest.mark.parametrize(
    ("given_value", "seconds"),
    [
        (300, 300),
        (2.5, 2.5),
        (0, 0),
        ("0", 0),
        ("300", 300),
        ("5m", 300),
        (" 5M ", 300),
        ("1h30m", 5400),
        ("1.5h", 5400),
        ("90s", 90),
        ("250ms", 0.25),
        ("1d", 86400),
        (-1, math.inf),
        ("-1", math.inf),
        (-0.5, math.inf),
        (math.inf, math.inf),
    ],
)
def test_people_write_durations_in_these_ways(given_value, seconds):
    assert parse_duration(given_value) == seconds


@pytest.mark.parametrize("nonsense", ["", "m", "5 minutes", "5x", "1h-30m", "nan", True, None, [5], math.nan])
def test_anything_else_is_refused_with_what_is_accepted(nonsense):
    with pytest.raises(ValueError, match='give seconds, "5m"'):
        parse_duration(nonsense)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(600, "10m"), (5400, "1h30m"), (61, "1m1s"), (0, "0"), (2.5, "2.5s"), (math.inf, "-1")],
)
def test_they_are_shown_as_they_are_written(seconds, text):
    assert duration_text(seconds) == text
    assert str(Duration(seconds)) == text


@given(st.integers(0, 10**7) | st.just(math.inf))
def test_what_is_shown_is_read_back(seconds):
    assert parse_duration(duration_text(seconds)) == seconds
