"""What a decode step costs the host, around a model that computes nothing.

On a GPU this runs beside the device's work, and users wait for what is longer than that. Tensors are on the
CPU: a graph's replay (`graph`) and sampling (`sample`) are carried out here, where a GPU would be told to.
Times are this thread's processor time, so that other programs count little; the least of many is nearest to a
quiet machine. Prints a table on stderr and one JSON object as the last line on stdout.
"""

import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import click
import torch
from torch import Tensor

from ondol.bench.provenance import load_average, provenance
from ondol.engine.block_manager import BlockManager
from ondol.engine.core import EngineCore, Launched
from ondol.engine.decode_step import DecodeStep
from ondol.engine.kv_cache import KVPlan, KVShape, allocate
from ondol.engine.messages import AddRequest
from ondol.engine.model_runner import ModelRunner
from ondol.engine.sampler import Sampler
from ondol.engine.sampling_params import SamplingParams
from ondol.engine.scheduler import Scheduler
from ondol.engine.step_sizes import StepSizes
from ondol.kernels.backend import REFERENCE
from ondol.modeling.loading import Model

TARGET_MS = 0.3
STRETCH_STEPS = 20
CPU = torch.device("cpu")
BLOCK_SIZE, NUM_PROMPT_TOKENS, VOCAB_SIZE = 16, 256, 64
# `launch` holds `place` and `graph`.
PHASES = ("schedule", "launch", "place", "graph", "sample", "take_in")
# As Triton's: nothing has to be cleared before it is read.
KERNELS = replace(REFERENCE, reads_stale_values=False)


class NoModel:
    """Logits of nothing."""

    def __init__(self, num_rows: int) -> None:
        self._logits = torch.rand((num_rows, VOCAB_SIZE))

    def forward(self, token_ids: Tensor, *rest: object) -> Tensor:
        """As `Model.forward`."""
        return self._logits[: len(cast(Tensor, rest[-1]))]


class Clock:
    """Adds up the time of phases.

    A phase is a method of an object, which is replaced by one that is timed.
    """

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(PHASES, 0.0)

    def time(self, owner: object, name: str, phase: str) -> None:
        """Time a method of `owner` as part of `phase`."""
        method: Callable[..., Any] = getattr(owner, name)

        def timed(*arguments: object) -> Any:  # noqa: ANN401 (whatever the method gives)
            started = time.thread_time()
            try:
                return method(*arguments)
            finally:
                self.seconds[phase] += time.thread_time() - started

        setattr(owner, name, timed)


class TimedRunner:
    """A runner whose launches and collections are timed."""

    def __init__(self, runner: ModelRunner, clock: Clock) -> None:
        self._runner = runner
        self._clock = clock
        clock.time(self._runner, "launch", "launch")

    def launch(self, batch: Any) -> Launched:  # noqa: ANN401 (handed on)
        """As `Runner.launch`."""
        launched = self._runner.launch(batch)
        self._clock.time(launched, "sample", "sample")
        self._clock.time(launched, "collect", "take_in")
        return launched


def build(num_seqs: int, max_model_len: int, clock: Clock) -> EngineCore:
    """An engine as on a GPU: steps overlap and run from static buffers."""
    num_blocks = num_seqs * (max_model_len // BLOCK_SIZE + 1)
    model = cast(Model, NoModel(1024))
    cache = allocate(
        KVPlan(num_blocks + 1, BLOCK_SIZE, max_model_len, 0), KVShape(1, 1, 1), torch.float32, CPU
    )
    decode_step = DecodeStep(model, cache, KERNELS, StepSizes(num_seqs, max_model_len), VOCAB_SIZE, CPU)
    sampler = Sampler(VOCAB_SIZE, CPU, KERNELS)
    for owner, name, phase in (
        (decode_step, "place", "place"),
        (decode_step, "run", "graph"),
    ):
        clock.time(owner, name, phase)
    runner = ModelRunner(model, cache, sampler, CPU, KERNELS, decode_step)
    scheduler = Scheduler(BlockManager(num_blocks, BLOCK_SIZE), num_seqs, 8192)
    for name in ("can_schedule_ahead", "schedule"):
        clock.time(scheduler, name, "schedule")
    clock.time(scheduler, "update", "take_in")
    return EngineCore(
        TimedRunner(runner, clock), scheduler, frozenset(), max_model_len, VOCAB_SIZE, overlaps=True
    )


def measure(num_seqs: int, num_steps: int, temperature: float) -> list[dict[str, float]]:
    """Milliseconds per step of each phase and of the whole step, which holds them; one entry per stretch."""
    clock = Clock()
    core = build(num_seqs, NUM_PROMPT_TOKENS + 2 * num_steps, clock)
    for index in range(num_seqs):
        params = SamplingParams(
            max_tokens=2 * num_steps, temperature=temperature, seed=index, ignore_eos=True
        )
        prompt_ids = [(index + place) % VOCAB_SIZE for place in range(NUM_PROMPT_TOKENS)]
        core.add(AddRequest(request_id=str(index), prompt_ids=prompt_ids, params=params))
    while core.stats().num_running < num_seqs:
        core.step()
    for _ in range(8):
        core.step()
    return [_stretch(core, clock) for _ in range(num_steps // STRETCH_STEPS)]


def _stretch(core: EngineCore, clock: Clock) -> dict[str, float]:
    clock.seconds.update(dict.fromkeys(PHASES, 0.0))
    started = time.thread_time()
    for _ in range(STRETCH_STEPS):
        core.step()
    seconds = {**clock.seconds, "step": time.thread_time() - started}
    return {name: value * 1e3 / STRETCH_STEPS for name, value in seconds.items()}


def _spread(values: list[float]) -> dict[str, float]:
    return {"least": min(values), "median": statistics.median(values), "most": max(values)}


@click.command()
@click.option("--num-seqs", type=click.IntRange(1), default=64, show_default=True)
@click.option("--num-steps", type=click.IntRange(1), default=200, show_default=True)
@click.option("--repeats", type=click.IntRange(1), default=5, show_default=True)
@click.option("--temperature", type=float, default=0.0, show_default=True)
def main(num_seqs: int, num_steps: int, repeats: int, temperature: float) -> None:
    """Measure what a decode step costs the host."""
    torch.set_num_threads(1)
    origin = provenance(("torch", "msgspec"))
    found = [times for _ in range(repeats) for times in measure(num_seqs, num_steps, temperature)]
    figures = {name: _spread([one[name] for one in found]) for name in found[0]}
    for name, figure in figures.items():
        row = ", ".join(f"{kind} {value:.3f}" for kind, value in figure.items())
        click.echo(f"{name:10} {row} ms", err=True)
    click.echo(f"{num_seqs} requests; at most {TARGET_MS} ms wanted", err=True)
    settings = {"num_seqs": num_seqs, "num_steps": num_steps, "temperature": temperature}
    report = {
        **origin,
        "settings": settings,
        "step_ms": figures,
        "stretches_ms": found,
        "target_ms": TARGET_MS,
    }
    click.echo(json.dumps({**report, "load_average_after": load_average()}))


if __name__ == "__main__":
    sys.exit(main(standalone_mode=False))
