"""Greedy output equals transformers' generate(), token for token, however the engine got there."""

import random

import pytest
from support.checkpoints import FAMILIES, reference_model, reference_tokens, save_checkpoint
from support.engine import build_core, greedy, run_to_end

MAX_TOKENS = 24


def mixed_prompts() -> list[list[int]]:
    """Lengths from 1 to 70, two of them with a long common beginning."""
    source = random.Random(0)
    prompts = [[source.randrange(3, 512) for _ in range(length)] for length in (3, 17, 40, 9, 70, 1)]
    return [*prompts, [*prompts[2][:30], 5, 6, 7]]


@pytest.fixture(scope="module", params=FAMILIES)
def family(request, tmp_path_factory):
    """(model folder, prompts by name, transformers' continuation of each)."""
    folder = save_checkpoint(tmp_path_factory.mktemp(request.param), request.param)
    prompts = {str(index): prompt for index, prompt in enumerate(mixed_prompts())}
    model = reference_model(folder)
    return folder, prompts, {name: reference_tokens(model, ids, MAX_TOKENS) for name, ids in prompts.items()}


def requests_for(prompts):
    return {name: (ids, greedy(MAX_TOKENS)) for name, ids in prompts.items()}


def test_prompts_run_together_and_again_from_the_prefix_cache(family):
    folder, prompts, expected = family
    core = build_core(folder)
    assert run_to_end(core, requests_for(prompts)) == expected
    num_hits = core.stats().prefix_hit_tokens
    assert run_to_end(core, requests_for(prompts)) == expected
    assert core.stats().prefix_hit_tokens > num_hits + 100


def test_prompts_run_one_by_one_without_the_prefix_cache(family):
    folder, prompts, expected = family
    core = build_core(folder, enable_prefix_caching=False)
    tokens = {}
    for name, request in requests_for(prompts).items():
        tokens |= run_to_end(core, {name: request})
    assert tokens == expected
    assert core.stats().prefix_hit_tokens == 0


@pytest.mark.parametrize("enable_prefix_caching", [False, True])
def test_preemption_and_tiny_chunks_change_nothing(family, enable_prefix_caching):
    folder, prompts, expected = family
    core = build_core(
        folder, num_blocks=26, max_num_batched_tokens=7, enable_prefix_caching=enable_prefix_caching
    )
    assert run_to_end(core, requests_for(prompts)) == expected
    assert core.stats().num_preemptions > 0


def test_chunks_of_one_token_change_nothing(family):
    folder, prompts, expected = family
    core = build_core(folder, max_num_batched_tokens=1)
    assert run_to_end(core, {"2": (prompts["2"], greedy(MAX_TOKENS))}) == {"2": expected["2"]}


def test_the_next_turn_of_a_conversation_reuses_the_answer(family):
    folder, prompts, expected = family
    core = build_core(folder)
    run_to_end(core, {"3": (prompts["3"], greedy(MAX_TOKENS))})
    turn = [*prompts["3"], *expected["3"], 8, 9]
    tokens = run_to_end(core, {"turn": (turn, greedy(MAX_TOKENS))})
    assert core.stats().prefix_hit_tokens >= len(prompts["3"]) + MAX_TOKENS - 5
    assert tokens["turn"] == reference_tokens(reference_model(folder), turn, MAX_TOKENS)


def test_sharded_checkpoints_load_like_single_ones(tmp_path):
    folder = save_checkpoint(tmp_path, "qwen2_moe", max_shard_size="100KB")
    assert len(list(folder.glob("*.safetensors"))) > 1
    prompt = mixed_prompts()[1]
    expected = reference_tokens(reference_model(folder), prompt, MAX_TOKENS)
    assert run_to_end(build_core(folder), {"r": (prompt, greedy(MAX_TOKENS))}) == {"r": expected}


def test_checkpoint_in_half_precision_computes_in_float32_on_a_cpu(tmp_path):
    folder = save_checkpoint(tmp_path, "llama", stored_dtype="bfloat16")
    prompt = mixed_prompts()[1]
    expected = reference_tokens(reference_model(folder), prompt, MAX_TOKENS)
    assert run_to_end(build_core(folder), {"r": (prompt, greedy(MAX_TOKENS))}) == {"r": expected}
