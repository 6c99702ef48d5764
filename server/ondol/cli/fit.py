"""`ondol fit MODEL`: whether a model fits, in every form, before a byte of its weights moves.

Knows flags and the terminal. Invariant: stdout is the report and nothing else; it is printed also where
nothing fits, before the exit code says so.
"""

import json
from typing import Literal

import click
from pydantic import ByteSize, TypeAdapter, ValidationError

from ondol.cli.flags import settings_options
from ondol.cli.language import tr
from ondol.cli.sizes import memory_size
from ondol.cli.tables import table
from ondol.config import load_settings
from ondol.config.groups import GIB
from ondol.engine.worker import choose_device
from ondol.errors import ConfigError, DoesNotFit
from ondol.inspection.fit import (
    BUS_BYTES_PER_S,
    FitReport,
    FormFit,
    Question,
    measure_fit,
    offload_tokens_per_s,
)
from ondol.inspection.forms import PUBLISHED
from ondol.inspection.machine import Machine, described_machine, this_machine
from ondol.inspection.outline import open_outline
from ondol.modeling.offload_plan import offload_flag

NAMES = {"fp32": "FP32", "int8": "INT8", "nf4": "NF4", "nf4-double": "NF4 double quant"}
HALVES = {"float16": "FP16", "bfloat16": "BF16"}
RIGHT_ALIGNED = tuple(range(1, 9))
KV_DTYPES = ("auto", "float32", "bfloat16", "float16", "fp8")


