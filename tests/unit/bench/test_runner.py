"""The runner sends every request once, never too many at a time, and keeps every trace."""

import asyncio
import contextlib
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ondol.bench.plan import WORKLOADS, Phase, Plan, PlannedRequest, Sizes
from ondol.bench.runner import PlanRun
from ondol.bench.trace import INTERRUPTED, RequestFailed


class FakeTarget:
    """Answers after a number of turns of the event loop; notes who was open at the same time."""

    def __init__(self, clock, num_turns=3, fail=lambda request: False):
        self.num_open = 0
        self.most_open = 0
        self.sent = []
        self._clock = clock
        self._num_turns = num_turns
        self._fail = fail

    async def send(self, trace):
        self.num_open += 1
        self.most_open = max(self.most_open, self.num_open)
        self.sent.append(trace.request)
        try:
            for _ in range(self._num_turns if trace.request.role != "decoder" else 12 * self._num_turns):
                await asyncio.sleep(0)
                trace.note_text(self._clock())
            if self._fail(trace.request):
                raise RequestFailed("scripted")
        finally:
            self.num_open -= 1


def run(plan, **options):
    counter = itertools.count()
    target = FakeTarget(lambda: float(next(counter)), **options)
    plan_run = PlanRun(target, lambda: float(next(counter)))
    asyncio.run(plan_run.run(plan))
    return plan_run.traces, target


@given(st.sampled_from(sorted(WORKLOADS)), st.integers(1, 8), st.integers(1, 6))
def test_every_trace_ends_and_the_concurrency_is_kept(name, num_requests, concurrency):
    plan = WORKLOADS[name].plan(Sizes(num_requests, concurrency, 100, 10), 0, 0)
    traces, target = run(plan)
    assert all(trace.ended_s is not None and trace.failure is None for trace in traces)
    assert target.most_open <= concurrency + (1 if plan.background else 0)
    assert len(traces) == len(target.sent) == len({trace.request.key for trace in traces})


def test_all_lanes_are_used():
    _, target = run(WORKLOADS["single"].plan(Sizes(6, 3, 10, 10), 0, 0))
    assert target.most_open == 3


def test_a_phase_begins_when_the_one_before_has_ended():
    traces, _ = run(WORKLOADS["shared-prefix"].plan(Sizes(5, 4, 100, 10), 0, 0))
    cold = traces[0]
    assert all(trace.started_s > cold.ended_s for trace in traces[1:])


def test_arrivals_come_when_every_decoder_has_produced_text():
    traces, _ = run(WORKLOADS["mixed"].plan(Sizes(2, 3, 100, 10), 0, 0))
    first_texts = [trace.text_times_s[0] for trace in traces if trace.request.role == "decoder"]
    arrivals = [trace.started_s for trace in traces if trace.request.role == "arrival"]
    assert len(arrivals) == 2
    assert max(first_texts) < min(arrivals)


def test_no_arrival_is_sent_once_all_decoders_have_ended():
    arrivals = tuple(PlannedRequest("arrival", str(index), 10, 1) for index in range(1000))
    decoder = PlannedRequest("decoder", "d", 10, 10)
    traces, _ = run(Plan((Phase(arrivals, 1),), (decoder,)))
    assert 1 < len(traces) < 20


def test_a_failed_request_is_noted_and_the_others_go_on():
    plan = WORKLOADS["single"].plan(Sizes(4, 2, 10, 10), 0, 0)
    traces, _ = run(plan, fail=lambda request: request.key.endswith("/1"))
    assert [trace.failure for trace in traces] == [None, "scripted", None, None]


def test_a_decoder_that_fails_at_once_does_not_hold_up_the_run():
    plan = WORKLOADS["mixed"].plan(Sizes(2, 1, 10, 10), 0, 0)
    traces, _ = run(plan, num_turns=0, fail=lambda request: True)
    assert all(trace.failure == "scripted" for trace in traces)


def test_after_an_interruption_every_trace_is_there():
    class HangingTarget:
        def __init__(self):
            self.both_lanes_hang = asyncio.Event()

        async def send(self, trace):
            if trace.request.key.endswith("/2"):
                self.both_lanes_hang.set()
            if not trace.request.key.endswith("/0"):
                await asyncio.Event().wait()

    async def scenario():
        target = HangingTarget()
        plan_run = PlanRun(target, asyncio.get_running_loop().time)
        task = asyncio.create_task(plan_run.run(WORKLOADS["single"].plan(Sizes(4, 2, 10, 10), 0, 0)))
        await target.both_lanes_hang.wait()
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        return plan_run.traces

    traces = asyncio.run(scenario())
    assert [trace.failure for trace in traces] == [None, INTERRUPTED, INTERRUPTED]


def test_a_bug_in_a_target_is_not_taken_for_a_failed_request():
    class BrokenTarget:
        async def send(self, trace):
            raise ZeroDivisionError

    with pytest.raises(ExceptionGroup):
        asyncio.run(
            PlanRun(BrokenTarget(), lambda: 0.0).run(WORKLOADS["single"].plan(Sizes(1, 1, 1, 1), 0, 0))
        )
