from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import httpx2
import pytest
from huggingface_hub.errors import HfHubHTTPError

from ondol.model_manager.hub import retry
from ondol.model_manager.hub.retry import MAX_RETRIES, asked_wait_s, with_patience

REQUEST = httpx2.Request("GET", "https://hub.example")


def response(status=429, **headers):
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx2.Response(status, headers=named, request=REQUEST)


@pytest.fixture
def waits(monkeypatch):
    slept_s = []
    monkeypatch.setattr(retry.time, "sleep", slept_s.append)
    return slept_s


def failing(*responses):
    """A call that fails with each of these answers and then succeeds."""
    answers = iter(responses)

    def call():
        for answer in answers:
            raise HfHubHTTPError("busy", response=answer)
        return "done"

    return call


def test_a_busy_hub_is_left_alone_as_long_as_it_asks(waits):
    call = failing(response(Retry_After="3"), response(503, Retry_After="4"))
    assert with_patience(call, 60, lambda status, wait_s: None) == "done"
    assert waits == [3.0, 4.0]


def test_without_a_wish_each_wait_is_twice_the_one_before(waits):
    call = failing(*[response()] * 4)
    assert with_patience(call, 60, lambda status, wait_s: None) == "done"
    assert waits == [1.0, 2.0, 4.0, 8.0]


def test_all_waits_together_stay_within_the_bound(waits):
    with pytest.raises(HfHubHTTPError):
        with_patience(failing(*[response(Retry_After="7")] * 9), 20, lambda status, wait_s: None)
    assert waits == [7.0, 7.0]


def test_a_hub_that_asks_for_no_wait_at_all_is_still_given_up(waits):
    with pytest.raises(HfHubHTTPError):
        with_patience(failing(*[response(Retry_After="0")] * 99), 20, lambda status, wait_s: None)
    assert len(waits) == MAX_RETRIES


def test_another_error_is_not_repeated(waits):
    with pytest.raises(HfHubHTTPError):
        with_patience(failing(response(500)), 60, lambda status, wait_s: None)
    assert waits == []


def test_a_date_is_understood_as_a_wish():
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=100), usegmt=True)
    assert 90 < asked_wait_s(response(Retry_After=date)) <= 100
    assert asked_wait_s(response(Retry_After="Wed, 21 Oct 2015 07:28:00 -0000")) == 0


def test_a_rate_limit_that_is_used_up_is_a_wish():
    assert asked_wait_s(response(RateLimit='"api";r=0;t=55')) == 55
    assert asked_wait_s(response(RateLimit='"api";r=3;t=55')) is None


@pytest.mark.parametrize("text", ["", "soon", "-1", "1.5"])
def test_what_is_neither_seconds_nor_date_is_no_wish(text):
    assert asked_wait_s(response(Retry_After=text)) is None
