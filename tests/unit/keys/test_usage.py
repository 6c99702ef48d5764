"""Limits per key: minutes' worth of requests and tokens, and answers at the same time."""

from contextlib import ExitStack, suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ondol.errors import KeyLimitReached
from ondol.keys.key_store import KeyLimits
from ondol.keys.usage import MINUTE_S, KeyUsage


class Clock:
    now_s = 1000.0

    def __call__(self):
        return self.now_s


@pytest.fixture
def clock():
    return Clock()


def let_in(usage):
    with usage.request():
        pass


def test_a_minutes_worth_of_requests_is_let_in_and_then_one_each_time_it_flows_back(clock):
    usage = KeyUsage(KeyLimits(requests_per_minute=6), clock)
    for _ in range(6):
        let_in(usage)
    with pytest.raises(KeyLimitReached) as refusal:
        let_in(usage)
    assert refusal.value.retry_after_s == 10
    clock.now_s += refusal.value.retry_after_s
    let_in(usage)
    with pytest.raises(KeyLimitReached):
        let_in(usage)


def test_tokens_are_owed_after_they_are_spent(clock):
    usage = KeyUsage(KeyLimits(tokens_per_minute=600), clock)
    let_in(usage)
    usage.spend(1200)
    with pytest.raises(KeyLimitReached, match="600 tokens per minute") as refusal:
        let_in(usage)
    clock.now_s += refusal.value.retry_after_s
    let_in(usage)


def test_as_many_answers_at_a_time_as_the_key_allows(clock):
    usage = KeyUsage(KeyLimits(max_concurrency=2), clock)
    with ExitStack() as stack:
        stack.enter_context(usage.request())
        stack.enter_context(usage.request())
        with pytest.raises(KeyLimitReached, match="2 concurrent requests at a time"):
            let_in(usage)
    let_in(usage)


def test_a_request_that_fails_gives_its_place_back(clock):
    usage = KeyUsage(KeyLimits(max_concurrency=1), clock)
    with pytest.raises(ZeroDivisionError), usage.request():
        raise ZeroDivisionError
    assert usage.num_open == 0


def test_headers_tell_limits_and_what_remains(clock):
    usage = KeyUsage(KeyLimits(requests_per_minute=10, tokens_per_minute=100), clock)
    let_in(usage)
    usage.spend(30)
    assert usage.headers() == {
        "x-ratelimit-limit-requests": "10",
        "x-ratelimit-remaining-requests": "9",
        "x-ratelimit-limit-tokens": "100",
        "x-ratelimit-remaining-tokens": "70",
    }
    assert KeyUsage(KeyLimits(), clock).headers() == {}


@given(st.integers(1, 30), st.lists(st.floats(0, 20), max_size=60))
def test_no_minute_lets_in_more_than_twice_the_limit(limit, pauses):
    clock = Clock()
    usage = KeyUsage(KeyLimits(requests_per_minute=limit), clock)
    let_in_at = []
    for pause in pauses:
        clock.now_s += pause
        with suppress(KeyLimitReached):
            let_in(usage)
            let_in_at.append(clock.now_s)
    for begin in let_in_at:
        assert sum(begin <= moment < begin + MINUTE_S for moment in let_in_at) <= 2 * limit
