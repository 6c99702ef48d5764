"""Counts of a growing sequence are those of the whole of it."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from ondol.engine.token_counts import FIRST_CAPACITY, TokenCounts

# Few ids that often come again, and enough of them to outgrow the first arrays.
TOKENS = st.lists(st.integers(0, 4 * FIRST_CAPACITY), max_size=3 * FIRST_CAPACITY)


@given(start=st.integers(0, 5), parts=st.lists(TOKENS, max_size=6))
def test_counts_are_those_of_the_sequence_whatever_it_grew_by(start, parts):
    tokens = [7] * start
    counts = TokenCounts(start)
    for part in parts:
        tokens += part
        counts.catch_up(tokens)
        found = dict(zip(counts.ids.tolist(), counts.counts.tolist(), strict=True))
        assert found == Counter(tokens[start:])
