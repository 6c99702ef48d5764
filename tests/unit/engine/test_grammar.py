"""Grammar-constrained requests on a tiny random model: what they write always parses."""

import json
import re

import pytest
from support.checkpoints import save_checkpoint
from support.engine import build_core, greedy, run_outputs, run_to_end
from support.tokenizers import save_byte_level_tokenizer, save_sentencepiece_tokenizer

from ondol.engine.messages import AddRequest
from ondol.engine.sampling_params import SamplingParams
from ondol.text.structured_output import (
    json_object_grammar,
    json_schema_grammar,
    lark_grammar,
    regex_grammar,
)
from ondol.text.tokenizer import TextTokenizer

END_TOKEN = 2
PROMPT = [5, 6, 7]
MAX_TOKENS = 150
PERSON = {
    "type": "object",
    "properties": {
        "이름": {"type": "string", "maxLength": 5},
        "나이": {"type": "integer", "minimum": 0, "maximum": 150},
        "취미": {"type": "array", "items": {"enum": ["독서", "등산", "요리"]}, "maxItems": 3},
    },
    "required": ["이름", "나이", "취미"],
    "additionalProperties": False,
}
NESTED = {
    "type": "object",
    "properties": {
        "tag": {"const": "node"},
        "value": {"anyOf": [{"type": "null"}, {"type": "boolean"}, {"type": "number"}]},
        "inner": {
            "type": "object",
            "properties": {"when": {"type": "string", "pattern": "^20[0-9]{2}-[01][0-9]$"}},
            "required": ["when"],
            "additionalProperties": False,
        },
    },
    "required": ["tag", "value", "inner"],
    "additionalProperties": False,
}


