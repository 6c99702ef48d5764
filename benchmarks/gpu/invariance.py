"""Whether a request's tokens depend on its neighbours, by the default kernels and by the deterministic ones.

Runs the same greedy requests alone, in a batch, and after their prompts were cached. Invariant: counts whole
answers that are equal, token for token.
"""

from dataclasses import dataclass, replace
from functools import partial

from benchmarks.gpu.machine import Machine, deterministic_twin
from benchmarks.gpu.random_engine import BLOCK_SIZE, EngineSize, RandomEngine
from benchmarks.gpu.record import Recorder
from benchmarks.gpu.shapes import ModelShape


@dataclass(frozen=True, slots=True)
class InvariancePlan:
    """The requests."""

    kinds: tuple[str, ...] = ("bf16", "int4")
    num_requests: int = 8
    num_neighbours: int = 56
    num_prompt_tokens: int = 200
    num_output_tokens: int = 64


SMOKE_PLAN = InvariancePlan(
    kinds=("bf16",), num_requests=2, num_neighbours=2, num_prompt_tokens=20, num_output_tokens=4
)


def measure_invariance(recorder: Recorder, machine: Machine, shape: ModelShape, plan: InvariancePlan) -> None:
    """Share of answers that stay as they are when they are alone, in a batch, and with a cached prefix.

    With the kernels that serve by default, and with the deterministic ones.
    """
    twin = deterministic_twin(machine.kernels)
    machines = [machine, *([] if twin is None else [replace(machine, kernels=twin)])]
    for kind in plan.kinds:
        for chosen in machines:
            mode = "deterministic" if chosen.kernels.is_deterministic else "default"
            work = partial(_measure_kind, recorder, chosen, shape, kind, plan)
            recorder.attempt(f"{shape.name} {kind} {mode}", work)
            machine.free_memory()
    if twin is None:
        recorder.skip("the deterministic mode", "it needs Triton's kernels on a GPU")


def _measure_kind(
    recorder: Recorder, machine: Machine, shape: ModelShape, kind: str, plan: InvariancePlan
) -> None:
    longest = plan.num_prompt_tokens + plan.num_output_tokens
    num_seqs = plan.num_requests + plan.num_neighbours
    num_tokens = (num_seqs + plan.num_requests) * (longest + BLOCK_SIZE)
    size = EngineSize(num_tokens, longest, num_seqs, enable_prefix_caching=True)
    engine = RandomEngine(shape, kind, machine, size)
    prompts = [engine.random_ids(plan.num_prompt_tokens) for _ in range(plan.num_requests)]
    batched = _answers(engine, prompts, plan, num_neighbours=plan.num_neighbours)
    # The prompts' blocks are in the prefix cache now.
    cached = _answers(engine, prompts, plan, num_neighbours=0)
    description = engine.describe()
    del engine
    machine.free_memory()
    fresh = RandomEngine(shape, kind, machine, size)
    alone = [_answers(fresh, [prompt], plan, num_neighbours=0)[0] for prompt in prompts]
    recorder.figure(
        "invariance",
        **description,
        deterministic=machine.kernels.is_deterministic,
        num_requests=plan.num_requests,
        num_equal_in_batch=_num_equal(alone, batched),
        num_equal_with_cached_prefix=_num_equal(alone, cached),
    )


def _answers(
    engine: RandomEngine, prompts: list[list[int]], plan: InvariancePlan, *, num_neighbours: int
) -> list[list[int]]:
    """Output ids of each prompt; neighbours are other requests that run beside them."""
    answers: dict[str, list[int]] = {
        engine.open_prompt(prompt, plan.num_output_tokens): [] for prompt in prompts
    }
    for index in range(num_neighbours):
        engine.open(1 + index % plan.num_prompt_tokens, plan.num_output_tokens)
    while engine.scheduler.has_work:
        for output in engine.step():
            if output.request_id in answers:
                answers[output.request_id] += output.token_ids
    return list(answers.values())


def _num_equal(first: list[list[int]], second: list[list[int]]) -> int:
    return sum(left == right for left, right in zip(first, second, strict=True))
