"""The table for people shows what the JSON holds, and the notes say what would mislead."""

from ondol.bench.campaign import Campaign, SizeChoice
from ondol.bench.figures import as_json, figures_of, summary_of
from ondol.bench.plan import WORKLOADS, PlannedRequest, Sizes
from ondol.bench.report import COLUMNS, cells, warnings
from ondol.bench.trace import RequestTrace

QUIET = {"load_average": [0.1, 0.1, 0.1], "num_cores": 2}


def entry(name="single", *, usage=True, num_cached=0, asked=3, failure=None, ceiling=None):
    made = RequestTrace(PlannedRequest("chat", "k", 100, asked), 0.0)
    made.text_times_s = [0.5, 0.6, 0.7]
    if usage:
        made.num_input_tokens, made.num_output_tokens, made.num_cached_tokens = 100, 3, num_cached
    made.failure = failure
    made.end(1.0)
    figures = {**as_json(figures_of([made])), "ceiling": ceiling}
    return {"workload": name, "summary": summary_of([figures]), "repeats": [figures]}


def row(**of_entry):
    return dict(zip(COLUMNS, cells(entry(**of_entry)), strict=True))


def test_a_row_shows_medians_and_the_share_of_the_ceiling():
    shown = row(ceiling={"reached": 0.42})
    assert [shown[name] for name in COLUMNS[:5]] == ["single", "1", "0", "1.00", "3.0"]
    assert shown["TTFT ms p50/p95/p99"] == "500.0 / 500.0 / 500.0"
    assert shown["of ceiling"] == "42%"


def test_a_workload_without_any_success_still_has_a_row():
    shown = row(failure="HTTP 500: no")
    assert [shown[name] for name in COLUMNS[:3]] == ["single", "0", "1"]
    assert shown["TTFT ms p50/p95/p99"] == "- / - / -"


def test_a_good_measurement_on_a_quiet_machine_needs_no_notes():
    assert warnings(QUIET, [entry()]) == []


def test_a_busy_machine_is_noted():
    assert "busy" in warnings({"load_average": [1.7, 1, 1], "num_cores": 2}, [])[0]


def test_a_machine_that_tells_no_load_is_not_called_busy():
    assert warnings({"load_average": None, "num_cores": 2}, []) == []


def test_each_thing_that_would_mislead_is_noted():
    assert "1 failed: timed out" in warnings(QUIET, [entry(failure="timed out")])[0]
    assert "chunks were counted" in warnings(QUIET, [entry(usage=False)])[0]
    assert "not of the asked length" in warnings(QUIET, [entry(asked=9)])[0]
    assert "--seed" in warnings(QUIET, [entry(num_cached=90)])[0]


def test_a_shared_prefix_in_the_cache_is_what_was_asked_for():
    assert "--seed" not in warnings(QUIET, [entry("shared-prefix", num_cached=90)])[0]


def test_sizes_that_were_not_chosen_are_the_workloads_own():
    usual = Sizes(4, 3, 2, 1)
    assert SizeChoice(input_tokens=9).over(usual) == Sizes(4, 3, 9, 1)


def test_a_campaign_that_never_began_reports_nothing():
    workloads = [WORKLOADS["single"]]
    campaign = Campaign(workloads, SizeChoice(), seed=0, num_repeats=1, clock=lambda: 0.0, on_run=print)
    assert campaign.report(None) == []
