"""In deterministic mode tokens and log-probabilities are the same bit by bit, whatever runs beside them."""

import pytest
from support.checkpoints import save_checkpoint
from support.engine import build_core, run_outputs
from support.tokenizers import save_byte_level_tokenizer

from ondol.engine.messages import AddRequest
from ondol.engine.sampling_params import SamplingParams
from ondol.kernels.backend import deterministic_reference
from ondol.modeling.quantization.on_load import OnLoad
from ondol.text.structured_output import regex_grammar

PROMPT = [5, 6, 7, 8, 9, 10, 11, 12, 13, 40, 41, 42, 43, 44, 45, 46, 47, 48, 49, 50, 51]
KINDS = {
    "greedy": {"temperature": 0.0},
    "random": {"temperature": 0.9, "top_p": 0.9, "top_k": 40, "min_p": 0.02},
    "penalized": {"frequency_penalty": 0.7, "repetition_penalty": 1.2, "logit_bias": ((17, 3.0),)},
}
FAMILIES = {
    "llama": {"num_hidden_layers": 2},
    "qwen2-sliding": {"num_hidden_layers": 2},
    "qwen2_moe": {"num_hidden_layers": 2},
}


def ask(name, prompt_ids=PROMPT, *, num_tokens=8, prompt_logprobs=2, **options):
    params = SamplingParams(
        max_tokens=num_tokens,
        seed=2**63 + 99,
        ignore_eos=True,
        logprobs=3,
        prompt_logprobs=prompt_logprobs,
        **options,
    )
    return AddRequest(request_id=name, prompt_ids=prompt_ids, params=params)


def answer(core, request, others=()):
    """Everything that a request gets, in the words of the engine: ids and log-probabilities, bit by bit."""
    outputs = run_outputs(core, [*others[::2], request, *others[1::2]])[request.request_id]
    assert all(output.error is None for output in outputs)
    return [(o.token_ids, o.logprobs, o.prompt_logprobs) for o in outputs if o.token_ids]


def others(num_tokens=6):
    return [
        ask(str(index), [3 + index] * (1 + 5 * index), num_tokens=num_tokens, **kind)
        for index, kind in enumerate([*KINDS.values()] * 5)
    ]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return {
        family: save_checkpoint(tmp_path_factory.mktemp(family), family, **changes)
        for family, changes in FAMILIES.items()
    }


def build(folder, **options):
    return build_core(folder, kernels=deterministic_reference(), **{"num_blocks": 512, **options})


@pytest.mark.parametrize("kind", KINDS)
def test_a_request_answers_alike_alone_and_among_others_in_any_chunks(folders, kind):
    request = ask("mine", **KINDS[kind])
    expected = answer(build(folders["llama"]), request)
    for num_batched_tokens in (17, 64):
        core = build(folders["llama"], max_num_seqs=16, max_num_batched_tokens=num_batched_tokens)
        assert answer(core, request, others()) == expected


@pytest.mark.parametrize("family", ["qwen2-sliding", "qwen2_moe"])
def test_other_families_answer_alike_too(folders, family):
    request = ask("mine", prompt_logprobs=None)
    expected = answer(build(folders[family]), request)
    # Alone once more, in steps that read a part of the prompt and want no logits.
    assert answer(build(folders[family], max_num_batched_tokens=7), request) == expected
    core = build(folders[family], max_num_seqs=16, max_num_batched_tokens=19)
    assert answer(core, request, others()) == expected


# Both are unpacked and multiplied in the same way; int8 takes seconds to be quantized.
@pytest.mark.parametrize("method", ["nf4", pytest.param("int8", marks=pytest.mark.slow)])
def test_quantized_weights_answer_alike_too(folders, method):
    request = ask("mine")
    on_load = OnLoad(method)
    expected = answer(build(folders["llama"], on_load=on_load), request)
    core = build(folders["llama"], on_load=on_load, max_num_seqs=16, max_num_batched_tokens=19)
    assert answer(core, request, others()) == expected


def test_a_preempted_request_answers_alike(folders):
    request = ask("mine", num_tokens=24)
    expected = answer(build(folders["llama"]), request)
    core = build(folders["llama"], num_blocks=20, max_num_batched_tokens=13)
    neighbours = [ask(str(index), PROMPT[index:], num_tokens=24) for index in range(1, 5)]
    # Admitted last, and so preempted first.
    assert answer(core, request, [*neighbours, ask("last", [3])]) == expected
    assert core.stats().num_preemptions > 0


def test_a_cached_prefix_of_prompt_or_answer_changes_nothing(folders):
    request = ask("mine", prompt_logprobs=None)
    expected = answer(build(folders["llama"]), request)
    core = build(folders["llama"])
    assert answer(core, request) == answer(core, request) == expected
    assert core.stats().prefix_hit_tokens > 0
    # A second turn finds blocks that decoding filled; alone, a prefill fills them.
    turn = [*PROMPT, *(ids[0] for ids, *_ in expected), 7, 8]
    second = ask("second", turn, prompt_logprobs=None)
    assert answer(core, second) == answer(build(folders["llama"]), second)


def test_a_request_that_is_resumed_goes_on_as_it_would_have(folders):
    expected = answer(build(folders["llama"]), ask("mine", **KINDS["random"]))
    output_ids = [token for ids, *_ in expected[:5] for token in ids]
    resumed = ask("mine", **KINDS["random"])
    resumed = AddRequest(request_id="mine", prompt_ids=PROMPT, params=resumed.params, output_ids=output_ids)
    found = answer(build(folders["llama"], max_num_batched_tokens=9), resumed, others())
    assert [row[:2] for row in found] == [row[:2] for row in expected[5:]]


def test_a_request_with_a_grammar_answers_alike(tmp_path):
    folder = save_checkpoint(tmp_path, "llama", num_hidden_layers=2, vocab_size=600)
    save_byte_level_tokenizer(folder, 512)
    request = ask("mine", grammar=regex_grammar("[a-z]{3}[0-9]+"), temperature=0.9)
    expected = answer(build(folder), request)
    assert answer(build(folder, max_num_batched_tokens=19), request, others()) == expected


def test_static_buffers_overlapping_steps_and_an_8_bit_cache_change_nothing(folders):
    request = ask("mine", **KINDS["random"])
    expected = answer(build(folders["llama"], kv_cache_dtype="fp8"), request)
    core = build(folders["llama"], kv_cache_dtype="fp8", overlaps=True, uses_buffers=True)
    assert answer(core, request, others()) == expected
