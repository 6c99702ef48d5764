"""In float32 a seeded request writes the same tokens alone and among others, whatever its parameters."""

import pytest
from support.checkpoints import save_checkpoint
from support.engine import build_core, run_to_end

from ondol.engine.sampling_params import SamplingParams

PROMPT = [5, 6, 7, 8, 9, 10, 11]
KINDS = {
    "plain": {},
    "truncated": {"top_p": 0.9, "top_k": 40, "min_p": 0.02, "temperature": 0.8},
    "penalized": {"frequency_penalty": 0.7, "presence_penalty": 0.4, "repetition_penalty": 1.2},
    "biased": {"logit_bias": ((17, 3.0), (40, -100.0)), "min_tokens": 5, "top_p": 0.5},
}


def params(seed, choice=0, **options):
    return SamplingParams(max_tokens=20, seed=seed, choice=choice, ignore_eos=True, **options)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_checkpoint(tmp_path_factory.mktemp("llama"), "llama")


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_seed_gives_the_same_tokens_alone_and_among_sixteen_others(folder, kind):
    mine = (PROMPT, params(2**63 + 12345, **KINDS[kind]))
    alone = run_to_end(build_core(folder), {"mine": mine})["mine"]
    others = {
        str(index): ([3 + index] * (1 + 5 * index), params(index, **KINDS[other]))
        for index, other in enumerate([*KINDS] * 4)
    }
    half = dict(list(others.items())[:8])
    core = build_core(folder, max_num_seqs=17, max_num_batched_tokens=24, num_blocks=512)
    among = run_to_end(core, half | {"mine": mine} | others)
    assert among["mine"] == alone


def test_choices_differ_and_the_first_is_that_of_a_single_choice(folder):
    single = run_to_end(build_core(folder), {"single": (PROMPT, params(7))})["single"]
    requests = {str(choice): (PROMPT, params(7, choice)) for choice in range(4)}
    choices = run_to_end(build_core(folder), requests)
    assert choices["0"] == single
    assert len({tuple(tokens) for tokens in choices.values()}) == 4
