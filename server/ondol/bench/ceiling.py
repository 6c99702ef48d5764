"""The ceiling that is printed beside the figures: this model on this machine, measured now.

Joins the roofline's arithmetic to rates measured in a process of its own. Knows nothing about
servers. Invariant: rates and figures come from the same run of the tool, on the same machine.
"""

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ondol.bench.plan import Sizes
from ondol.bench.roofline import BYTES_PER_ELEMENT, Load, MachineRates, ModelCost, ceiling_of
from ondol.errors import ModelRefused, OndolError

MEASURE_TIMEOUT_S = 120.0


@dataclass(frozen=True, slots=True)
class CeilingMeter:
    """Ceilings of one model on one machine; `kv_cache_dtype` is "auto", the model's, or "fp8"."""

    cost: ModelCost
    dtype: str
    hardware: Mapping[str, Any]
    kv_cache_dtype: str = "auto"

    @classmethod
    def measure(
        cls, model_folder: Path, dtype: str, num_threads: int | None, kv_cache_dtype: str = "auto"
    ) -> "CeilingMeter":
        """Read config.json and measure the machine, which takes a few seconds of all its cores."""
        cost = ModelCost.of_config(read_config(model_folder))
        return cls(cost, dtype, measure_hardware(dtype, num_threads), kv_cache_dtype)

    @property
    def rates(self) -> MachineRates:
        """The better of copying and reading bounds memory; neither may be beaten by a figure."""
        memory = max(self.hardware["copy_gb_per_s"], self.hardware["read_gb_per_s"])
        return MachineRates(memory, self.hardware["gemm_gflop_per_s"])

    def describe(self) -> dict[str, Any]:
        """The model's costs, the machine's rates, and the simplest ceiling: one stream, empty context."""
        element_bytes = BYTES_PER_ELEMENT[self.dtype]
        step_bytes = self.cost.step_elements(batch=1) * element_bytes
        return {
            "dtype": self.dtype,
            "weights_bytes": self.cost.num_weight_elements * element_bytes,
            "weights_bytes_per_step": round(step_bytes),
            "kv_cache_dtype": self.kv_cache_dtype,
            "kv_bytes_per_token": self.cost.kv_bytes_per_token(self.dtype, self.kv_cache_dtype),
            "flops_per_token": self.cost.output_flops(0),
            "hardware": dict(self.hardware),
            "one_stream_tokens_per_s": round(self.rates.memory_gb_per_s * 1e9 / step_bytes, 3),
        }

    def beside(self, figures: Mapping[str, Any], sizes: Sizes) -> dict[str, Any] | None:
        """Ceiling of one run and the share of it that was reached; None if nothing succeeded."""
        num_requests = figures["num_succeeded"]
        if not num_requests or not figures["num_output_tokens"]:
            return None
        load = Load(
            num_requests=num_requests,
            concurrency=min(sizes.concurrency, num_requests),
            mean_input_tokens=figures["num_input_tokens"] / num_requests,
            mean_cached_tokens=figures["num_cached_tokens"] / num_requests,
            mean_output_tokens=figures["num_output_tokens"] / num_requests,
        )
        ceiling = ceiling_of(load, self.cost, self.rates, self.dtype, self.kv_cache_dtype)
        reached = figures["output_tokens_per_s"] / ceiling.output_tokens_per_s
        return {**asdict(ceiling), "reached": round(reached, 4)}


def read_config(model_folder: Path) -> dict[str, Any]:
    """config.json of a model folder; raises ModelRefused."""
    try:
        config = json.loads((model_folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelRefused(f"{model_folder} has no readable config.json: {error}") from error
    if not isinstance(config, dict):
        raise ModelRefused(f"{model_folder / 'config.json'} is not a JSON object.")
    return config


def measure_hardware(dtype: str, num_threads: int | None) -> dict[str, Any]:
    """Rates of this machine, from a process that ends before any figure is taken."""
    command = [sys.executable, "-m", "ondol.bench.hardware", "--dtype", dtype]
    if num_threads is not None:
        command += ["--threads", str(num_threads)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=MEASURE_TIMEOUT_S, check=True)
        rates: dict[str, Any] = json.loads(done.stdout)
    except subprocess.CalledProcessError as error:
        raise OndolError(f"Measuring the machine failed: {error.stderr.strip()[-300:]}") from error
    except (subprocess.TimeoutExpired, ValueError) as error:
        raise OndolError(f"Measuring the machine failed: {error}") from error
    return rates
