"""A part that measures a model in several kinds of weights, one after the other.

Knows nothing about what is measured. Invariant: what stops one kind keeps no memory from the next.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

from benchmarks.gpu.machine import Machine
from benchmarks.gpu.record import Recorder
from benchmarks.gpu.shapes import ModelShape


class Plan(Protocol):
    """What a part measures."""

    @property
    def kinds(self) -> tuple[str, ...]:
        """Of weights; see `random_model.layers_of`."""
        ...


def measure_kinds(
    measure: Callable[[Recorder, Machine, ModelShape, str, Any], None],
    recorder: Recorder,
    machine: Machine,
    shape: ModelShape,
    plan: Plan,
) -> None:
    """Each kind of one model, each on an engine of its own."""
    for kind in plan.kinds:
        recorder.attempt(f"{shape.name} {kind}", partial(measure, recorder, machine, shape, kind, plan))
        machine.free_memory()
