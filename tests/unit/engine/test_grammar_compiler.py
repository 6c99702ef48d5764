"""Requests that wait for their grammar: ready, failed, too late, or forgotten."""

import threading

import pytest

from ondol.engine.grammar_compiler import GrammarQueue
from ondol.engine.request import Request
from ondol.engine.sampling_params import SamplingParams


class FakeMatcher:
    def __init__(self, error=None):
        self.error = error


class Clock:
    now_s = 100.0

    def __call__(self):
        return self.now_s


def request(request_id, output_ids=()):
    params = SamplingParams(max_tokens=5, grammar=f"grammar of {request_id}")
    return Request(request_id, [1, 2, *output_ids], 2, params)


def take_all(queue, num_requests):
    """Everything that comes out, waited for with a deadline."""
    finished = threading.Event()
    found = []
    for _ in range(2000):
        found += queue.take_done()
        if len(found) == num_requests:
            return found
        finished.wait(0.005)
    raise AssertionError(f"only {len(found)} of {num_requests} came out")


def test_a_request_comes_out_with_its_matcher_and_its_output_taken_in():
    calls = []
    matcher = FakeMatcher()

    def compile_grammar(grammar, output_ids):
        calls.append((grammar, output_ids))
        return matcher

    queue = GrammarQueue(compile_grammar)
    waiting = request("r", [7, 8])
    queue.add(waiting)
    assert len(queue) == 1
    assert take_all(queue, 1) == [(waiting, None)]
    assert waiting.matcher is matcher
    assert calls == [("grammar of r", [7, 8])]
    assert len(queue) == 0


def test_a_grammar_with_an_error_comes_out_with_its_reason():
    queue = GrammarQueue(lambda grammar, output_ids: FakeMatcher("nothing matches"))
    queue.add(request("r"))
    ((_, reason),) = take_all(queue, 1)
    assert reason == "the grammar cannot be used: nothing matches"


def test_a_tokenizer_that_cannot_be_read_is_a_reason_and_not_a_crash():
    def compile_grammar(grammar, output_ids):
        raise OSError("no tokenizer.json")

    queue = GrammarQueue(compile_grammar)
    queue.add(request("r"))
    ((_, reason),) = take_all(queue, 1)
    assert "no tokenizer.json" in reason


@pytest.fixture
def stuck():
    """A compiler that answers when told to, and its switch."""
    release = threading.Event()

    def compile_grammar(grammar, output_ids):
        if grammar.endswith("slow"):
            assert release.wait(60)
        return FakeMatcher()

    yield compile_grammar
    release.set()


def test_a_slow_grammar_delays_nobody_else_and_ends_with_its_time(stuck):
    clock = Clock()
    queue = GrammarQueue(stuck, timeout_s=10, clock=clock)
    queue.add(request("slow"))
    queue.add(request("quick"))
    ((done, reason),) = take_all(queue, 1)
    assert (done.request_id, reason) == ("quick", None)
    clock.now_s += 9.9
    assert list(queue.take_done()) == []
    clock.now_s += 0.2
    ((late, reason),) = queue.take_done()
    assert late.request_id == "slow"
    assert reason == "its grammar was not compiled within 10 s"
    assert late.matcher is None
    assert len(queue) == 0


def test_a_removed_request_never_comes_out(stuck):
    queue = GrammarQueue(stuck)
    queue.add(request("slow"))
    queue.remove("slow")
    queue.remove("nobody")
    assert len(queue) == 0
    assert list(queue.take_done()) == []
