"""Schemas, patterns and Lark grammars: what they allow, and which of them are refused in time."""

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.grammars import allows

from ondol.errors import InvalidRequest
from ondol.text.structured_output import (
    MAX_COMPILE_S,
    either_grammar,
    embedded_schema,
    grammar_error,
    json_object_grammar,
    json_schema_grammar,
    lark_grammar,
    regex_grammar,
    validate_grammar,
)

pytestmark = pytest.mark.anyio

# Beyond the check's own bound: what a loaded machine adds.
DEADLINE_S = MAX_COMPILE_S + 1.0


def schema_grammar(schema, *, strict=True):
    return json_schema_grammar(schema, strict=strict)


@pytest.mark.parametrize(
    ("text", "is_allowed"),
    [
        ('{"이름": "온돌", "나이": 3}', True),
        ('{"이름":"온돌","나이":3}', True),
        ('{"이름": "온돌"}', False),
        ('{"이름": "온돌", "나이": "3"}', False),
        ('{"나이": 3, "이름": "온돌"}', False),
        ('{"이름": "온돌", "나이": 3, "또": 1}', False),
    ],
)
def test_a_schema_allows_what_it_says_in_hangul_too(text, is_allowed):
    schema = {
        "type": "object",
        "properties": {"이름": {"type": "string"}, "나이": {"type": "integer"}},
        "required": ["이름", "나이"],
        "additionalProperties": False,
    }
    assert allows(schema_grammar(schema), text) is is_allowed


@pytest.mark.parametrize(
    "text", [' {"a": 1}', '{"a": 1} ', '{ "a": 1}', '{"a":  1}', '{"a":\n1}', '{"a": 1 }']
)
@pytest.mark.parametrize(
    "asked", [{}, {"x-guidance": {"whitespace_flexible": True, "whitespace_pattern": "\\s+"}}]
)
def test_a_model_cannot_fill_json_with_blanks_even_if_the_schema_asks(text, asked):
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, **asked}
    assert not allows(schema_grammar(schema), text)


@pytest.mark.parametrize("text", ['"\\ud800"', '"\\udfff"', '"line\nbreak"'])
def test_a_string_holds_nothing_that_a_client_cannot_read(text):
    assert not allows(schema_grammar({"type": "string"}), text)
    assert allows(schema_grammar({"type": "string"}), '"\\n 온돌 😀 \\u0000"')


@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers(-(10**9), 10**9)
        | st.text(st.characters(codec="utf-8"), max_size=8),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
        max_leaves=6,
    )
)
def test_any_object_that_json_writes_is_a_json_object(value):
    text = json.dumps({"값": value}, ensure_ascii=False)
    # A grammar writes one form of each character; DEL and beyond ASCII's controls stay escaped or plain.
    if any(ord(character) == 0x7F for character in text):
        return
    assert allows(json_object_grammar(), text)


def test_json_object_allows_objects_alone():
    assert not allows(json_object_grammar(), "[1]")
    assert not allows(json_object_grammar(), "null")


def test_true_and_the_empty_schema_allow_any_value():
    for schema in (True, {}):
        assert allows(schema_grammar(schema), "[1, null]")


def test_what_cannot_be_enforced_is_refused_when_strict_and_left_out_else():
    schema = {"type": "array", "items": {"type": "integer"}, "uniqueItems": True}
    assert "uniqueItems" in grammar_error(schema_grammar(schema))
    assert allows(schema_grammar(schema, strict=False), "[1, 1]")


def test_a_pattern_matches_the_whole_text():
    grammar = regex_grammar("(네|아니요)!?")
    assert allows(grammar, "네!")
    assert not allows(grammar, "네, 그래요")


