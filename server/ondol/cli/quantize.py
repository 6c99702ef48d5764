"""`ondol quantize MODEL`: a smaller copy of a model, and what it lost.

Knows flags and the terminal. Invariant: stdout is the report and nothing else.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from ondol.cli.flags import settings_options
from ondol.cli.language import tr
from ondol.cli.signals import terminated_like_interrupted
from ondol.cli.terminal_progress import TerminalProgress
from ondol.config import load_settings
from ondol.engine.worker import choose_device
from ondol.model_manager.measured_error import measure_error
from ondol.model_manager.quantized_model import QuantizedCopy, check_output, quantize_model
from ondol.model_manager.resolve import resolve
from ondol.model_manager.store import gigabytes
from ondol.modeling.fidelity import Fidelity
from ondol.modeling.quantization.saved_formats import SaveMethod
from ondol.modeling.quantization_plan import DEFAULT_GROUP_SIZE, SaveSettings
from ondol.text.tokenizer import TextTokenizer

ROW = "row"


@click.command("quantize")
@click.argument("model")
@click.option(
    "--method",
    type=click.Choice(["nf4", "int8", "int4"]),
    required=True,
    help="nf4 and int8 as bitsandbytes stores them; int4 rounded to nearest, in GPTQ's format.",
)
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    required=True,
    metavar="DIR",
    help="Folder to write; must be new or empty.",
)
@click.option(
    "--group-size",
    type=click.Choice(["32", "64", "128", ROW]),
    help=f"int4: weights that share a scale; row is one scale per row. [default: {DEFAULT_GROUP_SIZE}]",
)
@click.option(
    "--double-quant/--no-double-quant",
    default=None,
    help="nf4: quantize the scales too. [default: double-quant]",
)
@click.option("--quantize-lm-head", is_flag=True, help="Quantize the head too.")
@click.option(
    "--skip-modules",
    multiple=True,
    metavar="NAMES",
    help="Leave these modules as they are: whole names or components of names, joined by commas.",
)
@click.option("--measure/--no-measure", default=True, help="Run both models to compare them.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@settings_options("home", "device", "dtype")
def quantize_command(model: str, output: Path, measure: bool, as_json: bool, **flags: Any) -> None:  # noqa: ANN401 - click hands over what the options say
    """Write a quantized copy of MODEL (a folder, a Hub id or a catalog name) to DIR.

    Then both are run on a short English and a short Korean text: relative logit error, perplexity, and
    how often they agree on the likeliest token. --device and --dtype are for this comparison.

    \b
    Example:
      ondol quantize starter --method nf4 --output ./starter-nf4
    """
    save = save_settings(flags)
    settings = load_settings({key: flags[key] for key in ("config", "home", "device", "dtype")})
    check_output(output)
    with terminated_like_interrupted():
        progress = TerminalProgress()
        source = resolve(model, settings.home, progress)
        tokenizer = TextTokenizer.load(source.path)
        device = choose_device(settings.device)
        copy = quantize_model(source, output, save, progress)
        fidelity = {}
        if measure:
            progress.note("comparing it with its source")
            fidelity = measure_error(source.path, output, tokenizer, device, settings.dtype)
    if as_json:
        print(json.dumps(report(copy, save, fidelity), ensure_ascii=False))
    else:
        print("\n".join(lines(copy, fidelity)))


def save_settings(flags: Mapping[str, Any]) -> SaveSettings:
    """From the flags; raises UsageError where one has no meaning for the method."""
    method: SaveMethod = flags["method"]
    if flags["group_size"] is not None and method != "int4":
        raise click.UsageError(f"--group-size is for int4; {method} has a fixed one.")
    if flags["double_quant"] is not None and method != "nf4":
        raise click.UsageError(f"--double-quant is for nf4; {method} has no such scales.")
    group_size = flags["group_size"] or str(DEFAULT_GROUP_SIZE)
    return SaveSettings(
        method=method,
        group_size=None if group_size == ROW else int(group_size),
        use_double_quant=flags["double_quant"] is not False,
        skip_modules=tuple(
            name for names in flags["skip_modules"] for name in map(str.strip, names.split(",")) if name
        ),
        quantize_head=flags["quantize_lm_head"],
    )


def report(copy: QuantizedCopy, save: SaveSettings, fidelity: Mapping[str, Fidelity]) -> dict[str, Any]:
    """What happened, ready for JSON."""
    return {
        **asdict(copy),
        "path": str(copy.path),
        "method": save.method,
        "error": {
            language: {**asdict(figures), "perplexity_difference": figures.perplexity_difference}
            for language, figures in fidelity.items()
        },
    }


def lines(copy: QuantizedCopy, fidelity: Mapping[str, Fidelity]) -> list[str]:
    """What happened, for people."""
    text = [
        tr(
            "{path}: {size}, {share} of the source's {source_size}; {num} modules quantized",
            path=copy.path,
            size=gigabytes(copy.size_bytes),
            share=f"{copy.size_bytes / copy.source_bytes:.0%}",
            source_size=gigabytes(copy.source_bytes),
            num=copy.num_quantized,
        ),
        *(tr("note: {note}", note=note) for note in copy.notes),
    ]
    for language, figures in fidelity.items():
        text.append(
            tr(
                "{language}: relative logit error {error:.4f}, perplexity {perplexity:.3f} "
                "({difference:+.3f}), same likeliest token {same:.1%} of {num}",
                language=language,
                error=figures.relative_logit_error,
                perplexity=figures.perplexity,
                difference=figures.perplexity_difference,
                same=figures.same_top_token,
                num=figures.num_tokens,
            )
        )
    return text
