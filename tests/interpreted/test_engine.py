"""The engine's GPU path on the CPU: tokens equal those of the reference path, one for one."""

import pytest
from support.checkpoints import save_checkpoint
from support.engine import build_core, greedy, run_to_end

from ondol.engine import kv_cache
from ondol.kernels.backend import REFERENCE
from ondol.kernels.triton.backend import TRITON

# Steps overlap, and where everybody decodes they run from static buffers, rows of padding among them.
GPU_PATH = {"overlaps": True, "uses_buffers": True}
PROMPTS = [[5, 6, 7], list(range(40, 58)), list(range(100, 109)), [9]]


@pytest.fixture(autouse=True)
def cache_full_of_nan(monkeypatch):
    """What former owners may leave behind: the reference clears it, Triton's kernels never read it."""

    def allocate_poisoned(*arguments):
        cache = kv_cache.allocate(*arguments)
        for layer in cache.layers:
            for tensor in layer.tensors():
                # Codes beside scales are never NaN by themselves.
                tensor.fill_(float("nan") if tensor.is_floating_point() else 0x7F)
        return cache

    monkeypatch.setattr("support.engine.allocate", allocate_poisoned)


def tokens(folder, kernels, num_tokens, **path):
    """Prefills in chunks beside decodes, and fewer blocks than the requests need: some are preempted."""
    core = build_core(folder, kernels=kernels, num_blocks=9, max_num_batched_tokens=12, **path)
    requests = {str(index): (prompt, greedy(num_tokens)) for index, prompt in enumerate(PROMPTS)}
    answers = run_to_end(core, requests)
    assert core.stats().num_preemptions > 0
    return answers


def test_a_tiny_model_answers_with_the_same_tokens(tmp_path):
    folder = save_checkpoint(tmp_path, "qwen2-sliding", num_hidden_layers=2)
    assert tokens(folder, TRITON, 4, **GPU_PATH) == tokens(folder, REFERENCE, 4)


@pytest.mark.slow
def test_a_cache_of_8_bits_gives_the_same_tokens(tmp_path):
    """As long as the one above."""
    folder = save_checkpoint(tmp_path, "qwen2", num_hidden_layers=2)
    cache = {"kv_cache_dtype": "fp8"}
    assert tokens(folder, TRITON, 3, **GPU_PATH, **cache) == tokens(folder, REFERENCE, 3, **cache)


@pytest.mark.slow
@pytest.mark.parametrize(
    "family",
    [
        *("llama", "llama-2", "llama-tied-biased", "llama-3-rope", "mistral"),
        *("qwen2", "qwen2-sliding", "qwen2_moe", "qwen3", "phi3"),
    ],
)
def test_every_family_answers_with_the_same_tokens(tmp_path, family):
    """Minutes: every program of every kernel of every step is interpreted."""
    sparse = {"num_experts": 4, "num_experts_per_tok": 2} if family == "qwen2_moe" else {}
    folder = save_checkpoint(tmp_path, family, num_hidden_layers=2, **sparse)
    assert tokens(folder, TRITON, 5, **GPU_PATH) == tokens(folder, REFERENCE, 5)
