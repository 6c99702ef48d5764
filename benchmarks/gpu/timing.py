"""Clocks: how long work takes on a device, and how fast its memory and its matrix products are.

Knows nothing about models. Invariant: nothing is timed before it has run, and inputs are random, because
zeros are faster.
"""

import statistics
import time
from collections.abc import Callable, Sequence

import torch

from benchmarks.gpu.ceilings import DeviceRates

NUM_TRIES = 20
COPY_BYTES = {"cuda": 4 * 2**30, "cpu": 8 * 2**20}
GEMM_SIZE = {"cuda": 8192, "cpu": 128}


def synchronize(device: torch.device) -> None:
    """Wait for everything that was launched."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def median_s(work: Callable[[], object], device: torch.device, num_tries: int = NUM_TRIES) -> float:
    """Median seconds of some work, by the device's own events where it has them."""
    for _ in range(3):
        work()
    if device.type != "cuda":
        return statistics.median(_wall_s(work) for _ in range(num_tries))
    events = [
        (torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)) for _ in range(num_tries)
    ]
    for begin, end in events:
        begin.record()
        work()
        end.record()
    torch.cuda.synchronize(device)
    return statistics.median(begin.elapsed_time(end) for begin, end in events) / 1e3


def measure_rates(device: torch.device) -> DeviceRates:
    """Bandwidth of a large copy, bytes read plus bytes written, and the rate of a large bf16 product."""
    copy_bytes, gemm_size = COPY_BYTES[device.type], GEMM_SIZE[device.type]
    return DeviceRates(_copy_rate(copy_bytes, device), _gemm_rate(gemm_size, device))


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, least and most of repeated measurements."""
    return {"median": statistics.median(values), "least": min(values), "most": max(values)}


def _wall_s(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def _copy_rate(num_bytes: int, device: torch.device) -> float:
    source = torch.empty(num_bytes // 4, dtype=torch.int32, device=device).random_()
    target = torch.empty_like(source)
    return 2 * num_bytes / median_s(lambda: target.copy_(source), device)


def _gemm_rate(size: int, device: torch.device) -> float:
    left, right = (torch.randn(size, size, device=device).bfloat16() for _ in range(2))
    product = torch.empty_like(left)
    return 2 * size**3 / median_s(lambda: torch.mm(left, right, out=product), device)
