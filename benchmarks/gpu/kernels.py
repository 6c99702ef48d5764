"""Every operator of the engine's kernels against the torch reference, on the device, and how fast it is.

The cases are those that the interpreter's tests share, plus real sizes. Invariant: a kernel is timed only on
arguments that it gave the right answer for.
"""

from dataclasses import replace
from functools import partial
from typing import Any

import torch
from support.kernel_case import KernelCase, tolerance
from support.kernel_cases import all_cases

from benchmarks.gpu.machine import Machine, deterministic_twin
from benchmarks.gpu.record import Recorder
from benchmarks.gpu.timing import median_s
from ondol.kernels.backend import REFERENCE, Kernels
from ondol.kernels.kv_layer import KVLayer
from ondol.kernels.quantized import QuantizedMatrix

NUM_TRIES = 10


def measure_kernels(recorder: Recorder, machine: Machine, operator: str, *, is_smoke: bool) -> None:
    """All cases of one operator; short ones alone with `is_smoke`.

    By the kernels that serve, and by those of the deterministic mode where that has others.
    """
    machines = [machine]
    twin = deterministic_twin(machine.kernels)
    if (
        not is_smoke
        and twin is not None
        and getattr(twin, operator) is not getattr(machine.kernels, operator)
    ):
        machines.append(replace(machine, kernels=twin))
    for chosen in machines:
        for case in all_cases():
            if case.operator != operator or (is_smoke and case.is_long):
                continue
            recorder.attempt(str(case), partial(_check, recorder, chosen, case))
            if case.is_long:
                machine.free_memory()


def operators() -> list[str]:
    """The operators that there are cases for."""
    return list(dict.fromkeys(case.operator for case in all_cases()))


def _check(recorder: Recorder, machine: Machine, case: KernelCase) -> None:
    error = case.error(machine.kernels, machine.device, machine.dtype)
    limit = tolerance(machine.device, machine.dtype)
    if not error <= limit:
        recorder.fail(str(case), f"relative error {error:.3g} is over {limit:.3g}")
        return
    figures: dict[str, Any] = {"relative_error": error}
    if case.is_long:
        figures |= _times(machine, case)
    kernels = machine.kernels
    mode = {"kernels": kernels.name, "deterministic": kernels.is_deterministic}
    recorder.figure("kernel", case=str(case), **mode, **figures)


def _times(machine: Machine, case: KernelCase) -> dict[str, float]:
    """Microseconds of the kernels and of the reference, and the bandwidth over the arguments' bytes."""
    kernels = machine.kernels
    arguments = case.arguments(kernels, machine.device, machine.dtype)

    def call(used: Kernels) -> None:
        with torch.inference_mode():
            getattr(used, case.operator)(*arguments)

    fast_s = median_s(lambda: call(kernels), machine.device, NUM_TRIES)
    found = {"us": fast_s * 1e6, "argument_gb_per_s": _num_bytes(arguments) / fast_s / 1e9}
    if kernels is not REFERENCE:
        found["reference_us"] = median_s(lambda: call(REFERENCE), machine.device, NUM_TRIES) * 1e6
    return found


def _num_bytes(arguments: object) -> int:
    """Bytes of all tensors among the arguments, read once; what lies in metadata is left out."""
    if isinstance(arguments, torch.Tensor):
        return arguments.nbytes
    if isinstance(arguments, QuantizedMatrix):
        return arguments.num_bytes
    if isinstance(arguments, KVLayer):
        return sum(tensor.nbytes for tensor in arguments.tensors())
    if isinstance(arguments, list | tuple):
        return sum(_num_bytes(argument) for argument in arguments)
    return 0
