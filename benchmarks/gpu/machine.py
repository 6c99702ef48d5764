"""The device that is measured, and what it could do at best.

Knows torch's device functions, nothing about models.
"""

import gc
import importlib
from dataclasses import dataclass
from typing import Any

import torch

from benchmarks.gpu.ceilings import DeviceRates
from benchmarks.gpu.timing import measure_rates
from ondol.kernels.backend import REFERENCE, Kernels, choose_kernels, deterministic_reference

# What the engine would choose, the torch reference, or Triton unasked whether it works.
KERNEL_CHOICES = ("auto", "torch", "triton")


@dataclass(frozen=True, slots=True)
class Machine:
    """Where a part runs.

    Attributes:
        dtype: of hidden states: bf16 on a GPU, float32 on a CPU.
        rates: measured in this process.
        kernels: what the engine computes with.
        notes: why these are not the fast ones, if so.
    """

    device: torch.device
    dtype: torch.dtype
    rates: DeviceRates
    kernels: Kernels
    notes: tuple[str, ...] = ()

    @classmethod
    def find(cls, kernels: str, *, is_smoke: bool) -> "Machine":
        """The first GPU; with `is_smoke` the CPU. Raises SystemExit without a GPU.

        Args:
            kernels: one of KERNEL_CHOICES.
            is_smoke: take the CPU.
        """
        if is_smoke:
            device = torch.device("cpu")
            return cls(device, torch.float32, measure_rates(device), *_choose(device, kernels))
        if not torch.cuda.is_available():
            raise SystemExit("torch finds no CUDA device; --smoke runs tiny sizes on the CPU")
        device = torch.device("cuda", 0)
        return cls(device, torch.bfloat16, measure_rates(device), *_choose(device, kernels))

    def free_memory(self) -> None:
        """Give back what nobody refers to any more; a CPU's memory needs no help."""
        if self.device.type == "cuda":
            gc.collect()
            torch.cuda.empty_cache()

    def reset_peak(self) -> None:
        """Count the peak anew."""
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)

    def describe(self) -> dict[str, Any]:
        """Name, size and rates."""
        found: dict[str, Any] = {
            "device": "cpu",
            "copy_gb_per_s": self.rates.copy_bytes_per_s / 1e9,
            "gemm_bf16_tflop_per_s": self.rates.gemm_flop_per_s / 1e12,
        }
        if self.device.type == "cuda":
            properties = torch.cuda.get_device_properties(self.device)
            found |= {
                "device": properties.name,
                "memory_bytes": properties.total_memory,
                "multiprocessors": properties.multi_processor_count,
                "capability": f"{properties.major}.{properties.minor}",
                "cuda": torch.version.cuda,
            }
        return found


def peak_bytes(device: torch.device) -> int | None:
    """Most memory that tensors took since the last reset; None on a CPU, where torch does not count."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None


def deterministic_twin(kernels: Kernels) -> Kernels | None:
    """Kernels of the same kind whose rows do not depend on each other; None where there are none."""
    if kernels.name == "triton":
        found: Kernels = importlib.import_module("ondol.kernels.triton.backend").DETERMINISTIC
        return found
    return None if torch.cuda.is_available() else deterministic_reference()


def _choose(device: torch.device, asked: str) -> tuple[Kernels, tuple[str, ...]]:
    if asked == "auto":
        return choose_kernels(device)
    if asked == "torch":
        return REFERENCE, ()
    # On a CPU only its interpreter runs, where TRITON_INTERPRET=1 is set.
    return importlib.import_module("ondol.kernels.triton.backend").TRITON, ()
