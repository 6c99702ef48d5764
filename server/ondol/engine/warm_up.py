"""Measures the model before the first request, to choose how much one step may compute.

Every step delays everybody who is waiting for a token, so its budget is what the device computes within
a target time. Knows nothing about requests of users.
"""

import time

import torch

from ondol.engine.batch import Batch, ScheduledRequest
from ondol.engine.model_runner import ModelRunner
from ondol.engine.request import Request
from ondol.engine.sampling_params import SamplingParams

# A long prompt that arrives should not stop running answers for longer than this.
TARGET_STEP_S = 0.25
NUM_PROBE_TOKENS = 64
# On a CPU a GEMM gains little beyond a hundred rows; on a GPU it takes thousands to fill it.
MAX_TOKENS = {"cpu": 512, "cuda": 8192}


def choose_token_budget(
    runner: ModelRunner, device: torch.device, num_blocks: int, block_size: int, max_num_seqs: int
) -> int:
    """Tokens per step that the device computes within the target time.

    Runs two prefills of a few tokens over blocks that nobody owns yet; the first one warms up. At least
    one token for each of `max_num_seqs` requests fits, however slow the device is.
    """
    num_tokens = min(NUM_PROBE_TOKENS, num_blocks * block_size)
    request = Request("warm-up", [0] * num_tokens, num_tokens, SamplingParams(max_tokens=1, temperature=0.0))
    request.block_ids = list(range(-(-num_tokens // block_size)))
    batch = Batch((ScheduledRequest(request, 0, num_tokens, completes=True),))
    runner.launch(batch).collect()
    started = time.perf_counter()
    runner.launch(batch).collect()
    tokens_per_s = num_tokens / (time.perf_counter() - started)
    budget = min(int(tokens_per_s * TARGET_STEP_S), MAX_TOKENS[device.type])
    return max(budget, max_num_seqs)
