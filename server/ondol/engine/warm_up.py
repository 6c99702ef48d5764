"""Runs the model before the first request: to choose how much one step may compute, and to compile.

Every step delays everybody who is waiting for a token, so its budget is what the device computes within
a target time. Knows nothing about requests of users. Invariant: what is computed here is nobody's: blocks are
written before anybody owns them.
"""

import time
from collections.abc import Sequence

import torch

from ondol.engine.batch import Batch, ScheduledRequest
from ondol.engine.kv_cache import KVPlan
from ondol.engine.model_runner import ModelRunner
from ondol.engine.request import Request
from ondol.engine.runner_builder import BuiltRunner, RunnerBuilder
from ondol.engine.sampling_params import SamplingParams

# A long prompt that arrives should not stop running answers for longer than this.
TARGET_STEP_S = 0.25
# A GPU takes thousands of rows to fill it: fewer would tell of launches.
NUM_PROBE_TOKENS = {"cpu": 64, "cuda": 2048}
# On a CPU a GEMM gains little beyond a hundred rows.
MAX_TOKENS = {"cpu": 512, "cuda": 8192}
# What a start may take to record graphs; the others are recorded when they are first needed.
RECORDING_S = 15.0
# Whatever a request may ask of the sampler is compiled beforehand.
GREEDY = SamplingParams(max_tokens=2, temperature=0.0)
RANDOM = SamplingParams(max_tokens=2, top_k=50, top_p=0.9, min_p=0.01)


def choose_token_budget(runner: ModelRunner, device: torch.device, plan: KVPlan, max_num_seqs: int) -> int:
    """Tokens per step that the device computes within the target time.

    Runs two prefills of a few tokens over blocks that nobody owns yet; the first one warms up. At least
    one token for each of `max_num_seqs` requests fits, however slow the device is.
    """
    num_tokens = min(NUM_PROBE_TOKENS[device.type], plan.num_blocks * plan.block_size)
    lengths = cut_into_prompts(num_tokens, plan.max_model_len, max_num_seqs)
    batch = prefill_batch(lengths, plan.block_size, plan.num_blocks)
    runner.run(batch)
    started = time.perf_counter()
    runner.run(batch)
    tokens_per_s = batch.num_tokens / (time.perf_counter() - started)
    budget = min(int(tokens_per_s * TARGET_STEP_S), MAX_TOKENS[device.type])
    return max(budget, max_num_seqs)


def prepare(
    built: BuiltRunner, builder: RunnerBuilder, plan: KVPlan, max_num_batched_tokens: int | None
) -> int:
    """Make a runner ready for its first request; returns how many tokens a step may compute.

    A GPU records its graphs, and runs a prefill and decodes of one request and of all, so that no user waits
    for a compiler. Elsewhere nothing is run but what the budget asks for.

    Args:
        built, builder: the runner and what it was built from.
        plan: its cache.
        max_num_batched_tokens: the budget; None measures it.
    """
    device, max_num_seqs = builder.device, builder.max_num_seqs
    if built.decode_step is not None:
        built.decode_step.record_ahead(budget_s=RECORDING_S)
    if device.type == "cuda":
        num_tokens = min(plan.block_size, plan.max_model_len)
        prefill = prefill_batch([num_tokens], plan.block_size, plan.num_blocks)
        decodes = [decode_batch(count, num_tokens, plan.block_size) for count in (1, max_num_seqs)]
        for batch in (prefill, *decodes):
            built.runner.run(batch)
    if max_num_batched_tokens is not None:
        return max_num_batched_tokens
    return choose_token_budget(built.runner, device, plan, max_num_seqs)


def cut_into_prompts(num_tokens: int, max_model_len: int, max_num_seqs: int) -> list[int]:
    """Lengths of prompts, as long as they can be, of so many tokens together, or of as many as may run."""
    num_whole, rest = divmod(num_tokens, max_model_len)
    return ([max_model_len] * num_whole + [rest] * (rest > 0))[:max_num_seqs]


def prefill_batch(num_tokens: Sequence[int], block_size: int, num_blocks: int) -> Batch:
    """Whole prompts of so many tokens each, all over the same blocks, which a small pool repeats."""
    items = []
    for index, length in enumerate(num_tokens):
        request = Request(f"warm-up-{index}", [0] * length, length, GREEDY)
        request.block_ids = [block % num_blocks for block in range(-(-length // block_size))]
        items.append(ScheduledRequest(request, 0, length, completes=True, samples=True))
    return Batch(tuple(items))


def decode_batch(num_seqs: int, context_len: int, block_size: int) -> Batch:
    """The last token of so many requests of this length, every second one sampled at random.

    All of them have their keys in the first block of the pool, whatever their length: only the work counts.
    """
    items = []
    for index in range(num_seqs):
        params = RANDOM if index % 2 else GREEDY
        request = Request(f"warm-up-{index}", [0] * context_len, context_len, params)
        request.block_ids = [0] * -(-context_len // block_size)
        items.append(ScheduledRequest(request, context_len - 1, 1, completes=True, samples=True))
    return Batch(tuple(items))
