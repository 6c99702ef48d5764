"""Figures follow from traces by arithmetic alone."""

import pytest

from ondol.bench.figures import Distribution, as_json, figures_of, summary_of
from ondol.bench.plan import PlannedRequest
from ondol.bench.trace import RequestTrace


def trace(
    start: float,
    text_times: list[float],
    *,
    role: str = "chat",
    output: int | None = None,
    failure: str | None = None,
    end: float | None = None,
) -> RequestTrace:
    asked = len(text_times) if output is None else output
    made = RequestTrace(PlannedRequest(role, "k", 10, asked), start)
    made.text_times_s = text_times
    made.num_input_tokens, made.num_output_tokens = 10, output
    made.failure = failure
    made.end(end if end is not None else text_times[-1])
    return made


def test_percentiles_are_interpolated_and_in_milliseconds():
    found = Distribution.of([index / 1000 for index in range(1, 101)])
    assert found is not None
    assert (found.p50, found.p95, found.p99) == pytest.approx((50.5, 95.05, 99.01))
    assert (found.mean, found.max, found.num_samples) == (50.5, 100.0, 100)


def test_no_samples_are_no_figure():
    assert Distribution.of([]) is None


def test_rates_run_from_the_first_sending_to_the_last_end():
    figures = figures_of([trace(1.0, [2.0, 3.0], output=20), trace(2.0, [4.0, 5.0], output=20)])
    assert figures.duration_s == 4.0
    assert (figures.request_per_s, figures.output_tokens_per_s, figures.total_tokens_per_s) == (0.5, 10, 15)


def test_time_to_first_token_and_waits_between_pieces():
    figures = figures_of([trace(1.0, [1.5, 1.6, 1.9], output=3)])
    assert figures.ttft_ms.p50 == 500.0
    assert figures.inter_token_ms.p50 == 200.0
    assert figures.inter_token_ms.max == 300.0


def test_time_per_output_token_is_blind_to_packing():
    one_by_one = figures_of([trace(0.0, [1.0, 1.1, 1.2, 1.3], output=4)])
    packed = figures_of([trace(0.0, [1.0, 1.3], output=4)])
    assert one_by_one.time_per_output_token_ms == packed.time_per_output_token_ms


def test_failures_are_counted_by_reason_and_kept_out_of_the_rates():
    figures = figures_of(
        [
            trace(0.0, [1.0], output=1),
            trace(0.0, [1.0], output=1, failure="HTTP 500: no", end=2.0),
            trace(0.0, [], failure="HTTP 500: no", end=2.0),
            trace(0.0, [], failure="timed out", end=2.0),
        ]
    )
    assert figures.failures == {"HTTP 500: no": 2, "timed out": 1}
    assert (figures.num_succeeded, figures.num_failed) == (1, 3)
    assert figures.output_tokens_per_s == 0.5


def test_answers_of_another_length_than_asked_are_counted():
    short = trace(0.0, [1.0], output=5)
    short.num_output_tokens = 3
    assert figures_of([short, trace(0.0, [1.0], output=1)]).num_wrong_length == 1


def test_without_usage_chunks_are_counted_and_it_is_said():
    figures = figures_of([trace(0.0, [1.0, 2.0])])
    assert (figures.num_output_tokens, figures.tokens_counted_by) == (2, "chunks")


def test_decoders_waits_are_told_apart_while_a_prompt_is_computed():
    decoder = trace(0.0, [1.0, 1.1, 1.9, 2.0], role="decoder", output=4)
    arrival = trace(1.15, [1.85, 1.95], role="arrival", output=2)
    figures = figures_of([decoder, arrival])
    assert figures.decoder_gap_during_prefill_ms.num_samples == 1
    assert figures.decoder_gap_during_prefill_ms.max == pytest.approx(800)
    assert figures.by_role["decoder"].inter_token_ms.num_samples == 3


def test_nothing_measured_is_zero_requests_and_no_latency():
    figures = figures_of([])
    assert (figures.num_succeeded, figures.request_per_s, figures.ttft_ms) == (0, 0.0, None)


def test_a_request_that_is_still_open_does_not_count():
    still_open = RequestTrace(PlannedRequest("chat", "k", 1, 1), 0.0)
    assert figures_of([still_open]).num_failed == 0


def test_the_summary_is_median_least_and_most_over_repeats():
    runs = [as_json(figures_of([trace(0.0, [seconds], output=10)])) for seconds in (1.0, 2.0, 5.0)]
    summary = summary_of(runs)
    assert summary["output_tokens_per_s"] == {"median": 5.0, "min": 2.0, "max": 10.0}
    assert summary["ttft_ms.p50"] == {"median": 2000.0, "min": 1000.0, "max": 5000.0}
    assert "inter_token_ms.p50" not in summary
