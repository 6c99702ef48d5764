"""How much memory is left for the KV cache, by running the largest steps before there is one.

Knows a meter of the device's memory and what a step takes at most, nothing about who else uses the device.
Invariant: what was measured is given back, but for what the next step takes again.
"""

import gc
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from ondol.engine.decode_step import DecodeStep
from ondol.engine.kv_cache import KVPlan, KVRequest, available_bytes, plan_kv_cache
from ondol.engine.messages import EngineConfig
from ondol.engine.runner_builder import BuiltRunner, RunnerBuilder
from ondol.engine.step_sizes import MAX_POSITIONS
from ondol.engine.warm_up import MAX_TOKENS, cut_into_prompts, decode_batch, prefill_batch

# Graphs that are recorded to learn what one takes; the driver takes memory in pieces, so one tells little.
NUM_PROBE_GRAPHS = 5


class MemoryMeter(Protocol):
    """Measures one device."""

    def used_bytes(self) -> int:
        """Memory that is taken now, what allocators hold back included."""
        ...

    def release(self) -> None:
        """Have allocators give back what they hold back."""
        ...


class CudaMemoryMeter:
    """Asks the driver, which knows of CUDA graphs and libraries' workspaces too.

    Args:
        device: the GPU.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def used_bytes(self) -> int:
        """See `MemoryMeter`."""
        torch.cuda.synchronize(self._device)
        free_bytes, total_bytes = torch.cuda.mem_get_info(self._device)
        return total_bytes - free_bytes

    def release(self) -> None:
        """See `MemoryMeter`; graphs hold their memory until the last reference to them is gone."""
        gc.collect()
        torch.cuda.empty_cache()


@dataclass(frozen=True, slots=True)
class LargestSteps:
    """What an engine may have to compute at once.

    Attributes:
        num_tokens: rows of a step.
        max_num_seqs: requests of a step.
        max_model_len: tokens of one request.
        block_size: tokens per block.
    """

    num_tokens: int
    max_num_seqs: int
    max_model_len: int
    block_size: int

    @property
    def prompt_lengths(self) -> Sequence[int]:
        """Prompts that fill a step, as long as they can be."""
        return cut_into_prompts(self.num_tokens, self.max_model_len, self.max_num_seqs)

    @property
    def decode_context(self) -> int:
        """Tokens of each of `max_num_seqs` requests that decode."""
        return max(1, min(self.max_model_len, MAX_POSITIONS // self.max_num_seqs))


@dataclass(frozen=True, slots=True)
class CacheMemory:
    """What the KV cache may take.

    Attributes:
        kv_cache_bytes: its size; None if nobody has decided it.
        spare_bytes: memory for everything but the weights, where the cache's size was only what an estimate
            of the rest left of it.
    """

    kv_cache_bytes: int | None
    spare_bytes: int | None = None


def plan_cache(
    builder: RunnerBuilder, config: EngineConfig, memory: CacheMemory, meter: MemoryMeter | None
) -> tuple[KVPlan, int | None]:
    """The cache's size: as asked; where nobody asked and memory is measured, what the largest steps leave.

    Returns:
        The plan, and the memory that those steps were seen to take; None where nothing was measured.

    Raises:
        DoesNotFit: not even one request of the asked length fits.
    """
    weights, device = builder.weights, builder.device
    kv_cache_bytes, scratch_bytes = memory.kv_cache_bytes, None
    if meter is not None and (kv_cache_bytes is None or memory.spare_bytes is not None):
        meter.release()
        free = available_bytes(device)
        spare_bytes = free if memory.spare_bytes is None else min(memory.spare_bytes, free)
        max_model_len = config.max_model_len or weights.context_length
        num_tokens = config.max_num_batched_tokens or MAX_TOKENS[device.type]
        steps = LargestSteps(num_tokens, config.max_num_seqs, max_model_len, config.block_size)
        weights.model.prepare(max_model_len)
        scratch_bytes = measure_scratch_bytes(builder, steps, meter)
        kv_cache_bytes = max(0, spare_bytes - scratch_bytes)
    asked = KVRequest(kv_cache_bytes, config.max_model_len, config.max_num_seqs, config.block_size)
    context_length, free = weights.context_length, available_bytes(device)
    plan = plan_kv_cache(asked, builder.kv_shape, builder.kv_dtype, context_length, free)
    return plan, scratch_bytes


def measure_scratch_bytes(builder: RunnerBuilder, steps: LargestSteps, meter: MemoryMeter) -> int:
    """Memory that an engine takes beside weights and KV cache: for its largest steps and for graphs.

    The steps run over a cache of one block, which all of their tokens share: what they compute is nothing,
    but takes the memory that any other tokens would.
    """
    meter.release()
    built = builder.build(KVPlan(1, steps.block_size, steps.max_model_len, 0))
    before_bytes = meter.used_bytes()
    built.runner.run(prefill_batch(steps.prompt_lengths, steps.block_size, num_blocks=1))
    built.runner.run(decode_batch(steps.max_num_seqs, steps.decode_context, steps.block_size))
    scratch_bytes = meter.used_bytes() - before_bytes
    scratch_bytes += _buffer_bytes(built) + _graph_bytes(built.decode_step, meter)
    del built
    meter.release()
    # Somebody else may have given more back meanwhile; what was granted is no larger for that.
    return max(0, scratch_bytes)


def _buffer_bytes(built: BuiltRunner) -> int:
    """Of static buffers, which were there before the measurement began."""
    return 0 if built.decode_step is None else built.decode_step.buffer_bytes


def _graph_bytes(decode_step: DecodeStep | None, meter: MemoryMeter) -> int:
    """Of all graphs that there may be: the largest takes memory for its step, each a little for itself."""
    if decode_step is None:
        return 0
    before_bytes = meter.used_bytes()
    decode_step.record_ahead(count=1)
    first_bytes = meter.used_bytes() - before_bytes
    num_more = decode_step.record_ahead(count=NUM_PROBE_GRAPHS) - 1
    if num_more < 1:
        return first_bytes
    each_bytes = (meter.used_bytes() - before_bytes - first_bytes) / num_more
    return first_bytes + int(each_bytes * (decode_step.graphs.num_possible - 1))
