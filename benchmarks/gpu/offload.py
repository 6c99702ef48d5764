"""What layers in host memory cost: steps and a first token that copy half of a model's layers to the device.

Invariant: a figure stands beside what the bus alone would take, at the rate that it was measured to copy at.
"""

from dataclasses import dataclass

import torch

from benchmarks.gpu.ceilings import decode_ceiling
from benchmarks.gpu.decode import DecodePlan, decode_steps, first_token
from benchmarks.gpu.machine import Machine
from benchmarks.gpu.random_engine import BLOCK_SIZE, EngineSize, RandomEngine
from benchmarks.gpu.record import Recorder
from benchmarks.gpu.shapes import ModelShape
from benchmarks.gpu.timing import median_s
from ondol.modeling.host_memory import HostMemory

HOST_COPY_BYTES = {"cuda": 2**30, "cpu": 2**20}


@dataclass(frozen=True, slots=True)
class OffloadPlan:
    """What is measured.

    Attributes:
        kinds: of weights.
        share: of the layers' bytes that may stay in host memory.
        steps: batches, context and numbers of steps.
    """

    kinds: tuple[str, ...]
    share: float
    steps: DecodePlan


PLAN = OffloadPlan(
    kinds=("bf16", "int4"),
    share=0.5,
    steps=DecodePlan(batches=(1, 64), num_warm_up_steps=2, num_steps=8),
)
SMOKE_PLAN = OffloadPlan(
    kinds=("bf16",),
    share=0.7,
    steps=DecodePlan(batches=(2,), context=24, num_warm_up_steps=1, num_steps=2, num_prompt_tokens=40),
)


def measure_kind(
    recorder: Recorder, machine: Machine, shape: ModelShape, kind: str, plan: OffloadPlan
) -> None:
    """One kind of a model's weights."""
    steps = plan.steps
    longest = max(steps.context + steps.num_extra_tokens, steps.num_prompt_tokens) + BLOCK_SIZE
    largest = max(steps.batches)
    size = EngineSize(max(largest, 2) * (longest + BLOCK_SIZE), longest, largest, host_share=plan.share)
    engine = RandomEngine(shape, kind, machine, size)
    bus_bytes_per_s = measure_host_copy(machine.device)
    bus_ms = engine.offload.host_bytes / bus_bytes_per_s * 1e3
    common = {
        **engine.describe(),
        "num_host_layers": len(engine.offload.layers),
        "num_layers": engine.offload.num_layers,
        "host_bytes": engine.offload.host_bytes,
        "host_copy_gb_per_s": bus_bytes_per_s / 1e9,
    }
    prompt = first_token(engine, steps, machine.rates)
    recorder.figure(
        "offloaded first token", **common, **prompt | {"ceiling_ms": max(prompt["ceiling_ms"], bus_ms)}
    )
    for batch in steps.batches:
        figures = decode_steps(engine, batch, steps.context, steps)
        on_device = decode_ceiling(shape.config, kind, batch, figures["mean_context"])
        ceiling_ms = max(on_device.step_ms(machine.rates), bus_ms)
        recorder.figure(
            "offloaded step",
            **common,
            batch=batch,
            context=steps.context,
            **figures,
            ceiling_ms=ceiling_ms,
            share_of_ceiling=ceiling_ms / figures["step_ms"]["median"],
        )
        engine.close_all()


def measure_host_copy(device: torch.device) -> float:
    """Bytes per second from page-locked memory of the host to the device."""
    num_bytes = HOST_COPY_BYTES[device.type]
    memory = HostMemory(num_bytes, device)
    memory.data.fill_(1)
    target = torch.empty(num_bytes, dtype=torch.uint8, device=device)
    return num_bytes / median_s(lambda: target.copy_(memory.data, non_blocking=True), device)
