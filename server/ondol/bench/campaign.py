"""Several workloads, each several times, against one target.

Knows which runs there are and keeps their traces; nothing about HTTP or output. Invariant: `runs`
holds every run that began, so an interrupted campaign still reports what it measured.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from ondol.bench.ceiling import CeilingMeter
from ondol.bench.figures import as_json, figures_of, summary_of
from ondol.bench.plan import Sizes, Workload
from ondol.bench.runner import Clock, PlanRun, Target
from ondol.bench.trace import INTERRUPTED, RequestTrace


@dataclass(frozen=True, slots=True)
class SizeChoice:
    """Sizes that the user chose; None keeps the workload's own."""

    num_requests: int | None = None
    concurrency: int | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None

    def over(self, usual: Sizes) -> Sizes:
        """The chosen sizes, else the usual ones."""
        return Sizes(
            self.num_requests or usual.num_requests,
            self.concurrency or usual.concurrency,
            self.input_tokens or usual.input_tokens,
            self.output_tokens or usual.output_tokens,
        )


@dataclass(slots=True)
class _Runs:
    workload: Workload
    sizes: Sizes
    traces: list[list[RequestTrace]] = field(default_factory=list)


class Campaign:
    """Runs the workloads in order, `num_repeats` times each."""

    def __init__(
        self,
        workloads: Sequence[Workload],
        choice: SizeChoice,
        *,
        seed: int,
        num_repeats: int,
        clock: Clock,
        on_run: Callable[[str], None],
    ) -> None:
        """`on_run` is told one line at the start of each run."""
        self._runs = [_Runs(workload, choice.over(workload.sizes)) for workload in workloads]
        self._seed = seed
        self._num_repeats = num_repeats
        self._clock = clock
        self._on_run = on_run

    async def run(self, target: Target) -> None:
        """Measure everything; may be cancelled at any time."""
        for runs in self._runs:
            for repeat in range(self._num_repeats):
                sizes = runs.sizes
                self._on_run(
                    f"{runs.workload.name}, run {repeat + 1} of {self._num_repeats}: {sizes.num_requests} "
                    f"requests, {sizes.concurrency} at a time, {sizes.input_tokens} tokens in and "
                    f"{sizes.output_tokens} out"
                )
                run = PlanRun(target, self._clock)
                runs.traces.append(run.traces)
                await run.run(runs.workload.plan(runs.sizes, self._seed, repeat))

    def report(self, meter: CeilingMeter | None) -> list[dict[str, Any]]:
        """One entry for each workload that began: sizes, summary over the repeats, and each repeat."""
        return [_entry(runs, meter) for runs in self._runs if runs.traces]


def _entry(runs: _Runs, meter: CeilingMeter | None) -> dict[str, Any]:
    repeats = [as_json(figures_of(traces)) for traces in runs.traces]
    for figures in repeats:
        has_ceiling = not runs.workload.is_about_latency
        figures["ceiling"] = meter.beside(figures, runs.sizes) if meter and has_ceiling else None
    complete = [figures for figures in repeats if INTERRUPTED not in figures["failures"]]
    sizes = {name: getattr(runs.sizes, name) for name in Sizes.__slots__}
    return {
        "workload": runs.workload.name,
        "purpose": runs.workload.purpose,
        "sizes": sizes,
        "summary": summary_of(complete or repeats),
        "repeats": repeats,
    }
