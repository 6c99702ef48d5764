"""Measures what this machine can do: memory bandwidth and matrix products.

Run as `python -m ondol.bench.hardware`, a process of its own, so that the load generator never
carries torch. Knows nothing about models. The best of several tries is taken, since a ceiling is
what the machine can do, not what it usually does. Last stdout line: one JSON object.
"""

import json
import sys
import time
from collections.abc import Callable

import click
import torch

NUM_TRIES = 5
BYTES_PER_GB = 1e9
DTYPES = ("float32", "bfloat16", "float16")


def measure(dtype: torch.dtype, buffer_bytes: int, gemm_size: int) -> dict[str, float | int | str]:
    """Bandwidths in GB/s (1e9 bytes) and a square matrix product in GFLOP/s.

    `copy` counts bytes read plus bytes written. `read` is a matrix-vector product over the whole
    buffer, the very access pattern of decoding one stream; it beats `copy` where writes are dear.
    """
    num_columns = 4096
    element_bytes = torch.empty((), dtype=dtype).element_size()
    num_rows = max(1, buffer_bytes // (num_columns * element_bytes))
    source = torch.ones((num_rows, num_columns), dtype=dtype)
    source_bytes = source.numel() * element_bytes
    vector = torch.ones(num_columns, dtype=dtype)
    result = torch.empty(num_rows, dtype=dtype)
    read_s = _least_seconds(lambda: torch.mv(source, vector, out=result))
    destination = torch.empty_like(source)
    copy_s = _least_seconds(lambda: destination.copy_(source))
    left = torch.ones((gemm_size, gemm_size), dtype=dtype)
    product = torch.empty_like(left)
    gemm_s = _least_seconds(lambda: torch.mm(left, left, out=product))
    return {
        "dtype": str(dtype).removeprefix("torch."),
        "num_threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "copy_gb_per_s": round(2 * source_bytes / copy_s / BYTES_PER_GB, 3),
        "read_gb_per_s": round(source_bytes / read_s / BYTES_PER_GB, 3),
        "gemm_gflop_per_s": round(2 * gemm_size**3 / gemm_s / 1e9, 3),
    }


def _least_seconds(work: Callable[[], object]) -> float:
    work()  # pages are touched and threads are up before the clock starts
    times_s: list[float] = []
    for _ in range(NUM_TRIES):
        start_s = time.perf_counter()
        work()
        times_s.append(time.perf_counter() - start_s)
    return min(times_s)


@click.command()
@click.option("--dtype", type=click.Choice(DTYPES), default="float32", show_default=True)
@click.option("--buffer-mib", type=click.IntRange(1), default=512, show_default=True)
@click.option("--gemm-size", type=click.IntRange(1), default=2048, show_default=True)
@click.option("--threads", type=click.IntRange(1), help="CPU threads; torch's own choice if left out.")
def main(dtype: str, buffer_mib: int, gemm_size: int, threads: int | None) -> None:
    """Measure memory bandwidth and a matrix product."""
    if threads is not None:
        torch.set_num_threads(threads)
    figures = measure(getattr(torch, dtype), buffer_mib << 20, gemm_size)
    sys.stdout.write(json.dumps(figures) + "\n")


if __name__ == "__main__":
    main()
