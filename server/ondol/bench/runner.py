"""Sends the requests of a plan, each at its time, and keeps a trace of every one.

Knows nothing about HTTP: a target answers a request. Invariant: a trace is in the list before its
request is sent, so whatever ends a run, what was measured so far is there.
"""

import asyncio
from collections.abc import Callable
from typing import Protocol

from ondol.bench.plan import Phase, Plan, PlannedRequest
from ondol.bench.trace import INTERRUPTED, RequestFailed, RequestTrace

Clock = Callable[[], float]


class Target(Protocol):
    """Something that answers requests."""

    async def send(self, trace: RequestTrace) -> None:
        """Answer `trace.request`, writing down what happens; raises RequestFailed."""


class PlanRun:
    """One run of one plan; `traces` grows while it goes on."""

    def __init__(self, target: Target, clock: Clock) -> None:
        self.traces: list[RequestTrace] = []
        self._target = target
        self._clock = clock

    async def run(self, plan: Plan) -> None:
        """Send everything and wait for the last answer; failures of requests are in the traces."""
        async with asyncio.TaskGroup() as group:
            background = [self._open(request) for request in plan.background]
            for trace in background:
                group.create_task(self._send(trace))
            for trace in background:
                await trace.has_output.wait()
            for phase in plan.phases:
                await self._run_phase(phase, background)

    async def _run_phase(self, phase: Phase, background: list[RequestTrace]) -> None:
        pending = list(reversed(phase.requests))

        async def lane() -> None:
            while pending and not _is_over(background):
                await self._send(self._open(pending.pop()))

        async with asyncio.TaskGroup() as group:
            for _ in range(min(phase.concurrency, len(pending))):
                group.create_task(lane())

    def _open(self, request: PlannedRequest) -> RequestTrace:
        trace = RequestTrace(request, started_s=self._clock())
        self.traces.append(trace)
        return trace

    async def _send(self, trace: RequestTrace) -> None:
        trace.started_s = self._clock()
        try:
            await self._target.send(trace)
        except RequestFailed as failure:
            trace.failure = str(failure)
        except asyncio.CancelledError:
            trace.failure = INTERRUPTED
            raise
        finally:
            trace.end(self._clock())


def _is_over(background: list[RequestTrace]) -> bool:
    return bool(background) and all(trace.ended_s is not None for trace in background)
