"""Figures for a person: a table of medians, and the warnings without which it would mislead.

Knows only the report's JSON values, so the table can say nothing that the JSON does not hold.
"""

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

# A chat template alone is a quarter of a short prompt, and is cached rightly.
CACHED_SHARE_WORTH_SAYING = 0.3
BUSY_SHARE = 0.5


COLUMNS = (
    *("workload", "ok", "failed", "req/s", "out tok/s", "spread", "all tok/s"),
    *("TTFT ms p50/p95/p99", "inter-token ms p50/p95/p99", "of ceiling"),
)


def cells(entry: Mapping[str, Any]) -> tuple[str, ...]:
    """A workload's row under `COLUMNS`: medians over the repeats; `of ceiling` where one was measured."""
    summary, repeats = entry["summary"], entry["repeats"]
    output = summary.get("output_tokens_per_s", {})
    reached = [figures["ceiling"]["reached"] for figures in repeats if figures["ceiling"]]
    return (
        entry["workload"],
        str(sum(figures["num_succeeded"] for figures in repeats)),
        str(sum(figures["num_failed"] for figures in repeats)),
        _median(summary, "request_per_s", 2),
        _median(summary, "output_tokens_per_s", 1),
        f"{output['min']:.1f}..{output['max']:.1f}" if output else "-",
        _median(summary, "total_tokens_per_s", 1),
        _percentiles(summary, "ttft_ms"),
        _percentiles(summary, "inter_token_ms"),
        f"{median(reached):.0%}" if reached else "-",
    )


def details(entry: Mapping[str, Any]) -> list[str]:
    """What a workload measures beside its row: what a prompt costs its neighbours, each role by itself."""
    name, summary, repeats = entry["workload"], entry["summary"], entry["repeats"]
    lines: list[str] = []
    if "decoder_gap_during_prefill_ms.p50" in summary:
        gaps = _percentiles(summary, "decoder_gap_during_prefill_ms")
        lines.append(f"{name}: decoders' inter-token ms while a prompt is computed: {gaps}")
    roles = list(dict.fromkeys(role for figures in repeats for role in figures["by_role"]))
    if len(roles) < 2:
        return lines
    return lines + [
        f"{name}, {role}: TTFT p50 {_role_median(repeats, role, 'ttft_ms')} ms, "
        f"inter-token p50 {_role_median(repeats, role, 'inter_token_ms')} ms"
        for role in roles
    ]


def warnings(machine: Mapping[str, Any], entries: Sequence[Mapping[str, Any]]) -> list[str]:
    """What a reader must know before comparing these figures with others.

    `machine` is as it was before the first request.
    """
    found: list[str] = []
    load, num_cores = machine["load_average"], machine["num_cores"]
    if load and load[0] > BUSY_SHARE * num_cores:
        found.append(f"the machine was busy before it began: load average {load[0]} on {num_cores} cores")
    for entry in entries:
        name, repeats = entry["workload"], entry["repeats"]
        for reason, count in _failures(repeats).items():
            found.append(f"{name}: {count} failed: {reason}")
        num_wrong = sum(figures["num_wrong_length"] for figures in repeats)
        if num_wrong:
            found.append(f"{name}: {num_wrong} answers are not of the asked length; rates may not compare")
        if any(figures["tokens_counted_by"] == "chunks" for figures in repeats):
            found.append(f"{name}: the server tells no usage; chunks were counted, and tokens may be more")
        num_input = sum(figures["num_input_tokens"] for figures in repeats)
        num_cached = sum(figures["num_cached_tokens"] for figures in repeats)
        if num_cached > CACHED_SHARE_WORTH_SAYING * num_input:
            cached = f"{name}: {num_cached} of {num_input} input tokens came from the server's prefix cache"
            is_asked_for = name == "shared-prefix"
            found.append(
                cached if is_asked_for else f"{cached}; choose a --seed that this server has not seen"
            )
    return found


def _role_median(repeats: Sequence[Mapping[str, Any]], role: str, name: str) -> str:
    found = [figures["by_role"][role][name] for figures in repeats if role in figures["by_role"]]
    values = [distribution["p50"] for distribution in found if distribution]
    return f"{median(values):.1f}" if values else "-"


def _failures(repeats: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    total: dict[str, int] = {}
    for figures in repeats:
        for reason, count in figures["failures"].items():
            total[reason] = total.get(reason, 0) + count
    return total


def _median(summary: Mapping[str, Mapping[str, float]], name: str, digits: int) -> str:
    return f"{summary[name]['median']:.{digits}f}" if name in summary else "-"


def _percentiles(summary: Mapping[str, Mapping[str, float]], name: str) -> str:
    return " / ".join(_median(summary, f"{name}.{quantile}", 1) for quantile in ("p50", "p95", "p99"))
