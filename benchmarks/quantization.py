"""What each quantization costs and saves: one model, every method, one engine process at a time.

For each method: anonymous resident memory of the engine process, bytes of its weights, tokens per second
of one stream and of many, and how far its logits and perplexity are from those of the weights as they
are. Loads are those of engine.py, shorter. int4 is written by `ondol quantize` first. Prints a table on
stderr and one JSON object as the last line on stdout.
"""

import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import click
import torch
from engine import MAX_QUEUE_SIZE, EngineTarget

from ondol.bench.campaign import Campaign
from ondol.bench.ceiling import CeilingMeter, read_config
from ondol.bench.plan import PlannedRequest, Sizes
from ondol.bench.provenance import load_average, model_record, provenance
from ondol.bench.report import warnings
from ondol.bench.trace import RequestTrace
from ondol.cli.bench import EXIT_SOME_FAILED, CampaignOptions, campaign_options, parse_campaign
from ondol.engine.client import EngineClient
from ondol.engine.messages import EngineConfig, QuantizationConfig
from ondol.errors import ConfigError, OndolError
from ondol.model_manager.progress import Progress
from ondol.model_manager.quantized_model import quantize_model
from ondol.model_manager.resolve import from_folder
from ondol.modeling.fidelity import LANGUAGES, MAX_TOKENS, compare, reference_text, whole_prompt_logits
from ondol.modeling.loading import load_model
from ondol.modeling.quantization.on_load import OnLoad
from ondol.modeling.quantization.saved_formats import SaveMethod
from ondol.modeling.quantization_plan import SaveSettings
from ondol.text.tokenizer import TextTokenizer

CPU = torch.device("cpu")
SAVED_METHOD: SaveMethod = "int4"
KV_CACHE_BYTES = 512 * 2**20
# Short runs: without a fused kernel every step dequantizes all weights, and a usual run would take hours.
SIZES = {"single": Sizes(2, 1, 64, 32), "concurrent": Sizes(16, 16, 64, 32)}
STARTER_NOTE = (
    "the weights of this model were 4-bit before they were unpacked: the figures are those of quantizing "
    "a second time, and 'none' is no full-precision model"
)


@dataclass(frozen=True, slots=True)
class Method:
    """One way to hold the weights; `on_load` is None for what lies in the folder as it is."""

    name: str
    on_load: OnLoad | None = None
    is_saved: bool = False

    def engine_quantization(self) -> QuantizationConfig:
        """The same, as the engine takes it."""
        if self.on_load is None:
            return QuantizationConfig()
        return QuantizationConfig(method=self.on_load.method, use_double_quant=self.on_load.use_double_quant)


METHODS = (
    Method("none"),
    Method("int8", OnLoad("int8")),
    Method("nf4", OnLoad("nf4")),
    Method("nf4+double", OnLoad("nf4", use_double_quant=True)),
    Method("fp4", OnLoad("fp4")),
    Method(SAVED_METHOD, is_saved=True),
)

Logits = dict[str, torch.Tensor]


class Measurement:
    """One method after the other, against the weights as they are."""

    def __init__(self, folder: Path, options: CampaignOptions, meter: CeilingMeter | None) -> None:
        self._folder = folder
        self._options = options
        self._meter = meter
        tokenizer = TextTokenizer.load(folder)
        self._prompts = {language: tokenizer.encode_text(reference_text(language)) for language in LANGUAGES}
        self._vocabulary_size = int(read_config(folder)["vocab_size"])
        self._expected = self._logits(folder, None)

    def of(self, method: Method, folder: Path) -> dict[str, Any]:
        """All figures of one method."""
        workloads = [
            replace(workload, sizes=SIZES.get(workload.name, workload.sizes))
            for workload in self._options.workloads
        ]
        campaign = Campaign(
            workloads,
            self._options.sizes,
            seed=self._options.seed,
            num_repeats=self._options.num_repeats,
            clock=time.perf_counter,
            on_run=lambda line: _say(f"{method.name}: {line}"),
        )
        process = asyncio.run(self._serve(campaign, method, folder))
        found = self._logits(folder, method.on_load)
        error = {
            language: asdict(
                compare(self._expected[language], logits, self._prompts[language][: len(logits)])
            )
            for language, logits in found.items()
        }
        # The ceiling knows plain weights only.
        meter = self._meter if method.on_load is None and not method.is_saved else None
        return {"method": method.name, **process, "workloads": campaign.report(meter), "error": error}

    async def _serve(self, campaign: Campaign, method: Method, folder: Path) -> dict[str, Any]:
        config = EngineConfig(
            model_path=str(folder),
            device="cpu",
            dtype=self._options.dtype,
            quantization=method.engine_quantization(),
            max_num_batched_tokens=512,
            kv_cache_bytes=KV_CACHE_BYTES,
            max_model_len=1024,
            num_threads=self._options.threads,
        )
        engine = await EngineClient.start(config, max_queue_size=MAX_QUEUE_SIZE)
        try:
            loaded_bytes = resident_bytes(engine.process_id)
            target = EngineTarget(engine, self._vocabulary_size, time.perf_counter)
            warm_up = PlannedRequest("warm-up", "warm-up", num_input_tokens=64, num_output_tokens=16)
            await target.send(RequestTrace(warm_up, time.perf_counter()))
            await campaign.run(target)
            return {
                "weights_bytes": engine.ready.weights_bytes,
                "resident_bytes_loaded": loaded_bytes,
                "resident_bytes_after_runs": resident_bytes(engine.process_id),
                "load_seconds": engine.ready.load_seconds,
            }
        finally:
            await engine.close()

    def _logits(self, folder: Path, on_load: OnLoad | None) -> Logits:
        weights = load_model(folder, CPU, self._options.dtype, on_load=on_load)
        num_tokens = min(MAX_TOKENS, weights.context_length)
        return {
            language: whole_prompt_logits(weights, token_ids[:num_tokens])
            for language, token_ids in self._prompts.items()
        }


