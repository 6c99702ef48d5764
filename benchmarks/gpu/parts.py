"""The parts of the run: their names, and what each of them measures.

A part runs in a process of its own: an illegal access in one kernel takes nobody else along. Knows nothing
about processes or files.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from benchmarks.gpu import decode, determinism, invariance, kernels, offload, peer, saturated
from benchmarks.gpu.kinds import measure_kinds
from benchmarks.gpu.machine import Machine
from benchmarks.gpu.record import Recorder
from benchmarks.gpu.shapes import (
    LLAMA_2_7B,
    MODELS,
    QWEN1_5_7B,
    QWEN1_5_MOE,
    QWEN2_7B,
    TINY_DEEP,
    TINY_DENSE,
    TINY_MOE,
    ModelShape,
)
from ondol.bench.provenance import provenance

PACKAGES = ("torch", "triton", "transformers")
ENVIRONMENT = "environment"
DECODE, SATURATED, OFFLOAD = (
    partial(measure_kinds, part.measure_kind) for part in (decode, saturated, offload)
)


@dataclass(frozen=True, slots=True)
class Part:
    """One piece of the run."""

    name: str
    measure: Callable[[Recorder, Machine], None]


def all_parts(origin: Mapping[str, object], *, is_smoke: bool) -> list[Part]:
    """The parts in the order in which their figures are wanted most.

    Args:
        origin: what else to record of the environment.
        is_smoke: tiny sizes instead of the models'.
    """
    models = (TINY_DENSE, TINY_MOE) if is_smoke else MODELS
    pair = (TINY_DENSE, TINY_MOE) if is_smoke else (QWEN1_5_7B, QWEN1_5_MOE)
    decode_plan = decode.SMOKE_PLAN if is_smoke else decode.DecodePlan()
    saturated_plan = saturated.SMOKE_PLAN if is_smoke else saturated.SaturatedPlan()
    peer_plan = peer.SMOKE_PLAN if is_smoke else peer.PeerPlan()
    invariance_plan = invariance.SMOKE_PLAN if is_smoke else invariance.InvariancePlan()
    subject = TINY_DENSE if is_smoke else QWEN2_7B
    parts = [Part(ENVIRONMENT, lambda recorder, machine: _environment(recorder, machine, origin))]
    parts += [_kernels(operator, is_smoke=is_smoke) for operator in kernels.operators()]
    parts += [_of("decode", DECODE, shape, decode_plan) for shape in models]
    for shape in pair:
        # Each kind fills the memory and takes its time: a part each.
        for kind in saturated_plan.kinds:
            plan = replace(saturated_plan, kinds=(kind,))
            parts.append(_of("saturated", SATURATED, shape, plan, f"-{kind}"))
    parts += _with_float8_caches(models, pair, decode_plan, saturated_plan)
    parts += [_of("transformers", peer.measure_peer, shape, peer_plan) for shape in pair]
    parts.append(_of("invariance", invariance.measure_invariance, subject, invariance_plan))
    cost_plan = determinism.SMOKE_PLAN if is_smoke else determinism.CostPlan()
    parts.append(_of("determinism", determinism.measure_cost, subject, cost_plan))
    offload_plan = offload.SMOKE_PLAN if is_smoke else offload.PLAN
    parts.append(_of("offload", OFFLOAD, TINY_DEEP if is_smoke else LLAMA_2_7B, offload_plan))
    return parts


def _with_float8_caches(
    models: Sequence[ModelShape],
    pair: Sequence[ModelShape],
    decode_plan: decode.DecodePlan,
    saturated_plan: saturated.SaturatedPlan,
) -> list[Part]:
    """The large batches, and full load in the fewest bits: where the KV cache weighs most."""
    large = tuple(batch for batch in decode_plan.batches if batch not in (1, 8))
    fewest = saturated_plan.kinds[-1]
    decoded = replace(decode_plan, kinds=decode_plan.kinds[:2], batches=large, kv_cache_dtype="fp8")
    filled = replace(saturated_plan, kinds=(fewest,), kv_cache_dtype="fp8")
    parts = [_of("decode-kv-fp8", DECODE, shape, decoded) for shape in models]
    return parts + [_of("saturated-kv-fp8", SATURATED, shape, filled, f"-{fewest}") for shape in pair]


def _of(
    family: str,
    measure: Callable[[Recorder, Machine, ModelShape, Any], None],
    shape: ModelShape,
    plan: object,
    suffix: str = "",
) -> Part:
    return Part(
        f"{family}:{shape.name}{suffix}",
        lambda recorder, machine: measure(recorder, machine, shape, plan),
    )


def _kernels(operator: str, *, is_smoke: bool) -> Part:
    return Part(
        f"kernels:{operator}",
        lambda recorder, machine: kernels.measure_kernels(recorder, machine, operator, is_smoke=is_smoke),
    )


def _environment(recorder: Recorder, machine: Machine, origin: Mapping[str, object]) -> None:
    engine = {
        "dtype": str(machine.dtype).removeprefix("torch."),
        "kernels": machine.kernels.name,
        "notes": machine.notes,
    }
    recorder.figure(ENVIRONMENT, **{**provenance(PACKAGES), **machine.describe(), **engine, **origin})