@click.command("fit")
@click.argument("model")
@click.option(
    "--context", type=click.IntRange(min=1), show_default="up to 4096", help="Tokens of each request."
)
@click.option(
    "--concurrency", type=click.IntRange(min=1), default=1, show_default=True, help="Requests at once."
)
@click.option(
    "--kv-dtype",
    "--kv-cache-dtype",
    "kv_dtype",
    type=click.Choice(KV_DTYPES),
    help="Dtype of keys and values; auto is the model's. [default: as the setting kv_cache_dtype]",
)
@click.option("--memory", metavar="SIZE", help="Ask for a graphics card of this size instead: 24GiB.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@settings_options("home", "device", "dtype", "cpu_offload_gb", "deterministic")
def fit_command(
    model: str,
    context: int | None,
    concurrency: int,
    kv_dtype: str | None,
    memory: str | None,
    as_json: bool,
    **flags: object,
) -> None:
    """Tell whether MODEL (a folder, a Hub id or a catalog name) fits this machine.

    Reads config.json and the headers of the weights only. Weights are counted with their scales and with
    what quantization leaves as it is; they are exact. The workspace is an estimate. Ends with exit code 5
    if no form fits, and tells with which --cpu-offload-gb one would.

    \b
    Example:
      ondol fit llama-2-7b-chat --context 4096 --concurrency 8 --memory 24GiB
    """
    settings = load_settings(flags)
    machine = _machine(settings.device, memory)
    question = Question(
        context,
        concurrency,
        settings.dtype,
        kv_dtype or settings.kv_cache_dtype,
        int(settings.cpu_offload_gb * GIB),
        settings.deterministic,
    )
    with open_outline(model, settings.home) as outline:
        report = measure_fit(outline, machine, question)
    if as_json:
        print(json.dumps(report.to_json(), indent=2, ensure_ascii=False))
    else:
        print(_as_text(report))
    if report.best_form is None:
        smallest = min(report.forms, key=lambda form: form.total_bytes)
        raise DoesNotFit(
            f"{report.facts.name} does not fit: its smallest form needs {memory_size(smallest.total_bytes)}, "
            f"and {memory_size(machine.usable_bytes)} can be used. Lower --context or --concurrency, or take "
            f"a smaller model.{_last_resort_hint(report)}"
        )


def _machine(device: Literal["auto", "cpu", "cuda"], memory: str | None) -> Machine:
    if memory is None:
        return this_machine(choose_device(device))
    try:
        memory_bytes = TypeAdapter(ByteSize).validate_python(memory)
    except ValidationError as error:
        raise ConfigError(f"flag --memory: {memory!r} is no size; write 24GiB or 24GB") from error
    return described_machine(int(memory_bytes), "cpu" if device == "cpu" else "cuda")


def _as_text(report: FitReport) -> str:
    facts = report.facts
    headers = [
        tr("FORM"),
        tr("WEIGHTS"),
        tr("BITS"),
        tr("KV/TOKEN"),
        tr("KV CACHE"),
        tr("WORKSPACE"),
        tr("TOTAL"),
        tr("MAX CONTEXT"),
        tr("MAX REQUESTS"),
        tr("FITS"),
    ]
    rows = [_row(form) for form in report.forms]
    lines = [
        _title(report),
        _memory(report.machine),
        "",
        table(headers, rows, right=RIGHT_ALIGNED),
        "",
        _verdict(report),
    ]
    if facts.quantization:
        lines.append(
            tr(
                "It is published quantized ({quantization}) and is served so; the other rows are what its "
                "full-precision original would take.",
                quantization=facts.quantization,
            )
        )
    if report.context > facts.context_length:
        lines.append(
            tr("The model was made for {context_length} tokens only.", context_length=facts.context_length)
        )
    return "\n".join(lines)


def _title(report: FitReport) -> str:
    facts = report.facts
    sizes = tr("{total}B parameters", total=f"{facts.num_parameters / 1e9:.2f}")
    if facts.num_active_parameters != facts.num_parameters:
        sizes = tr(
            "{total}B parameters, {active}B active per token",
            total=f"{facts.num_parameters / 1e9:.2f}",
            active=f"{facts.num_active_parameters / 1e9:.2f}",
        )
    load = tr(
        "{concurrency} x {context} tokens of context", concurrency=report.concurrency, context=report.context
    )
    return f"{facts.name}: {sizes}; {load}"


def _memory(machine: Machine) -> str:
    total, usable = memory_size(machine.total_bytes), memory_size(machine.usable_bytes)
    if machine.device == "cuda":
        name = machine.name or tr("a graphics card")
        return tr(
            "Memory: {name}, {total}, of which {usable} can be used", name=name, total=total, usable=usable
        )
    return tr("Memory: {total} of RAM, of which {usable} can be used", total=total, usable=usable)


def _row(form: FormFit) -> list[str]:
    return [
        _form_name(form),
        memory_size(form.weights_bytes),
        f"{form.bits_per_parameter:.2f}",
        memory_size(form.kv_bytes_per_token),
        memory_size(form.kv_cache_bytes),
        memory_size(form.workspace_bytes),
        memory_size(form.total_bytes),
        str(form.max_context) if form.max_context else "-",
        str(form.max_concurrency) if form.max_concurrency else "-",
        tr("yes") if form.fits else tr("no"),
    ]


def _form_name(form: FormFit) -> str:
    if form.form == "fp16":
        return HALVES[form.dtype]
    if form.form == PUBLISHED:
        return tr("published")
    return NAMES[form.form]


def _last_resort_hint(report: FitReport) -> str:
    last = report.last_resort
    if last is None or last.offload_needed_bytes is None:
        return ""
    return f" As a last resort, slowly: {offload_flag(last.offload_needed_bytes)}."


def _verdict(report: FitReport) -> str:
    best = next((form for form in report.forms if form.form == report.best_form), None)
    if best is None:
        return "\n".join([tr("It does not fit in any form."), *_with_less(report), *_last_resort(report)])
    return "\n".join([_fits_as(best, report), *_kv_limit(best, report), *_cost_of_offload(best.host_bytes)])


def _with_less(report: FitReport) -> list[str]:
    """What a user who cannot have everything can have."""
    lines = []
    longest = report.furthest(lambda form: form.max_context)
    if longest is not None:
        lines.append(
            tr(
                "With less context it fits as {form}: up to {max_context} tokens for {concurrency} at once.",
                form=_form_name(longest),
                max_context=longest.max_context,
                concurrency=report.concurrency,
            )
        )
    most = report.furthest(lambda form: form.max_concurrency)
    if most is not None:
        lines.append(
            tr(
                "With fewer requests at once it fits as {form}: {max_concurrency} of {context} tokens.",
                form=_form_name(most),
                max_concurrency=most.max_concurrency,
                context=report.context,
            )
        )
    with_fp8 = next((form for form in report.forms if form.form == report.best_with_fp8_kv), None)
    if with_fp8 is not None:
        lines.append(tr("With --kv-cache-dtype fp8 it fits as {form}.", form=_form_name(with_fp8)))
    return lines


def _kv_limit(best: FormFit, report: FitReport) -> list[str]:
    """What is said to fit may need more than an engine takes by itself."""
    limit_bytes = report.machine.kv_limit_bytes
    num_tokens = max(best.max_context * report.concurrency, best.max_concurrency * report.context)
    if limit_bytes is None or num_tokens * best.kv_bytes_per_token <= limit_bytes:
        return []
    return [
        tr(
            "On a CPU an engine takes {limit} of KV cache at most; --kv-cache-memory gives it more.",
            limit=memory_size(limit_bytes),
        )
    ]


def _last_resort(report: FitReport) -> list[str]:
    last = report.last_resort
    if last is None or last.offload_needed_bytes is None:
        return []
    flag = offload_flag(last.offload_needed_bytes)
    line = tr("As a last resort it fits as {form} with {flag}.", form=_form_name(last), flag=flag)
    return [line, *_cost_of_offload(last.offload_needed_bytes)]


def _cost_of_offload(host_bytes: int) -> list[str]:
    """What copying layers from host memory leaves of the speed, by arithmetic."""
    tokens_per_s = offload_tokens_per_s(host_bytes)
    if tokens_per_s is None:
        return []
    return [
        tr(
            "{size} of weights stay in host memory then and are copied to the GPU for every step:",
            size=memory_size(host_bytes),
        ),
        tr(
            "at {bandwidth} GB/s (PCIe 4.0 x16) no answer gets more than {tokens} tokens/s. That is "
            "arithmetic, not a measurement.",
            bandwidth=f"{BUS_BYTES_PER_S / 1e9:.0f}",
            tokens=f"{tokens_per_s:.1f}",
        ),
    ]


def _fits_as(best: FormFit, report: FitReport) -> str:
    return tr(
        "It fits as {form}: up to {max_context} tokens for {concurrency} at once, "
        "or {max_concurrency} requests of {context} tokens.",
        form=_form_name(best),
        max_context=best.max_context,
        concurrency=report.concurrency,
        max_concurrency=best.max_concurrency,
        context=report.context,
    )