def test_either_of_several_grammars_may_be_matched_and_no_mixture():
    schema = schema_grammar({"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]})
    call = lark_grammar(f'start: "<call>" body\nbody: {embedded_schema({"type": "integer"}, strict=True)}')
    either = either_grammar([schema, call, regex_grammar("네|아니요")])
    assert grammar_error(either) is None
    assert all(allows(either, text) for text in ('{"a": 1}', "<call>5", "아니요"))
    assert not any(allows(either, text) for text in ('<call>{"a": 1}', "5", '네{"a": 1}', "", "{}"))


def test_one_grammar_alone_stays_as_it_is_and_none_is_none():
    assert either_grammar(["start: /a/"]) == "start: /a/"
    assert either_grammar([]) is None


def test_lark_takes_bounded_schemas_and_special_tokens():
    schema = embedded_schema({"type": "object", "properties": {"도시": {"type": "string"}}}, strict=False)
    assert allows(
        lark_grammar(f'start: "<call>" body "</call>"\nbody: {schema}'), '<call>{"도시": "서울"}</call>'
    )
    assert not allows(lark_grammar(f"start: body\nbody: {schema}"), '{"도시":  "서울"}')
    assert grammar_error(lark_grammar(f"start: <[150000]> body\nbody: {schema}")) is None


def nested(depth):
    schema = {"type": "integer"}
    for _ in range(depth):
        schema = {"type": "object", "properties": {"a": schema}, "required": ["a"]}
    return schema


def doubling(num_levels, keyword):
    definitions = {
        f"d{level}": {keyword: [{"$ref": f"#/$defs/d{level + 1}"}] * 2} for level in range(num_levels)
    }
    return {"$defs": {**definitions, f"d{num_levels}": {"type": "string"}}, "$ref": "#/$defs/d0"}


def many(num_properties):
    return {
        "type": "object",
        "properties": {f"p{index}": {"type": "string"} for index in range(num_properties)},
    }


REFUSED = {
    "a reference to itself": {"$ref": "#"},
    "references in a circle": {
        "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}},
        "$ref": "#/$defs/a",
    },
    "a reference to nothing": {"$ref": "#/$defs/nothing"},
    "a reference to the net": {"$ref": "http://127.0.0.1:9/schema.json"},
    "a reference to a file": {"$ref": "file:///etc/passwd"},
    "an enum of 50,000": {"enum": [f"value-{index}" for index in range(50_000)]},
    "too many properties": many(5000),
    "too deep": nested(40),
    "far too deep": nested(400),
    "a product of choices": {
        "allOf": [
            {"anyOf": [{"properties": {f"p{i}{j}": {"type": "string"}}} for j in range(4)]} for i in range(10)
        ]
    },
    "overlapping patterns": {
        "type": "object",
        "patternProperties": {f"^a{index}.*$": {"type": "string"} for index in range(500)},
    },
    "a number that is a multiple of a large prime": {"type": "integer", "multipleOf": 982_451_653},
    "a multiple that takes minutes": {"type": "integer", "multipleOf": -(2**31)},
    "multiples that take minutes together": {"allOf": [{"multipleOf": 9.973}, {"multipleOf": 9_967_000}]},
    "an unbalanced pattern": {"type": "string", "pattern": "("},
    "look-ahead": {"type": "string", "pattern": "(?=a)b"},
    "no such type": {"type": "strin"},
    "a contradiction": {"type": "string", "minLength": 5, "maxLength": 2},
    "an impossible property": {"type": "object", "properties": {"a": False}, "required": ["a"]},
    "nothing": False,
    "a list": [1],
    "a value that is no JSON": {"const": float("nan")},
    "half a character": {"const": "\ud800"},
    "a long literal": {"const": "x" * 200_000},
    "a long literal in a list": {"enum": ["x" * 200_000]},
    "the least integer": {"const": -(2**63)},
    "the least integer inside of a value": {"enum": [{"a": [0, -(2**63)]}]},
    "a range below all integers": {"type": "integer", "minimum": -1e20, "maximum": -1e19},
    "an open range below all integers": {"allOf": [{"type": "integer"}, {"exclusiveMaximum": -(2**63) + 1}]},
    "a long name": {"type": "object", "properties": {"x" * 200_000: {"type": "string"}}},
}
BOUNDED = {
    "an enum of 5,000": {"enum": [f"value-{index}" for index in range(5000)]},
    "400 properties": many(400),
    "a tree": {"type": "object", "properties": {"children": {"type": "array", "items": {"$ref": "#"}}}},
    "doubling references": doubling(20, "allOf"),
    "doubling choices": doubling(20, "anyOf"),
    "multiples of a price": {
        "properties": {"p": {"type": "number", "multipleOf": 0.01}, "n": {"multipleOf": 12}}
    },
    "a wide range of integers": {"type": "integer", "minimum": -(2**62), "maximum": 2**63 - 1},
    "a large identifier": {"enum": [1_234_567_890_123_456_789, -1_234_567_890_123_456_789]},
    "a huge string": {"type": "string", "minLength": 10**9, "maxLength": 10**9},
    "a huge list": {"type": "array", "minItems": 10**9, "items": {"type": "integer"}},
    "nested repetitions": {"type": "string", "pattern": "^((a{1,1000}){1,1000}){1,1000}$"},
    "catastrophic backtracking": {"type": "string", "pattern": "^(a+)+$"},
    "many states": {"type": "string", "pattern": "^(a|b)*a(a|b){3000}$"},
}


@pytest.mark.parametrize("name", REFUSED)
async def test_a_hostile_schema_is_refused_in_time(name):
    started_s = time.monotonic()
    with pytest.raises(InvalidRequest) as caught:
        await validate_grammar(json_schema_grammar(REFUSED[name], strict=True))
    assert time.monotonic() - started_s < DEADLINE_S
    assert (caught.value.param, caught.value.code) == ("response_format", "invalid_json_schema")
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("name", BOUNDED)
async def test_a_large_schema_within_the_bounds_compiles_in_time(name):
    started_s = time.monotonic()
    await validate_grammar(json_schema_grammar(BOUNDED[name], strict=True))
    assert time.monotonic() - started_s < DEADLINE_S


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: regex_grammar("("), "regular expression error: unclosed group"),
        (lambda: schema_grammar({"type": "string", "pattern": "[z-a]"}), "invalid character class range"),
        (lambda: regex_grammar("a" * 20_000), "at most"),
        (lambda: lark_grammar("start: unknown"), "unknown"),
        (lambda: lark_grammar("start: a\na: b\nb: a"), "nothing can match"),
        (lambda: lark_grammar(f'start: "{"x" * 300_000}"'), "at most"),
    ],
)
async def test_other_grammars_are_refused_with_the_callers_field(make, reason):
    with pytest.raises(InvalidRequest, match=reason) as caught:
        await validate_grammar(make(), param="guided_regex")
    assert caught.value.param in ("guided_regex", "response_format")


async def test_a_grammar_that_takes_too_long_is_refused_while_it_still_compiles(monkeypatch):
    monkeypatch.setattr("ondol.text.structured_output.grammar_error", lambda grammar: time.sleep(0.2))
    monkeypatch.setattr("ondol.text.structured_output.MAX_COMPILE_S", 0.01)
    with pytest.raises(InvalidRequest, match="longer than"):
        await validate_grammar(json_object_grammar())
