"""What deterministic mode costs: the same steps by both kinds of kernels, in turns.

Two engines with the same weights do the same work one after the other, so that what else the machine does
falls on both. Invariant: a ratio is that of neighbouring measurements of one run, never of two runs.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from benchmarks.gpu.machine import Machine, deterministic_twin
from benchmarks.gpu.random_engine import BLOCK_SIZE, EngineSize, RandomEngine, StepPath
from benchmarks.gpu.record import Recorder
from benchmarks.gpu.shapes import ModelShape
from benchmarks.gpu.timing import spread, synchronize


@dataclass(frozen=True, slots=True)
class CostPlan:
    """What is measured.

    Attributes:
        context: tokens of each request before the first measured step.
        num_pairs: measurements of either kind.
    """

    kinds: tuple[str, ...] = ("bf16", "int4")
    batches: tuple[int, ...] = (1, 8, 64)
    context: int = 256
    num_prompt_tokens: int = 1000
    num_pairs: int = 15


SMOKE_PLAN = CostPlan(kinds=("bf16",), batches=(1, 3), context=24, num_prompt_tokens=40, num_pairs=2)


def measure_cost(recorder: Recorder, machine: Machine, shape: ModelShape, plan: CostPlan) -> None:
    """Ratios of decode steps and of whole prompts, for every kind of weights."""
    twin = deterministic_twin(machine.kernels)
    if twin is None:
        recorder.skip("cost of the deterministic mode", "it needs Triton's kernels on a GPU")
        return
    for kind in plan.kinds:
        work = partial(_measure_kind, recorder, (machine, replace(machine, kernels=twin)), shape, kind, plan)
        recorder.attempt(f"{shape.name} {kind}", work)
        machine.free_memory()


def _measure_kind(
    recorder: Recorder, machines: tuple[Machine, Machine], shape: ModelShape, kind: str, plan: CostPlan
) -> None:
    longest = max(plan.context + 3 * plan.num_pairs, plan.num_prompt_tokens) + BLOCK_SIZE
    size = EngineSize(max(plan.batches) * (longest + BLOCK_SIZE), longest, max(plan.batches))
    engines = [RandomEngine(shape, kind, machine, size) for machine in machines]
    is_gpu = machines[0].device.type == "cuda"
    for engine in engines:
        # As the daemon runs them.
        engine.use(StepPath(uses_graphs=is_gpu, overlaps=is_gpu))
    for batch in plan.batches:
        for engine in engines:
            for _ in range(batch):
                engine.open(plan.context, 3 * plan.num_pairs)
            engine.prefill_all()
        figures = _ratios(engines, lambda engine: engine.step(), plan.num_pairs)
        recorder.figure(
            "cost of a step", **engines[0].describe(), batch=batch, context=plan.context, **figures
        )
        for engine in engines:
            engine.close_all()
    prefill = partial(_prefill, num_tokens=plan.num_prompt_tokens)
    recorder.figure(
        "cost of a prompt",
        **engines[0].describe(),
        num_tokens=plan.num_prompt_tokens,
        **_ratios(engines, prefill, max(2, plan.num_pairs // 3)),
    )


def _prefill(engine: RandomEngine, num_tokens: int) -> None:
    engine.open(num_tokens, 1)
    while engine.scheduler.has_work:
        engine.step()


def _ratios(
    engines: list[RandomEngine], work: Callable[[RandomEngine], object], num_pairs: int
) -> dict[str, dict[str, float]]:
    """Milliseconds of either engine and how many times longer the second took, over pairs."""
    for engine in engines:
        work(engine)
    pairs = [[_ms(engine, work) for engine in engines] for _ in range(num_pairs)]
    return {
        "plain_ms": spread([plain for plain, _ in pairs]),
        "deterministic_ms": spread([deterministic for _, deterministic in pairs]),
        "ratio": spread([deterministic / plain for plain, deterministic in pairs]),
    }


def _ms(engine: RandomEngine, work: Callable[[RandomEngine], object]) -> float:
    synchronize(engine.device)
    started = time.perf_counter()
    work(engine)
    synchronize(engine.device)
    return (time.perf_counter() - started) * 1e3