def resident_bytes(process_id: int) -> int:
    """Anonymous resident memory of a process: what is its own, without files that it maps."""
    for line in Path(f"/proc/{process_id}/status").read_text(encoding="ascii").splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise OndolError("This benchmark reads RssAnon from /proc, which this system does not have.")


def table(entries: Sequence[Mapping[str, Any]]) -> str:
    """Medians, for people."""
    lines = [f"{'method':<12}{'resident MB':>12}{'weights MB':>12}{'tok/s single':>14}{'concurrent':>12}"]
    lines[0] += "".join(f"{f'{language} error':>16}{'perplexity':>12}" for language in LANGUAGES)
    for entry in entries:
        rates = {
            workload["workload"]: workload["summary"]["output_tokens_per_s"]["median"]
            for workload in entry["workloads"]
        }
        line = f"{entry['method']:<12}{entry['resident_bytes_loaded'] / 1e6:>12.0f}"
        line += f"{entry['weights_bytes'] / 1e6:>12.0f}"
        line += f"{rates.get('single', 0):>14.1f}{rates.get('concurrent', 0):>12.1f}"
        for language in LANGUAGES:
            figures = entry["error"][language]
            line += f"{figures['relative_logit_error']:>16.4f}{figures['perplexity']:>12.3f}"
        lines.append(line)
    return "\n".join(lines)


def run(flags: dict[str, Any]) -> int:
    """Measure the chosen methods, report, and return the exit code."""
    options = parse_campaign(flags)
    if options.model_folder is None:
        raise ConfigError("--model-folder is needed: the model to quantize.")
    chosen = [method for method in METHODS if method.name in (flags["method"] or [m.name for m in METHODS])]
    origin = provenance(("torch", "bitsandbytes"))
    record = model_record(options.model_folder)
    notes = [STARTER_NOTE] if record and record.get("kind") == "wheel" else []
    _say("measuring memory bandwidth and a matrix product")
    meter = CeilingMeter.measure(options.model_folder, options.dtype, options.threads)
    measurement = Measurement(options.model_folder, options, meter)
    entries = []
    with tempfile.TemporaryDirectory() as scratch:
        for method in chosen:
            folder = options.model_folder
            if method.is_saved:
                source, folder = from_folder(folder), Path(scratch) / method.name
                quantize_model(source, folder, SaveSettings(SAVED_METHOD), Progress())
            entries.append(measurement.of(method, folder))
    report = {
        **origin,
        "model_record": record,
        "dtype": options.dtype,
        "threads": options.threads,
        "notes": notes,
        "ceiling": meter.describe(),
        "methods": entries,
        "load_average_after": load_average(),
    }
    _say(table(entries))
    workloads = [workload for entry in entries for workload in entry["workloads"]]
    for note in (*notes, *warnings(origin["machine"], workloads)):
        _say(f"note: {note}")
    if options.output is not None:
        options.output.write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    click.echo(json.dumps(report, ensure_ascii=False))
    has_failures = any(figures["num_failed"] for workload in workloads for figures in workload["repeats"])
    return EXIT_SOME_FAILED if has_failures else 0


@click.command()
@click.option("--method", type=click.Choice([method.name for method in METHODS]), multiple=True)
@campaign_options
def main(**flags: Any) -> None:  # noqa: ANN401 - click hands over what the options say
    """Compare the quantization methods on one model, on the CPU."""
    click.get_current_context().exit(run(flags))


def _say(line: str) -> None:
    click.echo(line, err=True)


if __name__ == "__main__":
    try:
        code = main(standalone_mode=False)
    except (OndolError, click.ClickException) as error:
        click.echo(f"error: {error}", err=True)
        code = error.exit_code
    sys.exit(code)
