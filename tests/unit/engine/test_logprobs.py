"""Log-probabilities of output and prompt, against transformers' log_softmax on the same checkpoint."""

import pytest
import torch
from support.checkpoints import reference_model, save_checkpoint
from support.engine import build_core, run_outputs

from ondol.engine.logprobs import MIN_LOGPROB, compute_logprobs
from ondol.engine.messages import AddRequest
from ondol.engine.sampling_params import SamplingParams

TOLERANCE = 1e-4
PROMPTS = {
    "short": [5, 6, 7],
    "one": [9],
    "block": list(range(100, 116)),
    "long": [3 + (7 * index) % 500 for index in range(70)],
}


@pytest.fixture(scope="module", params=["llama", "qwen2"])
def folder(request, tmp_path_factory):
    return save_checkpoint(tmp_path_factory.mktemp(request.param), request.param)


@pytest.fixture(scope="module")
def reference(folder):
    return reference_model(folder)


def expected_logprobs(reference, token_ids):
    """[len(token_ids) - 1, vocab_size]: row i tells of token i + 1."""
    with torch.no_grad():
        logits = reference(torch.tensor([token_ids])).logits[0]
    return logits[:-1].to(torch.float32).log_softmax(dim=-1)


def assert_equal(found, expected_row, token_id, num_top):
    assert found.token_id == token_id
    assert found.logprob == pytest.approx(float(expected_row[token_id]), abs=TOLERANCE)
    top = expected_row.topk(num_top)
    assert len(found.top_ids) == num_top
    assert found.top_logprobs == pytest.approx(top.values.tolist(), abs=TOLERANCE)
    assert [float(expected_row[one]) for one in found.top_ids] == pytest.approx(
        top.values.tolist(), abs=TOLERANCE
    )


def assert_right(reference, outputs, prompt_ids, params):
    """Everything that one request was told about its tokens is what transformers computes."""
    assert [output.error for output in outputs] == [None] * len(outputs)
    token_ids = [token for output in outputs for token in output.token_ids]
    assert len(token_ids) == params.max_tokens
    expected = expected_logprobs(reference, [*prompt_ids, *token_ids])
    if params.logprobs is not None:
        logprobs = [one for output in outputs for one in output.logprobs]
        assert [one.token_id for one in logprobs] == token_ids
        for index, one in enumerate(logprobs):
            assert_equal(one, expected[len(prompt_ids) - 1 + index], token_ids[index], params.logprobs)
    prompts = [output.prompt_logprobs for output in outputs]
    assert prompts[1:] == [None] * len(prompts[1:])
    if params.prompt_logprobs is None:
        assert prompts[0] is None
    else:
        first, *others = prompts[0]
        assert first is None
        assert len(others) == len(prompt_ids) - 1
        for index, one in enumerate(others):
            assert_equal(one, expected[index], prompt_ids[index + 1], params.prompt_logprobs)


GREEDY = SamplingParams(
    max_tokens=6, temperature=0.0, ignore_eos=True, logprobs=5, prompt_logprobs=3, frequency_penalty=1.5
)
SAMPLED = SamplingParams(
    max_tokens=6,
    temperature=0.7,
    top_p=0.9,
    top_k=50,
    repetition_penalty=1.3,
    logit_bias=((17, 4.0),),
    seed=11,
    ignore_eos=True,
    logprobs=20,
    prompt_logprobs=0,
)
WITHOUT_PROMPT = SamplingParams(max_tokens=6, seed=5, ignore_eos=True, logprobs=0)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"max_num_batched_tokens": 5, "block_size": 4},
        {"max_prompt_logits": 3},
        # Too few blocks for all: some are preempted and computed again.
        {"num_blocks": 26, "block_size": 4},
    ],
    ids=["together", "chunked", "few rows a step", "preempted"],
)
def test_logprobs_equal_transformers_log_softmax_for_greedy_and_sampled_tokens(folder, reference, options):
    core = build_core(folder, **options)
    kinds = {"greedy": GREEDY, "sampled": SAMPLED, "without": WITHOUT_PROMPT}
    messages = [
        AddRequest(request_id=f"{kind} {name}", prompt_ids=prompt_ids, params=params)
        for kind, params in kinds.items()
        for name, prompt_ids in PROMPTS.items()
    ]
    found = run_outputs(core, messages)
    for message in messages:
        assert_right(reference, found[message.request_id], message.prompt_ids, message.params)
    assert (core.stats().num_preemptions > 0) == ("num_blocks" in options)


