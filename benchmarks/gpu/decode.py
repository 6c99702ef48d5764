"""Decode steps, first tokens and memory of one model in every kind of weights, beside the ceiling.

Invariant: a figure is the engine's own step, scheduling and sampling included, with every request decoding.
"""

import time
from dataclasses import dataclass
from functools import partial
from typing import Any

from benchmarks.gpu.ceilings import DeviceRates, decode_ceiling, prefill_ms
from benchmarks.gpu.machine import Machine, peak_bytes
from benchmarks.gpu.random_engine import BLOCK_SIZE, EngineSize, RandomEngine, StepPath
from benchmarks.gpu.record import Recorder
from benchmarks.gpu.shapes import ModelShape
from benchmarks.gpu.timing import spread, synchronize

OTHER_PATHS = (StepPath(overlaps=False), StepPath(uses_graphs=False), StepPath(False, False))


@dataclass(frozen=True, slots=True)
class DecodePlan:
    """What is measured.

    Attributes:
        context: tokens before the first measured step, where they fit.
        num_steps: in each of `num_repeats` timed stretches.
        num_prompt_tokens: of the prompt whose first token is timed.
        kv_cache_dtype: "auto" or "fp8".
    """

    kinds: tuple[str, ...] = ("bf16", "int4", "nf4", "int8")
    batches: tuple[int, ...] = (1, 8, 64, 256)
    context: int = 256
    num_warm_up_steps: int = 8
    num_steps: int = 32
    num_repeats: int = 3
    num_prompt_tokens: int = 1000
    kv_cache_dtype: str = "auto"

    @property
    def num_extra_tokens(self) -> int:
        """Tokens that a request may grow by: while others prefill, warm up, are counted and timed."""
        num_stretches = self.num_repeats + len(OTHER_PATHS)
        num_warm_ups = 2 + len(OTHER_PATHS)
        return num_warm_ups * self.num_warm_up_steps + self.num_steps * num_stretches + 64


SMOKE_PLAN = DecodePlan(
    batches=(1, 3), context=24, num_warm_up_steps=1, num_steps=2, num_repeats=3, num_prompt_tokens=40
)


def measure_kind(
    recorder: Recorder, machine: Machine, shape: ModelShape, kind: str, plan: DecodePlan
) -> None:
    """One kind of a model's weights: first token, steps of every batch, memory."""
    machine.reset_peak()
    longest = plan.context + plan.num_extra_tokens
    size = EngineSize(
        num_tokens=max(max(plan.batches) * (longest + BLOCK_SIZE), 2 * plan.num_prompt_tokens),
        max_model_len=max(longest, plan.num_prompt_tokens + BLOCK_SIZE),
        max_num_seqs=max(plan.batches),
        kv_cache_dtype=plan.kv_cache_dtype,
    )
    engine = RandomEngine(shape, kind, machine, size)
    recorder.figure("first token", **engine.describe(), **first_token(engine, plan, machine.rates))
    for batch in plan.batches:
        # What is left for the context where the pool is smaller than was asked for.
        context = min(plan.context, engine.num_pool_tokens // batch - plan.num_extra_tokens - BLOCK_SIZE)
        what = f"{shape.name} {kind} batch {batch}"
        if context < 1:
            recorder.skip(what, "no context fits the memory")
            continue
        recorder.attempt(what, partial(_measure_batch, recorder, engine, batch, context, plan, machine.rates))
        engine.close_all()
    recorder.figure(
        "memory",
        **engine.describe(),
        weights_bytes=engine.weights_bytes,
        kv_bytes=engine.kv_bytes,
        peak_bytes=peak_bytes(machine.device),
    )


def _measure_batch(
    recorder: Recorder, engine: RandomEngine, batch: int, context: int, plan: DecodePlan, rates: DeviceRates
) -> None:
    figures = decode_steps(engine, batch, context, plan)
    ceiling = decode_ceiling(
        engine.shape.config,
        engine.kind,
        batch,
        figures["mean_context"],
        num_active_experts=figures["active_experts"],
        kv_element_bytes=engine.kv_element_bytes,
    )
    ceiling_ms = ceiling.step_ms(rates)
    recorder.figure(
        "decode",
        **engine.describe(),
        batch=batch,
        context=context,
        **figures,
        ceiling_ms=ceiling_ms,
        share_of_ceiling=ceiling_ms / figures["step_ms"]["median"],
    )
    _other_paths(recorder, engine, batch, plan)


def decode_steps(engine: RandomEngine, batch: int, context: int, plan: DecodePlan) -> dict[str, Any]:
    """Steps of so many requests, all decoding; they stay open."""
    for _ in range(batch):
        engine.open(context, plan.num_extra_tokens)
    engine.prefill_all()
    for _ in range(plan.num_warm_up_steps):
        engine.step()
    active_experts = engine.count_active_experts()
    for _ in range(plan.num_warm_up_steps):
        engine.step()
    begin_context = engine.mean_context()
    tokens_per_s = [_stretch_tokens_per_s(engine, plan) for _ in range(plan.num_repeats)]
    return {
        "step_ms": spread([batch * 1e3 / rate for rate in tokens_per_s]),
        "tokens_per_s": spread(tokens_per_s),
        "mean_context": (begin_context + engine.mean_context()) / 2,
        "active_experts": active_experts,
    }


def _stretch_tokens_per_s(engine: RandomEngine, plan: DecodePlan) -> float:
    synchronize(engine.device)
    started = time.perf_counter()
    # By tokens, not by calls: what a step gives back may lag behind what it launches.
    num_tokens = sum(len(output.token_ids) for _ in range(plan.num_steps) for output in engine.step())
    synchronize(engine.device)
    return num_tokens / (time.perf_counter() - started)


def _other_paths(recorder: Recorder, engine: RandomEngine, batch: int, plan: DecodePlan) -> None:
    """The same requests, without graphs or overlap: what these bring."""
    for path in OTHER_PATHS:
        engine.use(path)
        for _ in range(plan.num_warm_up_steps):
            engine.step()
        step_ms = batch * 1e3 / _stretch_tokens_per_s(engine, plan)
        recorder.figure("decode path", **engine.describe(), batch=batch, step_ms=step_ms)
    engine.use(StepPath())


def first_token(engine: RandomEngine, plan: DecodePlan, rates: DeviceRates) -> dict[str, Any]:
    """Of one prompt with nobody beside it."""
    times_ms = []
    for _ in range(plan.num_repeats + 1):
        synchronize(engine.device)
        started = time.perf_counter()
        engine.open(plan.num_prompt_tokens, 2)
        while not any(output.token_ids for output in engine.step()):
            pass
        times_ms.append((time.perf_counter() - started) * 1e3)
        engine.close_all()
    return {
        "num_prompt_tokens": plan.num_prompt_tokens,
        "ttft_ms": spread(times_ms[1:]),
        "ceiling_ms": prefill_ms(engine.shape.config, plan.num_prompt_tokens, rates),
    }