# As on a CPU, and as on a GPU.
PATHS = [{}, {"overlaps": True, "uses_buffers": True}]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model with 88 rows more than its tokenizer has ids."""
    folder = save_checkpoint(tmp_path_factory.mktemp("byte-level"), "llama", vocab_size=600)
    save_byte_level_tokenizer(folder, 512)
    return folder


@pytest.fixture(scope="module")
def tokenizer(folder):
    return TextTokenizer.load(folder)


@pytest.fixture(scope="module")
def core(folder):
    return build_core(folder, end_token_ids=frozenset({END_TOKEN}), num_blocks=1024)


def constrained(grammar, seed=0, max_tokens=MAX_TOKENS, **options):
    return SamplingParams(max_tokens=max_tokens, seed=seed, grammar=grammar, **options)


def answers(core, tokenizer, requests):
    """(text, finish reason) of every request, run together."""
    messages = [
        AddRequest(request_id=str(index), prompt_ids=PROMPT, params=params)
        for index, params in enumerate(requests)
    ]
    found = []
    for outputs in run_outputs(core, messages).values():
        assert outputs[-1].error is None
        token_ids = [token for output in outputs for token in output.token_ids]
        assert max(token_ids) < tokenizer.vocab_size
        if outputs[-1].stop_token_id is not None:
            token_ids.pop()
        found.append((tokenizer.decode(token_ids), outputs[-1].finish_reason))
    return found


def check_person(value):
    assert list(value) == ["이름", "나이", "취미"]
    assert len(value["이름"]) <= 5
    assert 0 <= value["나이"] <= 150
    assert set(value["취미"]) <= {"독서", "등산", "요리"}


def check_nested(value):
    assert value["tag"] == "node"
    assert value["value"] is None or isinstance(value["value"], bool | int | float)
    assert re.fullmatch("20[0-9]{2}-[01][0-9]", value["inner"]["when"])


@pytest.mark.parametrize(("schema", "check"), [(PERSON, check_person), (NESTED, check_nested)])
def test_output_parses_whatever_the_seed_unless_it_is_cut_by_length(core, tokenizer, schema, check):
    grammar = json_schema_grammar(schema, strict=True)
    # A high temperature, and parameters that fight the grammar.
    requests = [constrained(grammar, seed, temperature=1.8) for seed in range(24)]
    requests += [constrained(grammar, seed, top_k=1) for seed in range(2)]
    requests += [constrained(grammar, seed, min_tokens=140, frequency_penalty=2.0) for seed in range(2)]
    requests += [
        constrained(grammar, seed, ignore_eos=True, logit_bias=((END_TOKEN, 100.0),)) for seed in range(2)
    ]
    num_whole = 0
    for text, finish_reason in answers(core, tokenizer, requests):
        if finish_reason == "stop":
            check(json.loads(text))
            num_whole += 1
    assert num_whole > len(requests) // 2


def test_any_json_object_is_an_object(core, tokenizer):
    requests = [constrained(json_object_grammar(), seed, temperature=0.5) for seed in range(8)]
    for text, finish_reason in answers(core, tokenizer, requests):
        assert text.startswith("{")
        if finish_reason == "stop":
            assert isinstance(json.loads(text), dict)


def test_a_pattern_is_matched_as_a_whole(core, tokenizer):
    requests = [constrained(regex_grammar("(네|아니요), [0-9]{3}(번)?"), seed) for seed in range(8)]
    for text, finish_reason in answers(core, tokenizer, requests):
        assert finish_reason == "stop"
        assert re.fullmatch("(네|아니요), [0-9]{3}(번)?", text)


def test_a_lark_grammar_may_name_special_tokens(core, tokenizer):
    params = constrained(lark_grammar('start: <[1]> "go"'))
    ((outputs),) = run_outputs(core, [AddRequest(request_id="r", prompt_ids=PROMPT, params=params)]).values()
    token_ids = [token for output in outputs for token in output.token_ids]
    assert token_ids[0] == 1
    assert tokenizer.decode(token_ids) == "go"


def test_a_finished_grammar_ends_the_request_without_an_end_token(core):
    params = constrained(regex_grammar("abc"))
    ((outputs),) = run_outputs(core, [AddRequest(request_id="r", prompt_ids=PROMPT, params=params)]).values()
    assert (outputs[-1].finish_reason, outputs[-1].stop_token_id) == ("stop", None)


def test_a_grammar_that_is_finished_while_the_next_step_is_out_ends_its_request_alone(folder):
    core = build_core(folder, **PATHS[1])
    expected = run_to_end(build_core(folder), {"plain": (PROMPT, greedy(20))})["plain"]
    short = {f"{count}": (PROMPT, constrained(regex_grammar(f"[a-c]{{{count}}}"))) for count in (2, 3, 5)}
    found = run_to_end(core, short | {"plain": (PROMPT, greedy(20))})
    assert found["plain"] == expected
    assert all(found.values())
    assert core.stats().num_used_blocks == 0


def test_where_a_grammar_may_end_or_go_on_the_end_token_ends_it(core):
    params = constrained(regex_grammar("a+"), logit_bias=((END_TOKEN, 100.0),), ignore_eos=True)
    ((outputs),) = run_outputs(core, [AddRequest(request_id="r", prompt_ids=PROMPT, params=params)]).values()
    assert (outputs[-1].finish_reason, outputs[-1].stop_token_id) == ("stop", END_TOKEN)


def test_a_model_without_an_end_token_still_ends_with_its_grammar(folder, tokenizer):
    core = build_core(folder)
    ((text, finish_reason),) = answers(core, tokenizer, [constrained(regex_grammar("[가-힣]{3}"))])
    assert finish_reason == "stop"
    assert re.fullmatch("[가-힣]{3}", text)


def test_the_length_cuts_a_grammar_short(core, tokenizer):
    ((text, finish_reason),) = answers(core, tokenizer, [constrained(regex_grammar("a{50}b"), max_tokens=5)])
    assert finish_reason == "length"
    assert set(text) == {"a"}


@pytest.mark.parametrize("path", PATHS)
def test_neighbours_get_the_tokens_that_they_get_alone(folder, tokenizer, path):
    end = frozenset({END_TOKEN})
    plain = {
        "greedy": (PROMPT, greedy(30)),
        "sampled": ([40, 41], SamplingParams(max_tokens=30, seed=3, top_p=0.9, ignore_eos=True)),
    }
    alone = run_to_end(build_core(folder, end_token_ids=end), plain)
    grammar = json_schema_grammar(PERSON, strict=True)
    mixed = {f"json {seed}": (PROMPT, constrained(grammar, seed, max_tokens=60)) for seed in range(4)}
    together = run_to_end(build_core(folder, end_token_ids=end, **path), mixed | plain)
    assert {name: together[name] for name in plain} == alone
    # Nor does a constrained request depend on its neighbours.
    one = run_to_end(build_core(folder, end_token_ids=end), {"json 2": mixed["json 2"]})
    assert together["json 2"] == one["json 2"]


@pytest.mark.parametrize("path", PATHS)
def test_a_preempted_request_goes_on_in_its_grammar(folder, core, path):
    grammar = json_schema_grammar(PERSON, strict=True)
    requests = {str(seed): (PROMPT, constrained(grammar, seed, max_tokens=60)) for seed in range(4)}
    expected = run_to_end(core, requests)
    small = build_core(folder, end_token_ids=frozenset({END_TOKEN}), num_blocks=18, block_size=4, **path)
    assert run_to_end(small, requests) == expected
    assert small.stats().num_preemptions > 0


@pytest.mark.parametrize("num_known", [1, 7])
def test_a_resumed_request_goes_on_in_its_grammar(core, num_known):
    params = constrained(json_schema_grammar(PERSON, strict=True), seed=3, max_tokens=60)
    whole = run_to_end(core, {"r": (PROMPT, params)})["r"]
    known = whole[:num_known]
    message = AddRequest(request_id="r", prompt_ids=PROMPT, params=params, output_ids=known)
    outputs = run_outputs(core, [message])["r"]
    assert known + [token for output in outputs for token in output.token_ids] == whole


@pytest.mark.parametrize(
    ("grammar", "reason"),
    [
        ("neither Lark nor JSON", "Expected token"),
        (json_schema_grammar({"$ref": "#"}, strict=True), "cannot be used"),
    ],
)
def test_a_grammar_that_cannot_be_used_fails_its_request_alone(core, grammar, reason):
    good = AddRequest(request_id="good", prompt_ids=PROMPT, params=greedy(4))
    bad = AddRequest(request_id="bad", prompt_ids=PROMPT, params=constrained(grammar))
    found = run_outputs(core, [bad, good])
    (output,) = found["bad"]
    assert (output.finish_reason, output.token_ids) == ("error", [])
    assert reason in output.error
    assert sum(len(output.token_ids) for output in found["good"]) == 4
    assert core.stats().num_used_blocks == 0


@pytest.mark.parametrize("path", PATHS)
def test_a_grammar_that_fails_in_the_middle_ends_its_request_and_nobody_else(folder, tokenizer, path):
    core = build_core(folder, end_token_ids=frozenset({END_TOKEN}), **path)
    # A thousand properties are more than the parser follows at once; the front door would say so.
    many = {"type": "object", "properties": {f"p{index}": {"type": "string"} for index in range(1000)}}
    pair = {"type": "array", "prefixItems": [{"enum": ["one", "two"]}, many], "minItems": 2}
    grammar = json_schema_grammar(pair, strict=True)
    bad = AddRequest(request_id="bad", prompt_ids=PROMPT, params=constrained(grammar))
    good = AddRequest(
        request_id="good", prompt_ids=PROMPT, params=constrained(regex_grammar("[0-9]{9}"), seed=1)
    )
    found = run_outputs(core, [bad, good])
    *before, last = found["bad"]
    assert tokenizer.decode([token for output in before for token in output.token_ids]).startswith('["')
    assert (last.finish_reason, last.first_index, last.token_ids) == ("error", len(before), [])
    assert "grammar" in last.error
    assert found["good"][-1].finish_reason == "stop"
    assert core.stats().num_used_blocks == 0


def test_logprobs_of_constrained_tokens_are_the_models_own(core):
    params = constrained(regex_grammar("[0-9]{4}"), logprobs=5)
    ((outputs),) = run_outputs(core, [AddRequest(request_id="r", prompt_ids=PROMPT, params=params)]).values()
    # A mask would make ten digits the likeliest of all; the model has its own idea.
    assert any(one.token_id not in one.top_ids for output in outputs for one in output.logprobs)


def test_aborting_while_the_grammar_compiles_leaves_nothing(folder):
    core = build_core(folder)
    params = constrained(json_object_grammar())
    core.add(AddRequest(request_id="r", prompt_ids=PROMPT, params=params))
    assert core.stats().num_waiting == 1
    core.abort("r")
    assert not core.is_compiling
    assert core.step() == []


def test_a_sentencepiece_tokenizer_writes_json_too(tmp_path):
    folder = save_checkpoint(tmp_path, "llama")
    save_sentencepiece_tokenizer(folder)
    core = build_core(folder, end_token_ids=frozenset({END_TOKEN}), num_blocks=1024)
    grammar = json_schema_grammar(PERSON, strict=True)
    found = answers(core, TextTokenizer.load(folder), [constrained(grammar, seed) for seed in range(8)])
    whole = [text for text, finish_reason in found if finish_reason == "stop"]
    assert whole
    for text in whole:
        check_person(json.loads(text))


def test_a_model_without_a_tokenizer_refuses_a_grammar_and_serves_the_rest(tmp_path):
    core = build_core(save_checkpoint(tmp_path, "llama"))
    bad = AddRequest(request_id="bad", prompt_ids=PROMPT, params=constrained(json_object_grammar()))
    good = AddRequest(request_id="good", prompt_ids=PROMPT, params=greedy(2))
    found = run_outputs(core, [bad, good])
    assert "tokenizer cannot be used" in found["bad"][-1].error
    assert found["good"][-1].finish_reason == "length"
