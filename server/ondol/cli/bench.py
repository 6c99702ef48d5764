"""`ondol bench`: measure an OpenAI-compatible server, this one or another.

Knows the flags, the terminal and the exit code; measuring is the bench room's. Invariant: the last
line on stdout is one JSON object, also after Ctrl-C; everything else goes to stderr.
"""

import asyncio
import json
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from ondol.bench.campaign import Campaign, SizeChoice
from ondol.bench.ceiling import CeilingMeter
from ondol.bench.plan import WORKLOADS, Workload
from ondol.bench.provenance import load_average, model_record, provenance
from ondol.bench.report import COLUMNS, cells, details, warnings
from ondol.bench.serving_target import ServingOptions, ServingTarget
from ondol.cli.language import tr, translator
from ondol.cli.tables import table
from ondol.errors import ConfigError

EXIT_SOME_FAILED = 1
EXIT_INTERRUPTED = 130


@dataclass(frozen=True, slots=True)
class CampaignOptions:
    """What to measure, how large, how often, and the ceiling to put beside it."""

    workloads: tuple[Workload, ...]
    sizes: SizeChoice
    seed: int
    num_repeats: int
    model_folder: Path | None
    dtype: str
    kv_cache_dtype: str
    threads: int | None
    output: Path | None


def campaign_options(command: Callable[..., None]) -> Callable[..., None]:
    """The arguments that every front of the bench room takes; see `parse_campaign`."""
    positive = click.IntRange(1)
    for option in (
        click.option(
            "--output", type=click.Path(dir_okay=False, path_type=Path), help="Also write the JSON here."
        ),
        click.option("--threads", type=positive, help="CPU threads for measuring the ceiling."),
        click.option(
            "--dtype",
            type=click.Choice(["float32", "bfloat16", "float16"]),
            default="float32",
            show_default=True,
            help="What the weights are served in; for the ceiling.",
        ),
        click.option(
            "--kv-cache-dtype",
            type=click.Choice(["auto", "fp8"]),
            default="auto",
            show_default=True,
            help="What keys and values are kept in; for the ceiling.",
        ),
        click.option(
            "--model-folder",
            type=click.Path(exists=True, file_okay=False, path_type=Path),
            help="Folder of the served model: its ceiling on this machine is put beside the figures.",
        ),
        click.option("--repeat", type=positive, default=3, show_default=True, help="Runs of each workload."),
        click.option("--seed", default=0, show_default=True, help="Decides the prompts."),
        click.option("--output-tokens", type=positive, help="Tokens of an answer."),
        click.option("--input-tokens", type=positive, help="Tokens of a prompt."),
        click.option("--concurrency", type=positive, help="Streams at a time."),
        click.option("--num-requests", type=positive, help="Requests in a run."),
        click.argument("workload", nargs=-1, type=click.Choice([*WORKLOADS, "all"])),
    ):
        command = option(command)
    return command


def parse_campaign(flags: dict[str, Any]) -> CampaignOptions:
    """From the values of `campaign_options`; no workload named means single and concurrent."""
    names = flags["workload"] or ("single", "concurrent")
    return CampaignOptions(
        workloads=tuple(WORKLOADS.values() if "all" in names else (WORKLOADS[name] for name in names)),
        sizes=SizeChoice(
            flags["num_requests"], flags["concurrency"], flags["input_tokens"], flags["output_tokens"]
        ),
        seed=flags["seed"],
        num_repeats=flags["repeat"],
        model_folder=flags["model_folder"],
        dtype=flags["dtype"],
        kv_cache_dtype=flags["kv_cache_dtype"],
        threads=flags["threads"],
        output=flags["output"],
    )


