"""The same workloads as serving.py, on the engine process itself: no HTTP, no text, random token ids.

The difference to serving.py's figures is the price of the front door. Prompts have exactly the
wanted lengths, and every token has its own time of arrival up to the engine's step.
"""

import random
import sys
import time
from collections.abc import Coroutine
from contextlib import aclosing
from typing import Any

import click
import msgspec

from ondol.bench.campaign import Campaign
from ondol.bench.ceiling import read_config
from ondol.bench.plan import PlannedRequest
from ondol.bench.runner import Clock
from ondol.bench.trace import RequestFailed, RequestTrace
from ondol.cli.bench import campaign_options, measure, parse_campaign
from ondol.engine.client import EngineClient
from ondol.engine.messages import EngineConfig
from ondol.engine.sampling_params import SamplingParams
from ondol.errors import ConfigError, EngineFailed, OndolError, QueueFull

MAX_QUEUE_SIZE = 1024


class EngineTarget:
    """An engine process as the thing that answers requests."""

    def __init__(self, engine: EngineClient, vocabulary_size: int, clock: Clock) -> None:
        self._engine = engine
        self._vocabulary_size = vocabulary_size
        self._clock = clock

    async def send(self, trace: RequestTrace) -> None:
        """Generate one answer into `trace`; raises RequestFailed."""
        request = trace.request
        prompt_ids = self._prompt_ids(request)
        params = SamplingParams(max_tokens=request.num_output_tokens, temperature=0.0, ignore_eos=True)
        num_output_tokens = 0
        try:
            async with aclosing(self._engine.generate(prompt_ids, params)) as outputs:
                async for output in outputs:
                    if output.token_ids:
                        trace.note_text(self._clock())
                    num_output_tokens += len(output.token_ids)
                    trace.num_cached_tokens = max(trace.num_cached_tokens, output.num_cached_tokens)
                    trace.finish_reason = output.finish_reason
        except (QueueFull, EngineFailed) as error:
            raise RequestFailed(f"{type(error).__name__}: {error}") from error
        trace.num_input_tokens = len(prompt_ids)
        trace.num_output_tokens = num_output_tokens

    def _prompt_ids(self, request: PlannedRequest) -> list[int]:
        num_own = request.num_input_tokens - request.num_prefix_tokens
        return self._ids(request.prefix_key, request.num_prefix_tokens) + self._ids(request.key, num_own)

    def _ids(self, key: str, num_tokens: int) -> list[int]:
        return random.Random(key).choices(range(self._vocabulary_size), k=num_tokens)


def run_on_engine(flags: dict[str, Any]) -> int:
    """Start an engine, measure, and return the exit code."""
    options = parse_campaign(flags)
    if options.model_folder is None:
        raise ConfigError("--model-folder is needed: there is no server that knows the model.")
    vocabulary_size = int(read_config(options.model_folder)["vocab_size"])
    config = EngineConfig(
        model_path=str(options.model_folder),
        device=flags["device"],
        dtype=options.dtype,
        max_num_seqs=flags["max_num_seqs"],
        max_num_batched_tokens=flags["max_num_batched_tokens"],
        enable_prefix_caching=flags["prefix_caching"],
        num_threads=options.threads,
    )
    target: dict[str, Any] = {"engine_config": msgspec.to_builtins(config)}

    def work(campaign: Campaign) -> Coroutine[Any, Any, None]:
        return _drive(campaign, config, vocabulary_size, target)

    return measure(options, target, work, packages=("torch",))


async def _drive(
    campaign: Campaign, config: EngineConfig, vocabulary_size: int, target: dict[str, Any]
) -> None:
    engine = await EngineClient.start(config, max_queue_size=MAX_QUEUE_SIZE)
    try:
        target["engine"] = msgspec.to_builtins(engine.ready)
        engine_target = EngineTarget(engine, vocabulary_size, time.perf_counter)
        warm_up = PlannedRequest("warm-up", "warm-up", num_input_tokens=64, num_output_tokens=16)
        await engine_target.send(RequestTrace(warm_up, time.perf_counter()))
        await campaign.run(engine_target)
    finally:
        await engine.close()


@click.command()
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
@click.option("--max-num-seqs", type=click.IntRange(1), default=64, show_default=True)
@click.option("--max-num-batched-tokens", type=click.IntRange(1), default=512, show_default=True)
@click.option("--prefix-caching/--no-prefix-caching", default=True, show_default=True)
@campaign_options
def main(**flags: Any) -> None:  # noqa: ANN401 - click hands over what the options say
    """Measure the engine without HTTP; workloads as in `ondol bench`."""
    click.get_current_context().exit(run_on_engine(flags))


if __name__ == "__main__":
    try:
        code = main(standalone_mode=False)
    except (OndolError, click.ClickException) as error:
        click.echo(f"error: {error}", err=True)
        code = error.exit_code
    sys.exit(code)
