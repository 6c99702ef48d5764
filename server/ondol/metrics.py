"""What is measured, in Prometheus' words.

Knows nothing about HTTP or engines beyond the numbers they show. Invariant: gauges and engine
counters are read from the engine at scrape time, so they are right also when nothing happens.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

ABORTED = "abort"

_TTFT_BUCKETS_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
_INTER_TOKEN_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.2, 0.5, 1.0, 5.0)
_REQUEST_BUCKETS_S = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)


class EngineNumbers(Protocol):
    """The part of an engine's statistics that is shown; counters run from the engine's start."""

    @property
    def num_running(self) -> int:
        """Requests in the running batch."""

    @property
    def num_waiting(self) -> int:
        """Requests admitted and waiting for room."""

    @property
    def num_blocks(self) -> int:
        """KV blocks that exist."""

    @property
    def num_used_blocks(self) -> int:
        """KV blocks that belong to a request."""

    @property
    def prefix_query_tokens(self) -> int:
        """Prompt tokens looked up in the prefix cache."""

    @property
    def prefix_hit_tokens(self) -> int:
        """Prompt tokens found there."""

    @property
    def num_preemptions(self) -> int:
        """Requests that were put back to be recomputed."""


ReadEngines = Callable[[], Iterable[tuple[str, EngineNumbers]]]

_GAUGES = (
    ("num_running", "ondol_requests_running", "Requests in the running batch."),
    ("num_waiting", "ondol_requests_waiting", "Requests that wait in the engine for room."),
    ("num_blocks", "ondol_kv_blocks", "KV cache blocks that exist."),
    ("num_used_blocks", "ondol_kv_blocks_used", "KV cache blocks that belong to a request."),
)
_COUNTERS = (
    (
        "prefix_query_tokens",
        "ondol_prefix_cache_query_tokens",
        "Prompt tokens looked up in the prefix cache.",
    ),
    ("prefix_hit_tokens", "ondol_prefix_cache_hit_tokens", "Prompt tokens found in the prefix cache."),
    ("num_preemptions", "ondol_preemptions", "Requests put back to be recomputed, for want of KV blocks."),
)


class Metrics:
    """All metrics of one daemon, in a registry of their own.

    `read_engines` returns (model name, numbers) of the engines that live; called at each scrape.
    """

    content_type = CONTENT_TYPE_LATEST

    def __init__(self, read_engines: ReadEngines) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_EngineCollector(read_engines))
        self._prompt_tokens = self._counter("ondol_prompt_tokens", "Prompt tokens of started requests.")
        self._generation_tokens = self._counter("ondol_generation_tokens", "Tokens that were generated.")
        self._requests = self._counter(
            "ondol_requests", "Requests that ended, by finish reason.", ("model", "finish_reason")
        )
        self._time_to_first_token = self._histogram(
            "ondol_time_to_first_token_seconds", "From arrival to the first token.", _TTFT_BUCKETS_S
        )
        self._inter_token = self._histogram(
            "ondol_inter_token_latency_seconds", "Between tokens of one request.", _INTER_TOKEN_BUCKETS_S
        )
        self._duration = self._histogram(
            "ondol_request_duration_seconds", "From arrival to the last token.", _REQUEST_BUCKETS_S
        )

    def start_request(self, model_name: str, num_prompt_tokens: int) -> "RequestMeter":
        """Begin to measure one choice of one request."""
        self._prompt_tokens.labels(model_name).inc(num_prompt_tokens)
        return RequestMeter(
            first_token=self._time_to_first_token.labels(model_name).observe,
            inter_token=self._inter_token.labels(model_name).observe,
            duration=self._duration.labels(model_name).observe,
            tokens=self._generation_tokens.labels(model_name).inc,
            ended=lambda reason: self._requests.labels(model_name, reason).inc(),
        )

    def exposition(self) -> bytes:
        """The text that Prometheus scrapes."""
        text: bytes = generate_latest(self._registry)
        return text

    def value(self, name: str, labels: dict[str, str]) -> float | None:
        """One sample as a scrape would show it now; None if it was never touched."""
        sample: float | None = self._registry.get_sample_value(name, labels)
        return sample

    def _counter(self, name: str, text: str, labels: tuple[str, ...] = ("model",)) -> Counter:
        return Counter(name, text, labels, registry=self._registry)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(name, text, ("model",), buckets=buckets, registry=self._registry)


class RequestMeter:
    """The clock of one choice: tell it of tokens, and exactly once of the end."""

    def __init__(
        self,
        *,
        first_token: Callable[[float], None],
        inter_token: Callable[[float], None],
        duration: Callable[[float], None],
        tokens: Callable[[float], None],
        ended: Callable[[str], None],
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._observe_first_token = first_token
        self._observe_inter_token = inter_token
        self._observe_duration = duration
        self._count_tokens = tokens
        self._count_end = ended
        self._clock = clock
        self._start_s = clock()
        self._last_token_s: float | None = None

    def add_tokens(self, num_tokens: int) -> None:
        """Tokens arrived now; several at once share the time since the last."""
        if num_tokens == 0:
            return
        now_s = self._clock()
        self._count_tokens(num_tokens)
        if self._last_token_s is None:
            self._observe_first_token(now_s - self._start_s)
        else:
            for _ in range(num_tokens):
                self._observe_inter_token((now_s - self._last_token_s) / num_tokens)
        self._last_token_s = now_s

    def end(self, finish_reason: str) -> None:
        """The request ended: "stop", "length", "error" or ABORTED."""
        self._observe_duration(self._clock() - self._start_s)
        self._count_end(finish_reason)


class _EngineCollector:
    """Asks the engines at scrape time."""

    def __init__(self, read_engines: ReadEngines) -> None:
        self._read_engines = read_engines

    def collect(self) -> Iterator[GaugeMetricFamily | CounterMetricFamily]:
        """One family per number, one sample per engine."""
        engines = tuple(self._read_engines())
        for kinds, family_type in ((_GAUGES, GaugeMetricFamily), (_COUNTERS, CounterMetricFamily)):
            for attribute, name, text in kinds:
                family = family_type(name, text, labels=["model"])
                for model_name, numbers in engines:
                    family.add_metric([model_name], getattr(numbers, attribute))
                yield family
