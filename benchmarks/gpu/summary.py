"""The run in short: a table for people, and one JSON object.

Reads recorded lines, measures nothing. Invariant: a figure stands beside its ceiling.
"""

from collections.abc import Mapping, Sequence
from typing import Any

Lines = Sequence[Mapping[str, Any]]


def table(lines: Lines) -> str:
    """Every figure on a line of its own, aligned by kind of figure."""
    rows = [text for line in lines if (text := _row(line)) is not None]
    return "\n".join(rows) if rows else "nothing was measured"


def summarize(lines: Lines, file: str, run_id: str) -> dict[str, Any]:
    """What was measured, failed and was left out; medians only, the rest is in the file."""
    kernels = _named(lines, "kernel")
    return {
        "run": run_id,
        "file": file,
        "environments": _named(lines, "environment"),
        "num_kernel_cases_right": len(kernels),
        "decode": [
            {
                **_pick(line, "model", "kind", "kv_dtype", "kernels", "batch", "share_of_ceiling"),
                "step_ms": line["step_ms"]["median"],
                "tokens_per_s": line["tokens_per_s"]["median"],
            }
            for line in _named(lines, "decode")
        ],
        "first_token": [
            {**_pick(line, "model", "kind"), "ttft_ms": line["ttft_ms"]["median"]}
            for line in _named(lines, "first token")
        ],
        "saturated": [
            _pick(
                line, "model", "kind", "kv_dtype", "requests_per_s", "total_tokens_per_s", "share_of_ceiling"
            )
            for line in _named(lines, "saturated")
        ],
        "transformers": [
            _pick(line, "figure", "model", "batch", "tokens_per_s", "output_tokens_per_s")
            for line in _begun(lines, "transformers")
        ],
        "determinism": [
            {
                **_pick(line, "figure", "model", "kind", "batch", "num_tokens"),
                "ratio": line["ratio"]["median"],
            }
            for line in _begun(lines, "cost of")
        ],
        "offload": [
            {
                **_pick(line, "figure", "model", "kind", "batch", "host_bytes", "ceiling_ms"),
                "ms": line["step_ms" if "step_ms" in line else "ttft_ms"]["median"],
            }
            for line in _begun(lines, "offloaded")
        ],
        "skipped": [line["what"] for line in _named(lines, "skipped")],
        "failed": [line["what"] for line in _named(lines, "failed")],
    }


def _named(lines: Lines, figure: str) -> list[dict[str, Any]]:
    return [dict(line) for line in lines if line["figure"] == figure]


def _begun(lines: Lines, beginning: str) -> list[dict[str, Any]]:
    return [dict(line) for line in lines if str(line["figure"]).startswith(beginning)]


def _pick(line: dict[str, Any], *keys: str) -> dict[str, Any]:
    """Those of the keys that the line has."""
    return {key: line[key] for key in keys if key in line}


def _row(line: Mapping[str, Any]) -> str | None:
    """One line of the table; None for what is not shown."""
    model = f"{line.get('model', ''):<18}{line.get('kind', ''):<6}"
    if line.get("kv_dtype") == "fp8":
        model += "KV fp8 "
    match line["figure"]:
        case "decode":
            step, rate = line["step_ms"], line["tokens_per_s"]["median"]
            return (
                f"decode     {model}batch {line['batch']:>3} context {line['context']:>4}  "
                f"{step['median']:8.2f} ms ({step['least']:.2f} to {step['most']:.2f})  {rate:9.1f} tok/s  "
                f"ceiling {line['ceiling_ms']:.2f} ms, {line['share_of_ceiling']:.0%}"
            )
        case "decode path":
            graphs = "graphs" if line["uses_graphs"] else "eager"
            overlap = "overlapping" if line["overlaps"] else "one after the other"
            return f"  instead  {model}batch {line['batch']:>3} {graphs}, {overlap}: {line['step_ms']:.2f} ms"
        case "first token":
            found = line["ttft_ms"]
            return (
                f"TTFT       {model}{line['num_prompt_tokens']} tokens  {found['median']:8.1f} ms "
                f"({found['least']:.1f} to {found['most']:.1f})  ceiling {line['ceiling_ms']:.1f} ms"
            )
        case "memory":
            peak = line["peak_bytes"]
            shown = "not counted" if peak is None else f"{peak / 2**30:.1f} GiB"
            return f"memory     {model}weights {line['weights_bytes'] / 2**30:.2f} GiB, peak {shown}"
        case "saturated":
            return (
                f"saturated  {model}{line['requests_per_s']:7.2f} req/s  {line['total_tokens_per_s']:9.0f} "
                f"tok/s in and out, {line['num_running']} running  "
                f"ceiling {line['ceiling_requests_per_s']:.2f}, {line['share_of_ceiling']:.0%}"
            )
    return _row_beside(line, model)


def _row_beside(line: Mapping[str, Any], model: str) -> str | None:
    """Of what is not the engine's own speed."""
    match line["figure"]:
        case "transformers generate":
            return f"generate   {model}batch {line['batch']:>3}  {line['step_ms']['median']:8.2f} ms"
        case "transformers continuous batching":
            return f"HF batches {model}{line['output_tokens_per_s']:9.1f} output tok/s"
        case "invariance" | "cost of a step" | "cost of a prompt":
            return _determinism_row(line, model)
        case "offloaded step" | "offloaded first token":
            return _offload_row(line, model)
        case "skipped" | "failed" as figure:
            return f"{figure:<10} {line['what']}: {line['reason']}"
    return None


def _offload_row(line: Mapping[str, Any], model: str) -> str:
    is_step = line["figure"] == "offloaded step"
    what = f"batch {line['batch']:>3}" if is_step else f"{line['num_prompt_tokens']} tokens"
    found = line["step_ms" if is_step else "ttft_ms"]
    return (
        f"offload    {model}{line['num_host_layers']} of {line['num_layers']} layers in host memory, {what}  "
        f"{found['median']:8.1f} ms ({found['least']:.1f} to {found['most']:.1f})  "
        f"ceiling {line['ceiling_ms']:.1f} ms at {line['host_copy_gb_per_s']:.0f} GB/s"
    )


def _determinism_row(line: Mapping[str, Any], model: str) -> str:
    if line["figure"] == "invariance":
        equal = f"{line['num_equal_in_batch']} in a batch, {line['num_equal_with_cached_prefix']} cached"
        mode = "deterministic" if line["deterministic"] else "default"
        return f"invariance {model}{mode}: of {line['num_requests']} answers equal: {equal}"
    what = f"batch {line['batch']}" if "batch" in line else f"{line['num_tokens']} tokens"
    ratio = line["ratio"]
    return (
        f"{line['figure']:<17}{model}{what}: deterministic mode takes {ratio['median']:.2f} times as long "
        f"({ratio['least']:.2f} to {ratio['most']:.2f})"
    )
