"""Patience with a Hub that is busy: how long it asks to wait, and how long it is worth it.

Knows nothing about what is asked for. The invariant: the waits of one call add up to no more than
its bound, so a rate limit of an hour is reported instead of slept through.
"""

import itertools
import time
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TypeVar

import httpx2
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.utils import parse_ratelimit_headers

BUSY_STATUSES = (429, 502, 503, 504)
MAX_RETRIES = 5
MAX_WAIT_S = 60.0

Answer = TypeVar("Answer")


def with_patience(
    call: Callable[[], Answer], max_wait_s: float, on_wait: Callable[[int, float], object]
) -> Answer:
    """The call's result; a Hub that says "not now" is asked again, as late as it wishes.

    Args:
        max_wait_s: bound for all waits together.
        on_wait: hears the HTTP status and the seconds before each wait.

    Raises:
        HfHubHTTPError: the Hub's last answer.
    """
    left_s = max_wait_s
    for num_retries in itertools.count():
        try:
            return call()
        except HfHubHTTPError as error:
            status = error.response.status_code
            asked_s = asked_wait_s(error.response)
            wait_s = 2.0**num_retries if asked_s is None else asked_s
            if status not in BUSY_STATUSES or num_retries == MAX_RETRIES or wait_s > left_s:
                raise
        on_wait(status, wait_s)
        time.sleep(wait_s)
        left_s -= wait_s
    raise AssertionError("count() has no end")


def asked_wait_s(response: httpx2.Response) -> float | None:
    """How long the Hub wants to be left alone; None if it does not say.

    Retry-After is a number of seconds or a date (RFC 9110, 10.2.3); the Hub's rate limits are in
    the RateLimit header of the IETF draft.
    """
    limit = parse_ratelimit_headers(response.headers)
    if limit is not None and limit.remaining == 0:
        return float(limit.reset_in_seconds)
    text = response.headers.get("Retry-After", "").strip()
    if text.isdecimal():
        return float(text)
    try:
        date = parsedate_to_datetime(text)
    except ValueError:
        return None
    if date.tzinfo is None:  # "-0000": a date in UTC from a place that does not tell its zone
        date = date.replace(tzinfo=UTC)
    return max(0.0, (date - datetime.now(UTC)).total_seconds())
