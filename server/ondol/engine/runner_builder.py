"""Builds what runs a loaded model's batches, with a cache of a given size.

Knows what a device can do, nothing about how much memory there is. Invariant: where steps run from static
buffers, the cache has one block more than the block manager hands out: padding writes to it.
"""

from dataclasses import dataclass, replace

import torch

from ondol.engine.decode_step import DecodeStep
from ondol.engine.kv_cache import KVPlan, KVShape, allocate
from ondol.engine.model_runner import ModelRunner
from ondol.engine.sampler import Sampler
from ondol.engine.step_sizes import StepSizes
from ondol.kernels.backend import REFERENCE, Kernels
from ondol.modeling.loading import LoadedWeights


@dataclass(frozen=True, slots=True)
class BuiltRunner:
    """A runner and the part of it that a start-up prepares.

    Attributes:
        decode_step: None where steps do not run from static buffers.
    """

    runner: ModelRunner
    decode_step: DecodeStep | None
    why_no_graphs: str | None

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user of a GPU should know about how steps run."""
        if self.runner.device.type != "cuda":
            return ()
        reason = self.why_no_graphs if self.decode_step is None else self.decode_step.graphs.refusal
        return () if reason is None else (reason,)


@dataclass(frozen=True, slots=True)
class RunnerBuilder:
    """What a runner is made of, but for its cache.

    Attributes:
        weights: the model.
        kernels: what it computes with.
        device: where it is.
        kv_dtype: of the cache.
        max_num_seqs: requests that run at once.
        uses_buffers: run steps in which everybody decodes from static buffers, on a GPU as graphs.
    """

    weights: LoadedWeights
    kernels: Kernels
    device: torch.device
    kv_dtype: torch.dtype
    max_num_seqs: int
    uses_buffers: bool

    @property
    def kv_shape(self) -> KVShape:
        """What a token costs."""
        weights = self.weights
        return KVShape(weights.num_layers, weights.num_kv_heads, weights.head_dim)

    def build(self, plan: KVPlan) -> BuiltRunner:
        """A runner over a new cache."""
        weights, device = self.weights, self.device
        all_blocks = replace(plan, num_blocks=plan.num_blocks + self.uses_buffers)
        cache = allocate(all_blocks, self.kv_shape, self.kv_dtype, device)
        decode_step = None
        if self.uses_buffers:
            sizes = StepSizes(self.max_num_seqs, plan.max_model_len)
            decode_step = DecodeStep(weights.model, cache, self.kernels, sizes, weights.vocab_size, device)
        sampler = Sampler(weights.vocab_size, device, self.kernels)
        runner = ModelRunner(weights.model, cache, sampler, device, self.kernels, decode_step)
        return BuiltRunner(runner, decode_step, why_no_graphs(weights, self.kernels))


def why_no_graphs(weights: LoadedWeights, kernels: Kernels) -> str | None:
    """Why decode steps cannot run as CUDA graphs, for a user to read; None if they can."""
    if kernels.name == REFERENCE.name:
        reason = "the torch reference waits for the device"
    elif weights.host_weights_bytes:
        reason = "layers in host memory are copied beside them"
    elif not weights.model.can_be_captured:
        reason = "this model's layers may wait for the device"
    else:
        return None
    return f"decode steps run without CUDA graphs, more slowly: {reason}"
