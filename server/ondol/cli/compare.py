"""`ondol compare A B`: two models side by side.

Knows flags and the terminal. Invariant: stdout is the table and nothing else; the warning goes to stderr.
"""

import json
from typing import Any

import click

from ondol.cli.flags import settings_options
from ondol.cli.language import tr
from ondol.cli.sizes import memory_size
from ondol.cli.tables import table
from ondol.config import load_settings
from ondol.inspection.comparison import Comparison, compare_models
from ondol.inspection.outline import open_outline

NONE = "-"


@click.command("compare")
@click.argument("first", metavar="A")
@click.argument("second", metavar="B")
@click.option("--md", "as_markdown", is_flag=True, help="Print a Markdown table.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@settings_options("home")
def compare_command(first: str, second: str, as_markdown: bool, as_json: bool, **flags: object) -> None:
    """Show the models A and B (folders, Hub ids or catalog names) side by side, without their weights.

    Sizes are those of the models in full precision and as they would be quantized on load, where embeddings,
    norms and head stay in 16 bits; KV bytes per token are in 16 bits.

    \b
    Example:
      ondol compare qwen2-1.5b-instruct llama-3-8b-instruct --md
    """
    if as_markdown and as_json:
        raise click.UsageError("--md and --json exclude each other.")
    home = load_settings(flags).home
    with open_outline(first, home) as first_outline, open_outline(second, home) as second_outline:
        comparison = compare_models(first_outline, second_outline)
    if as_json:
        print(json.dumps(comparison.to_json(), indent=2, ensure_ascii=False))
    else:
        print(_as_markdown(comparison) if as_markdown else _as_table(comparison))
    if comparison.is_uneven:
        warning = tr(
            "The larger model has {ratio} times the parameters of the other: what they can do and what they "
            "cost is not comparable.",
            ratio=f"{comparison.size_ratio:.1f}",
        )
        click.echo(warning, err=True)


def _as_table(comparison: Comparison) -> str:
    headers = ["", comparison.first.facts.name, comparison.second.facts.name]
    return table(headers, _rows(comparison), right=(1, 2))


def _as_markdown(comparison: Comparison) -> str:
    headers = ["", comparison.first.facts.name, comparison.second.facts.name]
    lines = [headers, ["---", "---:", "---:"], *_rows(comparison)]
    return "\n".join(
        f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |" for cells in lines
    )


def _rows(comparison: Comparison) -> list[list[str]]:
    labels = _labels()
    first, second = dict(comparison.first.values()), dict(comparison.second.values())
    return [
        [labels[key], _text(key, first[key]), _text(key, second[key])]
        for key in first
        if first[key] is not None or second[key] is not None
    ]


def _text(key: str, value: Any) -> str:  # noqa: ANN401 - whatever a row holds
    if value is None:
        return NONE
    if isinstance(value, bool):
        return tr("yes") if value else tr("no")
    if key.endswith("_bytes") or key == "kv_bytes_per_token":
        return memory_size(value)
    if isinstance(value, int):
        return f"{value:,}"
    return str(value)


def _labels() -> dict[str, str]:
    return {
        "architecture": tr("architecture"),
        "num_parameters": tr("parameters"),
        "num_active_parameters": tr("active parameters per token"),
        "num_layers": tr("layers"),
        "hidden_size": tr("hidden size"),
        "intermediate_size": tr("intermediate size"),
        "num_heads": tr("attention heads"),
        "num_kv_heads": tr("kv heads"),
        "head_dim": tr("head dim"),
        "vocab_size": tr("vocabulary"),
        "context_length": tr("context length"),
        "sliding_window": tr("sliding window"),
        "rope": tr("rope"),
        "norm": tr("norm"),
        "activation": tr("activation"),
        "is_tied": tr("head tied to embeddings"),
        "num_experts": tr("routed experts"),
        "num_experts_per_token": tr("experts per token"),
        "expert_intermediate_size": tr("expert intermediate size"),
        "quantization": tr("published quantization"),
        "stored_dtype": tr("published dtype"),
        "fp32_bytes": tr("weights in FP32"),
        "fp16_bytes": tr("weights in FP16"),
        "int8_bytes": tr("weights in INT8"),
        "nf4_bytes": tr("weights in NF4"),
        "nf4-double_bytes": tr("weights in NF4, double quant"),
        "kv_bytes_per_token": tr("KV cache per token"),
        "licence": tr("licence"),
    }
