"""Prompts have the wanted length by the server's count."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ondol.bench.plan import PlannedRequest
from ondol.bench.prompts import PromptWriter, words_for


def test_equal_keys_give_equal_words_and_other_keys_others():
    assert words_for("a", 30) == words_for("a", 30)
    assert words_for("a", 30) != words_for("b", 30)


@given(st.integers(20, 3000), st.sampled_from([1.0, 1.25, 2.0]), st.integers(0, 15))
def test_a_calibrated_writer_hits_the_wanted_length(wanted, tokens_per_word, overhead):
    def count(num_words: int) -> int:
        return round(num_words * tokens_per_word) + overhead

    writer = PromptWriter.calibrated((40, count(40)), (240, count(240)))
    text = writer.write(PlannedRequest("chat", "k", wanted, 1))
    assert abs(count(len(text.split())) - wanted) <= tokens_per_word + 1


def test_requests_that_share_a_prefix_begin_alike_and_end_apart():
    writer = PromptWriter(tokens_per_word=1.0, overhead_tokens=4)
    first, second = (
        writer.write(PlannedRequest("chat", key, 164, 1, "shared", 100)).split() for key in ("a", "b")
    )
    assert first[:100] == second[:100]
    assert first[100:] != second[100:]
    assert len(first) == 160


@pytest.mark.parametrize("wanted", [0, 1, 5])
def test_a_prompt_shorter_than_the_template_still_has_a_word(wanted):
    assert PromptWriter(1.0, 10).write(PlannedRequest("chat", "k", wanted, 1))