def measure(
    options: CampaignOptions,
    target: dict[str, Any],
    work: Callable[[Campaign], Coroutine[Any, Any, None]],
    packages: tuple[str, ...] = (),
) -> int:
    """Run `work` on a campaign, report on stderr and stdout, and return the exit code.

    `work` may add to `target`, which the JSON carries; `packages` are those whose versions matter.
    """
    if options.output is not None:
        _check_output(options.output)
    origin = provenance(("httpx", *packages))
    meter = None
    if options.model_folder is not None:
        _say(tr("measuring memory bandwidth and a matrix product"))
        meter = CeilingMeter.measure(
            options.model_folder, options.dtype, options.threads, options.kv_cache_dtype
        )
        target["model_record"] = model_record(options.model_folder)
    campaign = Campaign(
        options.workloads,
        options.sizes,
        seed=options.seed,
        num_repeats=options.num_repeats,
        clock=time.perf_counter,
        on_run=_say_composed,
    )
    is_interrupted = False
    try:
        asyncio.run(work(campaign))
    except KeyboardInterrupt:
        is_interrupted = True
    report = {
        **origin,
        "target": target,
        "seed": options.seed,
        "is_interrupted": is_interrupted,
        "ceiling": meter.describe() if meter else None,
        "workloads": campaign.report(meter),
        "load_average_after": load_average(),
    }
    return _publish(report, options.output)


@click.command("bench")
@click.option(
    "--url",
    default="http://127.0.0.1:8000/v1",
    show_default=True,
    help="Base URL, as OpenAI clients take it.",
)
@click.option("--model", help="Name to send; may be left out if the server has one model.")
@click.option("--api-key", help="Sent as a bearer token.")
@click.option("--endpoint", type=click.Choice(["chat", "completions"]), default="chat", show_default=True)
@click.option(
    "--ignore-eos/--no-ignore-eos",
    default=True,
    help="Ask for answers of exact length; servers that refuse the fields need --no-ignore-eos.",
)
@click.option("--extra-body", default="{}", help="JSON object of further fields for every request.")
@click.option("--timeout-s", type=click.FloatRange(0, min_open=True), default=600.0, show_default=True)
@campaign_options
def bench_command(**flags: Any) -> None:  # noqa: ANN401 - click hands over what the options say
    """Measure latency and throughput of an OpenAI-compatible server.

    Workloads: single, concurrent, shared-prefix, long-prompt, mixed, throughput (1000 tokens in and
    out), or all. The last line on stdout is one JSON object; a table for people goes to stderr.

    \b
    Example:
      ondol bench single concurrent --url http://127.0.0.1:8000/v1
    """
    options = parse_campaign(flags)
    serving = ServingOptions(
        url=flags["url"],
        model=flags["model"],
        api_key=flags["api_key"],
        endpoint=flags["endpoint"],
        ignore_eos=flags["ignore_eos"],
        extra_body=_parse_extra_body(flags["extra_body"]),
        timeout_s=flags["timeout_s"],
    )
    target: dict[str, Any] = {
        "url": serving.url,
        "endpoint": serving.endpoint,
        "ignore_eos": serving.ignore_eos,
        "extra_body": serving.extra_body,
    }

    async def work(campaign: Campaign) -> None:
        async with ServingTarget(serving, time.perf_counter) as server:
            await server.prepare()
            target["model"] = server.model
            target["model_card"] = server.model_card
            await campaign.run(server)

    click.get_current_context().exit(measure(options, target, work))


def _publish(report: dict[str, Any], output: Path | None) -> int:
    entries = report["workloads"]
    rows = [cells(entry) for entry in entries]
    _say(table([tr(column) for column in COLUMNS], rows, right=range(1, len(COLUMNS))))
    for entry in entries:
        for line in details(entry):
            _say_composed(line)
    for warning in warnings(report["machine"], entries):
        _say(tr("note: {note}", note=translator().composed(warning)))
    if output is not None:
        output.write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    click.echo(json.dumps(report, ensure_ascii=False))
    if report["is_interrupted"]:
        return EXIT_INTERRUPTED
    has_failures = any(figures["num_failed"] for entry in entries for figures in entry["repeats"])
    return EXIT_SOME_FAILED if has_failures else 0


def _check_output(output: Path) -> None:
    """Raise ConfigError before anything is measured that could not be written."""
    try:
        output.open("a", encoding="utf-8").close()
    except OSError as error:
        raise ConfigError(f"--output {output}: {error.strerror}") from error


def _parse_extra_body(text: str) -> dict[str, Any]:
    try:
        body = json.loads(text)
    except ValueError as error:
        raise ConfigError(f"--extra-body is not JSON: {error}") from error
    if not isinstance(body, dict):
        raise ConfigError("--extra-body is not a JSON object.")
    return body


def _say(line: str) -> None:
    click.echo(line, err=True)


def _say_composed(sentence: str) -> None:
    """A sentence of the bench room, which knows no languages."""
    _say(translator().composed(sentence))