def test_logprobs_alone_and_beside_others_are_of_the_same_tokens(folder, reference):
    message = AddRequest(request_id="r", prompt_ids=PROMPTS["long"], params=SAMPLED)
    neighbours = [
        AddRequest(request_id=str(index), prompt_ids=prompt_ids, params=WITHOUT_PROMPT)
        for index, prompt_ids in enumerate(PROMPTS.values())
    ]
    alone = run_outputs(build_core(folder), [message])["r"]
    beside = run_outputs(build_core(folder), [*neighbours, message])["r"]
    assert [output.token_ids for output in alone] == [output.token_ids for output in beside]
    assert_right(reference, beside, message.prompt_ids, SAMPLED)


def test_prompt_logprobs_read_no_cached_prefix_and_the_request_after_them_does(folder, reference):
    core = build_core(folder)
    plain = SamplingParams(max_tokens=2, temperature=0.0, ignore_eos=True)
    prompt_ids = PROMPTS["long"]
    run_outputs(core, [AddRequest(request_id="plain", prompt_ids=prompt_ids, params=plain)])
    asking = run_outputs(core, [AddRequest(request_id="asking", prompt_ids=prompt_ids, params=GREEDY)])
    assert [output.num_cached_tokens for output in asking["asking"]] == [0] * GREEDY.max_tokens
    assert_right(reference, asking["asking"], prompt_ids, GREEDY)
    after = run_outputs(core, [AddRequest(request_id="after", prompt_ids=prompt_ids, params=plain)])
    assert after["after"][0].num_cached_tokens == 68


def test_a_request_of_no_tokens_ends_with_its_prompts_logprobs(folder, reference):
    core = build_core(folder, max_num_batched_tokens=16)
    params = SamplingParams(max_tokens=0, prompt_logprobs=1)
    messages = [
        AddRequest(request_id=name, prompt_ids=prompt_ids, params=params)
        for name, prompt_ids in PROMPTS.items()
    ]
    found = run_outputs(core, messages)
    for message in messages:
        (output,) = found[message.request_id]
        assert (output.token_ids, output.finish_reason) == ([], "length")
        assert output.prefill_s >= 0
        assert_right(reference, [output], message.prompt_ids, params)
    assert core.stats().num_used_blocks == 0


def test_a_resumed_request_sends_the_prompts_logprobs_no_second_time(folder, reference):
    message = AddRequest(request_id="r", prompt_ids=PROMPTS["short"], params=GREEDY)
    whole = run_outputs(build_core(folder), [message])["r"]
    known = [token for output in whole[:2] for token in output.token_ids]
    resumed = AddRequest(request_id="r", prompt_ids=message.prompt_ids, params=GREEDY, output_ids=known)
    rest = run_outputs(build_core(folder), [resumed])["r"]
    assert [output.prompt_logprobs for output in rest] == [None] * 4
    assert [output.token_ids for output in rest] == [output.token_ids for output in whole[2:]]
    for left, right in zip(rest, whole[2:], strict=True):
        assert left.logprobs[0].logprob == pytest.approx(right.logprobs[0].logprob, abs=TOLERANCE)


def test_who_does_not_ask_gets_nothing(folder):
    params = SamplingParams(max_tokens=3, temperature=0.0, ignore_eos=True)
    (outputs,) = run_outputs(
        build_core(folder), [AddRequest(request_id="r", prompt_ids=[5, 6], params=params)]
    ).values()
    assert all(output.logprobs == [] and output.prompt_logprobs is None for output in outputs)


def test_logprobs_are_finite_also_where_a_token_is_impossible():
    logits = torch.full((1, 4), -float("inf"))
    logits[0, 2] = 3.0
    (found,) = compute_logprobs(logits, torch.tensor([0]), 2).read([0], [2])
    assert found.logprob == MIN_LOGPROB
    assert found.top_ids[0] == 2
    assert found.top_logprobs == (0.0, MIN_LOGPROB)


def test_more_alternatives_than_the_vocabulary_has_are_all_of_it():
    (found,) = compute_logprobs(torch.zeros(1, 3), torch.tensor([1]), 20).read([1], [3])
    assert sorted(found.top_ids) == [0, 1, 2]
