"""How large the paged KV cache becomes, and its allocation.

Knows memory and shapes, nothing about requests.
"""

import os
from dataclasses import dataclass

import torch

from ondol.errors import DoesNotFit
from ondol.kernels.kv_layer import FLOAT8, kv_head_bytes, make_kv_layer
from ondol.kernels.paged_attention import PagedKVCache

# What an engine without --kv-cache-memory takes: a share of the free memory, on a CPU at most 4 GiB,
# because there it is the memory of everybody's other programs.
CPU_SHARE = 0.25
CPU_LIMIT_BYTES = 4 * 2**30
FLOAT8_NAME = "fp8"
# What engines leave to everybody else: of a GPU's memory, of the free memory of a CPU.
RESERVE_SHARE = 0.1


@dataclass(frozen=True, slots=True)
class KVShape:
    """What one token costs: keys and values of `num_kv_heads * head_dim` in every layer.

    A cache's dtype is that of its values, or `kernels.kv_layer.FLOAT8` for codes with scales.
    """

    num_layers: int
    num_kv_heads: int
    head_dim: int

    def bytes_per_token(self, dtype: torch.dtype) -> int:
        """Bytes of one token's keys and values, all layers."""
        return 2 * self.num_layers * self.num_kv_heads * kv_head_bytes(self.head_dim, dtype)


@dataclass(frozen=True, slots=True)
class KVPlan:
    """A decided cache: `num_blocks` of `block_size` tokens for contexts up to `max_model_len`."""

    num_blocks: int
    block_size: int
    max_model_len: int
    size_bytes: int
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class KVRequest:
    """What was asked for: see `EngineConfig`."""

    kv_cache_bytes: int | None
    max_model_len: int | None
    max_num_seqs: int
    block_size: int


def choose_kv_dtype(asked: str, dtype: torch.dtype) -> torch.dtype:
    """The cache's dtype: "auto" is the model's, "fp8" is `FLOAT8`."""
    return FLOAT8 if asked == FLOAT8_NAME else dtype


def kv_dtype_name(dtype: torch.dtype) -> str:
    """What a person reads: "float32", "bfloat16", "float16" or "fp8"."""
    return FLOAT8_NAME if dtype == FLOAT8 else str(dtype).removeprefix("torch.")


def plan_kv_cache(
    asked: KVRequest, shape: KVShape, dtype: torch.dtype, context_length: int, available_bytes: int
) -> KVPlan:
    """Decide the cache's size.

    Args:
        asked: the settings.
        shape, dtype: what a token costs.
        context_length: the model's own limit in tokens.
        available_bytes: memory to take when no size was asked for.

    Raises:
        DoesNotFit: not even one request of the asked length fits.
    """
    notes: list[str] = []
    max_model_len = asked.max_model_len or context_length
    if max_model_len > context_length:
        notes.append(
            f"--max-model-len {max_model_len} is beyond the {context_length} tokens that the model was "
            "made for; answers may degrade there"
        )
    block_bytes = shape.bytes_per_token(dtype) * asked.block_size
    budget_bytes = available_bytes if asked.kv_cache_bytes is None else asked.kv_cache_bytes
    blocks_per_request = -(-max_model_len // asked.block_size)
    # More than every request at full length can never be used.
    num_blocks = min(budget_bytes // block_bytes, blocks_per_request * asked.max_num_seqs)
    if num_blocks < blocks_per_request:
        num_tokens = num_blocks * asked.block_size
        if asked.max_model_len is not None or num_blocks == 0:
            needed_bytes = blocks_per_request * block_bytes
            raise DoesNotFit(
                f"A context of {max_model_len} tokens needs {needed_bytes / 2**20:.0f} MiB of KV cache, but "
                f"{budget_bytes / 2**20:.0f} MiB are given: lower --max-model-len (at most {num_tokens}) "
                "or raise --kv-cache-memory."
            )
        notes.append(f"context shortened from {max_model_len} to {num_tokens} tokens to fit the KV cache")
        max_model_len = num_tokens
    return KVPlan(num_blocks, asked.block_size, max_model_len, num_blocks * block_bytes, tuple(notes))


def available_bytes(device: torch.device) -> int:
    """Memory that an engine may take for its cache when no size is asked for."""
    if device.type == "cuda":
        return free_bytes(device)
    return min(int(_mem_free_bytes() * CPU_SHARE), CPU_LIMIT_BYTES)


def free_bytes(device: torch.device) -> int:
    """Memory for engines: weights, cache and workspace; a reserve is left for everybody else."""
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        return max(0, free - int(total * RESERVE_SHARE))
    return host_free_bytes()


def host_free_bytes() -> int:
    """Host memory for engines, a reserve taken off."""
    return int(_mem_free_bytes() * (1 - RESERVE_SHARE))


def total_bytes(device: torch.device) -> int:
    """All memory of the device."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[1]
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def allocate(plan: KVPlan, shape: KVShape, dtype: torch.dtype, device: torch.device) -> PagedKVCache:
    """The cache of every layer; what it holds is what the memory held, and is cleared as blocks are begun."""
    heads = (shape.num_kv_heads, shape.head_dim)
    return PagedKVCache(
        tuple(
            make_kv_layer(plan.num_blocks, plan.block_size, heads, dtype, device)
            for _ in range(shape.num_layers)
        )
    )


def _mem_free_bytes() -> int:
    return _mem_available_bytes() or os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _mem_available_bytes() -> int | None:
    """Linux's own estimate of what can be taken without swapping; None elsewhere."""
    try:
        with open("/proc/meminfo", encoding="ascii") as lines:
            for line in lines:
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) * 1024
    except FileNotFoundError:
        return None
    return None
