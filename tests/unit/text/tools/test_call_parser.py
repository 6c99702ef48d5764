"""Tool calls out of streamed text, for every family, however the text was cut."""

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ondol.text.tools.call_parser import CallParser
from ondol.text.tools.tool_format import HERMES, LLAMA_3, MISTRAL

NAMES = ("get_weather", "검색")
SYNTAXES = {"hermes": HERMES, "llama3": LLAMA_3, "mistral": MISTRAL}


def parse(syntax, chunks):
    """(text, [(name, arguments)]) after joining all deltas; checks that pieces come in order."""
    parser = CallParser(syntax, NAMES)
    text, calls = "", []
    for delta in [*(parser.push(chunk) for chunk in chunks), parser.flush()]:
        text += delta.text
        for piece in delta.calls:
            if piece.name is not None:
                assert piece.index == len(calls)
                assert piece.call_id
                calls.append([piece.name, ""])
            assert piece.index == len(calls) - 1
            calls[-1][1] += piece.arguments
    return text, [tuple(call) for call in calls]


CASES = [
    ("hermes", "안녕하세요", "안녕하세요", []),
    (
        "hermes",
        '<tool_call>\n{"name": "get_weather", "arguments": {"city": "서울"}}\n</tool_call>',
        "",
        [("get_weather", '{"city": "서울"}')],
    ),
    (
        "hermes",
        '찾아볼게요.\n<tool_call>\n{"name": "검색", "arguments": {"q": "}\\"{"}}\n</tool_call>\n'
        '<tool_call>{"arguments": {"a": [1, {"b": null}]}, "name": "get_weather"}</tool_call>\n 끝',
        "찾아볼게요.끝",
        [("검색", '{"q": "}\\"{"}'), ("get_weather", '{"a": [1, {"b": null}]}')],
    ),
    ("hermes", '<tool_call>{"name": "검색"}</tool_call>', "", [("검색", "{}")]),
    ("hermes", '<tool_call>{"name": "검색", "arguments": null}</tool_call>', "", [("검색", "{}")]),
    (
        "hermes",
        '<tool_call>{"name": "검색", "arguments": "{\\"q\\": 1}"}</tool_call>',
        "",
        [("검색", '{"q": 1}')],
    ),
    ("hermes", "<tool_call>말뿐</tool_call>", "<tool_call>말뿐</tool_call>", []),
    (
        "hermes",
        '<tool_call>{"name": "\\ud800", "arguments": {}}</tool_call>',
        '<tool_call>{"name": "\\ud800", "arguments": {}}</tool_call>',
        [],
    ),
    (
        "hermes",
        '<tool_call>{"name": "검색", "arguments": {"q": "\\ud83d"}}</tool_call>',
        "",
        [("검색", '{"q": "\\ud83d"}')],
    ),
    ("hermes", "<tool_call>", "<tool_call>", []),
    ("hermes", "a <tool b", "a <tool b", []),
    ("hermes", "줄\n\n", "줄\n\n", []),
    ("hermes", '<tool_call>\n{"name": "검색", "argum', "", [("검색", "")]),
    ("hermes", '{"name": "검색", "arguments": {}}', '{"name": "검색", "arguments": {}}', []),
    (
        "llama3",
        '{"name": "get_weather", "parameters": {"city": "부산"}}',
        "",
        [("get_weather", '{"city": "부산"}')],
    ),
    (
        "llama3",
        '<|python_tag|>{"type": "function", "name": "x", "parameters": {}}; '
        '{"name": "검색", "parameters": {"n": 1}}',
        "",
        [("x", "{}"), ("검색", '{"n": 1}')],
    ),
    ("llama3", '{"name": "unknown", "parameters": {}}', '{"name": "unknown", "parameters": {}}', []),
    ("llama3", '{"answer": 42}', '{"answer": 42}', []),
    ("llama3", "{서울}은 {수도}다", "{서울}은 {수도}다", []),
    ("llama3", '예: {"name": "검색"}', '예: {"name": "검색"}', []),
    (
        "mistral",
        '[TOOL_CALLS] [{"name": "검색", "arguments": {"q": "a"}}, {"name": "get_weather", "arguments": {}}]',
        "",
        [("검색", '{"q": "a"}'), ("get_weather", "{}")],
    ),
    ("mistral", '좋아요[TOOL_CALLS]검색[ARGS]{"q": [1, 2]}', "좋아요", [("검색", '{"q": [1, 2]}')]),
    ("mistral", '[TOOL_CALLS]검색[CALL_ID]abc[ARGS]{"q": 1}', "", [("검색", '{"q": 1}')]),
    ("mistral", "[TOOL] 아님", "[TOOL] 아님", []),
]


@pytest.mark.parametrize(("family", "answer", "text", "calls"), CASES)
def test_calls_and_text_are_told_apart(family, answer, text, calls):
    assert parse(SYNTAXES[family], [answer]) == (text, calls)
    assert parse(SYNTAXES[family], answer) == (text, calls)


@given(case=st.sampled_from(CASES), data=st.data())
def test_what_comes_out_does_not_depend_on_how_the_answer_was_cut(case, data):
    family, answer, text, calls = case
    cuts = sorted(data.draw(st.lists(st.integers(0, len(answer)), max_size=6)))
    chunks = [answer[a:b] for a, b in zip([0, *cuts], [*cuts, len(answer)], strict=True)]
    assert parse(SYNTAXES[family], chunks) == (text, calls)


@given(st.sampled_from(sorted(SYNTAXES)), st.text(alphabet='<>{}[]"\\:;,/ \ntol_ca한name', max_size=60))
def test_text_that_is_no_call_is_not_lost(family, answer):
    text, calls = parse(SYNTAXES[family], answer)
    if not calls:
        assert re.sub(r"\s", "", text) == re.sub(r"\s", "", answer)


@given(st.dictionaries(st.text(max_size=8), st.recursive(st.none() | st.text() | st.integers(), st.lists)))
def test_arguments_come_out_as_the_model_wrote_them(arguments):
    written = json.dumps(arguments, ensure_ascii=False)
    answer = f'<tool_call>\n{{"name": "검색", "arguments": {written}}}\n</tool_call>'
    assert parse(HERMES, answer) == ("", [("검색", written)])


def test_arguments_stream_while_the_call_is_still_open():
    parser = CallParser(HERMES, NAMES)
    opened = parser.push('<tool_call>{"name": "검색", "arguments": {"q": "온')
    assert [(piece.name, piece.arguments) for piece in opened.calls] == [("검색", ""), (None, '{"q": "온')]
    assert [piece.arguments for piece in parser.push('돌"}').calls] == ['돌"}']


def test_ids_differ_and_mistrals_have_nine_letters_and_digits():
    ids = {MISTRAL.new_id() for _ in range(50)} | {HERMES.new_id() for _ in range(50)}
    assert len(ids) == 100
    assert re.fullmatch(r"[A-Za-z0-9]{9}", MISTRAL.new_id())
    assert re.fullmatch(r"call_[0-9a-f]{24}", HERMES.new_id())
