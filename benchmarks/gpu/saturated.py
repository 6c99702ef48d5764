"""Requests per second of an engine whose memory is full: 1,000 tokens in, 1,000 out, in a steady window.

The first requests begin in the middle of their answers, evenly spread, so that the window opens on what hours
of load would look like: some end while others begin. Invariant: there is always a request waiting.
"""

import time
from dataclasses import dataclass
from typing import Any

from benchmarks.gpu.ceilings import request_rate
from benchmarks.gpu.machine import Machine, peak_bytes
from benchmarks.gpu.random_engine import BLOCK_SIZE, EngineSize, RandomEngine
from benchmarks.gpu.record import Recorder
from benchmarks.gpu.shapes import ModelShape
from benchmarks.gpu.timing import synchronize


@dataclass(frozen=True, slots=True)
class SaturatedPlan:
    """The load.

    Attributes:
        num_in, num_out: tokens of each request.
        max_num_seqs: requests at once, if memory holds them.
        settle_s: before the window opens, once everybody decodes.
        kv_cache_dtype: "auto" or "fp8".
    """

    kinds: tuple[str, ...] = ("bf16", "int4")
    num_in: int = 1000
    num_out: int = 1000
    max_num_seqs: int = 512
    settle_s: float = 2.0
    window_s: float = 15.0
    kv_cache_dtype: str = "auto"


SMOKE_PLAN = SaturatedPlan(kinds=("bf16",), num_in=24, num_out=16, max_num_seqs=4, settle_s=0.0, window_s=0.5)


def measure_kind(
    recorder: Recorder, machine: Machine, shape: ModelShape, kind: str, plan: SaturatedPlan
) -> None:
    """One kind of a model's weights."""
    machine.reset_peak()
    request_tokens = plan.num_in + plan.num_out
    size = EngineSize(
        num_tokens=plan.max_num_seqs * (request_tokens + BLOCK_SIZE),
        max_model_len=request_tokens,
        max_num_seqs=plan.max_num_seqs,
        kv_cache_dtype=plan.kv_cache_dtype,
        # On a CPU nothing is recorded, only called.
        records_ahead=machine.device.type == "cuda",
    )
    engine = RandomEngine(shape, kind, machine, size)
    figures = _window(engine, plan)
    ceiling = request_rate(
        shape.config,
        kind,
        (plan.num_in, plan.num_out),
        engine.weights_bytes + engine.kv_bytes,
        machine.rates,
        kv_element_bytes=engine.kv_element_bytes,
    )
    recorder.figure(
        "saturated",
        **engine.describe(),
        num_in=plan.num_in,
        num_out=plan.num_out,
        **figures,
        ceiling_requests_per_s=ceiling,
        share_of_ceiling=figures["requests_per_s"] / ceiling,
        kv_bytes=engine.kv_bytes,
        peak_bytes=peak_bytes(machine.device),
    )


def _window(engine: RandomEngine, plan: SaturatedPlan) -> dict[str, Any]:
    _fill(engine, plan)
    _step_for(engine, plan, plan.settle_s)
    preemptions = engine.scheduler.num_preemptions
    synchronize(engine.device)
    num_output_tokens, num_begun, num_ended, num_steps, elapsed_s = _step_for(engine, plan, plan.window_s)
    return {
        # By tokens: what begins and ends in the window rounds to whole requests.
        "requests_per_s": num_output_tokens / plan.num_out / elapsed_s,
        "output_tokens_per_s": num_output_tokens / elapsed_s,
        "total_tokens_per_s": num_output_tokens * (1 + plan.num_in / plan.num_out) / elapsed_s,
        "num_begun": num_begun,
        "num_ended": num_ended,
        "num_running": len(engine.scheduler.running),
        "num_preemptions": engine.scheduler.num_preemptions - preemptions,
        "window_s": elapsed_s,
        "step_ms": elapsed_s * 1e3 / num_steps,
    }


def _fill(engine: RandomEngine, plan: SaturatedPlan) -> None:
    """Fill the memory with requests that are anywhere between their first token and their last."""
    mean_tokens = plan.num_in + plan.num_out // 2
    num_requests = min(plan.max_num_seqs, engine.num_pool_tokens // mean_tokens)
    for index in range(num_requests):
        done = index * plan.num_out // num_requests
        engine.open(plan.num_in, plan.num_out, num_output_tokens=done)
    engine.prefill_all()


def _step_for(
    engine: RandomEngine, plan: SaturatedPlan, duration_s: float
) -> tuple[int, int, int, int, float]:
    """Step for a while with somebody always waiting.

    Returns:
        Output tokens, requests that brought their first token, that ended, steps, and seconds.
    """
    num_tokens = num_begun = num_ended = num_steps = 0
    started = time.perf_counter()
    while (elapsed_s := time.perf_counter() - started) < duration_s or not num_steps:
        while len(engine.scheduler.waiting) < 2:
            engine.open(plan.num_in, plan.num_out)
        for output in engine.step():
            num_tokens += len(output.token_ids)
            num_begun += output.first_index == 0
            num_ended += output.finish_reason is not None
        num_steps += 1
    return num_tokens, num_begun, num_ended, num_steps, elapsed_s
