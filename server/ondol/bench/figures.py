"""From traces to figures: rates, latencies, failures.

Pure arithmetic: knows nothing about servers or output. Failed requests count as failures and in the
duration, and nowhere else. Invariant: every trace is either one of `num_succeeded` or in `failures`.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import msgspec
import numpy as np

from ondol.bench.trace import RequestTrace

MS_PER_S = 1000.0

HEADLINES = (
    "request_per_s",
    "output_tokens_per_s",
    "total_tokens_per_s",
    *(
        f"{name}.{quantile}"
        for name in ("ttft_ms", "inter_token_ms", "decoder_gap_during_prefill_ms")
        for quantile in ("p50", "p95", "p99")
    ),
    "time_per_output_token_ms.p50",
)


@dataclass(frozen=True, slots=True)
class Distribution:
    """Percentiles in milliseconds, interpolated linearly between neighbours."""

    p50: float
    p95: float
    p99: float
    mean: float
    max: float
    num_samples: int

    @classmethod
    def of(cls, seconds: Sequence[float]) -> "Distribution | None":
        """None for no samples: an absent figure is not a zero."""
        if not seconds:
            return None
        samples_ms = np.asarray(seconds, dtype=np.float64) * MS_PER_S
        p50, p95, p99 = (round(float(value), 3) for value in np.percentile(samples_ms, (50, 95, 99)))
        mean, longest = round(float(samples_ms.mean()), 3), round(float(samples_ms.max()), 3)
        return cls(p50, p95, p99, mean, longest, len(seconds))


@dataclass(frozen=True, slots=True)
class RoleFigures:
    """Latencies of the requests of one role."""

    num_succeeded: int
    ttft_ms: Distribution | None
    inter_token_ms: Distribution | None


@dataclass(frozen=True, slots=True)
class RunFigures:
    """Figures of one run of a workload.

    Attributes:
        failures: reason -> how often.
        num_wrong_length: answers whose length is not the asked one; rates of unequal work do not compare.
        tokens_counted_by: "usage", or "chunks" if the server told no usage (then rates are too low).
        inter_token_ms: waits between pieces of text, over all requests.
        time_per_output_token_ms: per request, (last - first piece) / (tokens - 1).
        decoder_gap_during_prefill_ms: decoders' waits while another prompt waited for its first token.
    """

    num_succeeded: int
    num_failed: int
    failures: dict[str, int]
    duration_s: float
    num_input_tokens: int
    num_cached_tokens: int
    num_output_tokens: int
    num_wrong_length: int
    tokens_counted_by: str
    request_per_s: float
    output_tokens_per_s: float
    total_tokens_per_s: float
    ttft_ms: Distribution | None
    inter_token_ms: Distribution | None
    time_per_output_token_ms: Distribution | None
    decoder_gap_during_prefill_ms: Distribution | None
    by_role: dict[str, RoleFigures]


def figures_of(traces: Sequence[RequestTrace]) -> RunFigures:
    """Figures of one run; `traces` are those of all its requests."""
    ended = [trace for trace in traces if trace.ended_s is not None]
    good = [trace for trace in ended if trace.failure is None]
    bad = [trace for trace in ended if trace.failure is not None]
    duration_s = max((trace.ended_s or 0.0 for trace in ended), default=0.0) - min(
        (trace.started_s for trace in ended), default=0.0
    )
    num_input = sum(trace.num_input_tokens or 0 for trace in good)
    num_output = sum(_num_output_tokens(trace) for trace in good)
    has_usage = all(trace.num_output_tokens is not None for trace in good)
    roles = sorted({trace.request.role for trace in good})
    return RunFigures(
        num_succeeded=len(good),
        num_failed=len(bad),
        failures=dict(Counter(trace.failure or "" for trace in bad)),
        duration_s=round(duration_s, 6),
        num_input_tokens=num_input,
        num_cached_tokens=sum(trace.num_cached_tokens for trace in good),
        num_output_tokens=num_output,
        num_wrong_length=sum(_num_output_tokens(t) != t.request.num_output_tokens for t in good),
        tokens_counted_by="usage" if has_usage else "chunks",
        request_per_s=_rate(len(good), duration_s),
        output_tokens_per_s=_rate(num_output, duration_s),
        total_tokens_per_s=_rate(num_input + num_output, duration_s),
        ttft_ms=_ttft(good),
        inter_token_ms=_inter_token(good),
        time_per_output_token_ms=Distribution.of(
            [t.seconds_per_output_token for t in good if t.seconds_per_output_token is not None]
        ),
        decoder_gap_during_prefill_ms=Distribution.of(_gaps_during_prefill(good)),
        by_role={role: _role_figures([t for t in good if t.request.role == role]) for role in roles},
    )


def summary_of(runs: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """Median, least and most over the repeats, for each headline figure that some run has."""
    summary: dict[str, dict[str, float]] = {}
    for name in HEADLINES:
        values = [value for run in runs if (value := _lookup(run, name)) is not None]
        if values:
            summary[name] = {"median": round(median(values), 3), "min": min(values), "max": max(values)}
    return summary


def as_json(figures: RunFigures) -> dict[str, Any]:
    """Plain values, ready for any JSON writer."""
    plain: dict[str, Any] = msgspec.to_builtins(figures)
    return plain


def _lookup(run: Mapping[str, Any], dotted_name: str) -> float | None:
    value: Any = run
    for part in dotted_name.split("."):
        value = value.get(part) if value is not None else None
    return value if value is None else float(value)


def _rate(count: int, duration_s: float) -> float:
    return round(count / duration_s, 3) if duration_s > 0 else 0.0


def _num_output_tokens(trace: RequestTrace) -> int:
    return len(trace.text_times_s) if trace.num_output_tokens is None else trace.num_output_tokens


def _ttft(traces: Sequence[RequestTrace]) -> Distribution | None:
    return Distribution.of([trace.ttft_s for trace in traces if trace.ttft_s is not None])


def _inter_token(traces: Sequence[RequestTrace]) -> Distribution | None:
    return Distribution.of([end - start for trace in traces for start, end in trace.gaps])


def _role_figures(traces: Sequence[RequestTrace]) -> RoleFigures:
    return RoleFigures(len(traces), _ttft(traces), _inter_token(traces))


def _gaps_during_prefill(traces: Sequence[RequestTrace]) -> list[float]:
    """Waits of decoders that overlap the time from an arrival's sending to its first text."""
    prefills = [
        (trace.started_s, trace.text_times_s[0])
        for trace in traces
        if trace.request.role == "arrival" and trace.text_times_s
    ]
    return [
        end - start
        for trace in traces
        if trace.request.role == "decoder"
        for start, end in trace.gaps
        if any(start < prefill_end and end > prefill_start for prefill_start, prefill_end in prefills)
    ]
