"""The runner on a real tiny model, whose embedding of one token is NaN in some tests."""

import pytest
from support.checkpoints import reference_model, reference_tokens, save_checkpoint
from support.engine import build_core, greedy, run_to_end

from ondol.engine.messages import AddRequest
from ondol.modeling import loading

POISON = 511
PROMPTS = [[5, 6, 7], [40, 41, 42, 43, 44, 45, 46, 47, 48], list(range(100, 116))]
NUM_TOKENS = 8


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_checkpoint(tmp_path_factory.mktemp("llama"), "llama")


@pytest.fixture(scope="module")
def expected(folder):
    model = reference_model(folder)
    tokens = [reference_tokens(model, prompt, NUM_TOKENS) for prompt in PROMPTS]
    assert all(POISON not in output for output in tokens)
    return tokens


@pytest.fixture(params=[{}, {"overlaps": True, "uses_buffers": True}], ids=["plain", "as-on-a-gpu"])
def poisoned_core(request, folder, monkeypatch):
    """Builds a core whose model computes NaN for every row of token POISON."""
    load = loading.load_model

    def load_poisoned(*args, **options):
        weights = load(*args, **options)
        weights.model.embedding.weight[POISON] = float("nan")
        return weights

    monkeypatch.setattr("support.engine.load_model", load_poisoned)
    return lambda **options: build_core(folder, enable_prefix_caching=False, **request.param, **options)


def add(core, request_id, prompt_ids, num_tokens=NUM_TOKENS):
    message = AddRequest(request_id=request_id, prompt_ids=prompt_ids, params=greedy(num_tokens))
    assert core.add(message) == []


def finish(core):
    """Tokens and errors by request, once nothing is left to do."""
    tokens, errors = {}, {}
    while core.has_work:
        for output in core.step():
            tokens.setdefault(output.request_id, []).extend(output.token_ids)
            if output.error is not None:
                errors[output.request_id] = output.error
    return tokens, errors


@pytest.mark.parametrize("max_num_batched_tokens", [4, 64])
def test_prefills_and_decodes_in_one_batch_equal_the_reference(folder, expected, max_num_batched_tokens):
    core = build_core(folder, max_num_batched_tokens=max_num_batched_tokens)
    requests = {str(index): (prompt, greedy(NUM_TOKENS)) for index, prompt in enumerate(PROMPTS)}
    assert list(run_to_end(core, requests).values()) == expected


def test_a_request_whose_logits_are_not_finite_ends_with_an_error(poisoned_core):
    core = poisoned_core()
    add(core, "poisoned", [5, POISON, 6])
    tokens, errors = finish(core)
    assert errors == {"poisoned": "the model computed logits that are not finite"}
    assert tokens == {"poisoned": []}
    assert core.stats().num_used_blocks == 0


@pytest.mark.parametrize("max_num_batched_tokens", [8, 64])
def test_the_next_owner_of_poisoned_blocks_gets_right_tokens(poisoned_core, expected, max_num_batched_tokens):
    core = poisoned_core(num_blocks=8, max_num_batched_tokens=max_num_batched_tokens)
    add(core, "poisoned", [POISON] * 24)
    assert finish(core)[1].keys() == {"poisoned"}
    for index, prompt in enumerate(PROMPTS):
        add(core, str(index), prompt)
        assert finish(core) == ({str(index): expected[index]}, {})


def test_a_poisoned_request_does_not_reach_those_that_run_beside_it(poisoned_core, expected):
    core = poisoned_core(num_blocks=10)
    # The first blocks go to the end of the free list, so that the poisoned request gets them.
    add(core, "opener", [9] * 5, num_tokens=1)
    assert finish(core)[1] == {}
    # Context lengths of 10 and 17 decode in one group, the shorter with padding.
    for index in (1, 2):
        add(core, str(index), PROMPTS[index])
    # Their first tokens come with the first step, or, where steps overlap, with the second.
    first = {output.request_id: output.token_ids for output in core.step()}
    add(core, "poisoned", [POISON] * 5)
    tokens, errors = finish(core)
    assert errors.keys() == {"poisoned"}
    assert first.get("1", []) + tokens["1"] == expected[1]
    assert first.get("2", []) + tokens["2"] == expected[2]


def test_a_poisoned_request_that_is_aborted_leaves_its_blocks_usable(poisoned_core, expected):
    core = poisoned_core(num_blocks=8, max_num_batched_tokens=8)
    add(core, "poisoned", [POISON] * 24)
    core.step()
    core.step()
    core.abort("poisoned")
    for index, prompt in enumerate(PROMPTS):
        add(core, str(index), prompt)
        assert finish(core) == ({str(index): expected[index]}, {})
