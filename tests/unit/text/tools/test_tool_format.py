"""Which family a template belongs to, and grammars that let nothing but right calls through."""

import json

import pytest
from llguidance import LLMatcher, LLTokenizer
from support.tokenizers import CHATML_SPECIAL_TOKENS, CHATML_TEMPLATE, build_byte_level_tokenizer
from support.tool_templates import HERMES_TEMPLATE, LLAMA_3_TOOLS_TEMPLATE, MISTRAL_TOOLS_TEMPLATE

from ondol.text.chat_template import ChatTemplate
from ondol.text.tokenizer import TextTokenizer
from ondol.text.tools.tool_format import tool_format

MARKERS = ("[TOOL_CALLS]", "[ARGS]", "<|python_tag|>")
TEMPLATES = {"hermes": HERMES_TEMPLATE, "llama3": LLAMA_3_TOOLS_TEMPLATE, "mistral": MISTRAL_TOOLS_TEMPLATE}

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"$ref": "#/$defs/City"}},
            "required": ["city"],
            "additionalProperties": False,
            "$defs": {"City": {"enum": ["서울", "부산"]}},
        },
    },
}
CLOCK = {"type": "function", "function": {"name": "시계"}}


@pytest.fixture(scope="module")
def backend():
    return build_byte_level_tokenizer(special_tokens=(*CHATML_SPECIAL_TOKENS, *MARKERS))


@pytest.fixture(scope="module")
def vocabulary(backend):
    eos = backend.token_to_id("<|im_end|>")
    return LLTokenizer(backend.to_str(), eos_token=eos)


@pytest.fixture
def format_of(backend):
    def find(template):
        return tool_format(TextTokenizer(backend, ChatTemplate(template, {})))

    return find


@pytest.fixture
def accepts(backend, vocabulary):
    """Whether a grammar takes the whole text and allows it to end there."""

    def check(lark, text):
        matcher = LLMatcher(vocabulary, LLMatcher.grammar_from_lark(lark))
        assert not matcher.is_error(), matcher.get_error()
        token_ids = backend.encode(text, add_special_tokens=False).ids
        return matcher.try_consume_tokens(token_ids) == len(token_ids) and matcher.is_accepting()

    return check


@pytest.mark.parametrize(("name", "template"), TEMPLATES.items())
def test_the_template_tells_the_family(format_of, name, template):
    assert format_of(template).name == name


@pytest.mark.parametrize(
    "template",
    [
        CHATML_TEMPLATE,
        "{{ messages }}<tool_call>",
        "{{ tools }}<tool_call><function=name>",
        "{{ tools }} in words",
    ],
)
def test_a_template_without_tools_or_with_another_syntax_has_no_format(format_of, template):
    assert format_of(template) is None


def test_a_model_without_template_has_no_format(backend):
    assert tool_format(TextTokenizer(backend)) is None


def test_special_markers_are_shown_and_ordinary_text_needs_no_showing(format_of, backend):
    assert format_of(HERMES_TEMPLATE).shown_token_ids == frozenset()
    shown = format_of(MISTRAL_TOOLS_TEMPLATE).shown_token_ids
    assert shown == {backend.token_to_id("[TOOL_CALLS]"), backend.token_to_id("[ARGS]")}


SEOUL = '{"name": "get_weather", "arguments": {"city": "서울"}}'
TIME = '{"name": "시계", "arguments": {}}'
WRAPPED = {
    "hermes": lambda *calls: "\n".join(f"<tool_call>\n{call}\n</tool_call>" for call in calls),
    "mistral": lambda *calls: f"[TOOL_CALLS][{', '.join(calls)}]",
    "llama3": lambda *calls: "; ".join(call.replace('"arguments"', '"parameters"') for call in calls),
}


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_forced_answer_is_a_right_call_and_nothing_else(format_of, accepts, name):
    lark = format_of(TEMPLATES[name]).forced_grammar([WEATHER, CLOCK], is_parallel=False)
    wrap = WRAPPED[name]
    assert accepts(lark, wrap(SEOUL))
    assert accepts(lark, wrap(TIME))
    assert not accepts(lark, wrap(SEOUL.replace("서울", "도쿄")))
    assert not accepts(lark, wrap(SEOUL.replace("get_weather", "get_time")))
    assert not accepts(lark, "그냥 글")
    assert not accepts(lark, wrap(SEOUL, TIME))
    assert not accepts(lark, wrap(SEOUL)[:-3])


@pytest.mark.parametrize("name", ["hermes", "mistral"])
def test_a_forced_answer_may_hold_several_calls_where_that_is_allowed(format_of, accepts, name):
    lark = format_of(TEMPLATES[name]).forced_grammar([WEATHER, CLOCK], is_parallel=True)
    assert accepts(lark, WRAPPED[name](SEOUL, TIME))
    assert accepts(lark, WRAPPED[name](*[TIME] * 8))
    assert not accepts(lark, WRAPPED[name](*[TIME] * 9))


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_free_answer_is_any_text_or_a_right_call(format_of, accepts, name):
    lark = format_of(TEMPLATES[name]).free_grammar([WEATHER, CLOCK])
    wrap = WRAPPED[name]
    assert accepts(lark, "안녕하세요.\n<b>")
    assert accepts(lark, wrap(SEOUL))
    assert not accepts(lark, wrap(SEOUL.replace("서울", "도쿄")))


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_parser_reads_what_the_grammar_forces(format_of, name):
    parser = format_of(TEMPLATES[name]).parser(["get_weather", "시계"])
    delta = parser.push(WRAPPED[name](SEOUL))
    assert delta.calls[0].name == "get_weather"
    assert json.loads("".join(call.arguments for call in delta.calls)) == {"city": "서울"}
    assert delta.text + parser.flush().text == ""
