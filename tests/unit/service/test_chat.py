"""From a turn to what is to be generated: which grammar its answer has to match."""

import pytest
from support.fake_model import FakeModel, fake_model
from support.grammars import allows
from support.tokenizers import save_byte_level_tokenizer
from support.tool_templates import HERMES_TEMPLATE

from ondol.errors import InvalidRequest
from ondol.service.answer import Caller, Generation
from ondol.service.chat import ChatTurn, ToolUse, prepare_chat
from ondol.service.sampling_options import SamplingOptions
from ondol.text.structured_output import json_schema_grammar

pytestmark = pytest.mark.anyio

STRING = {"type": "string"}
ANSWER = json_schema_grammar(
    {"type": "object", "properties": {"답": STRING}, "required": ["답"]}, strict=True
)


def tool(name: str, **more: object) -> dict[str, object]:
    parameters = {"type": "object", "properties": {"city": STRING}, "required": ["city"]}
    return {"type": "function", "function": {"name": name, "parameters": parameters, **more}}


def call(name: str) -> str:
    return f'<tool_call>\n{{"name": "{name}", "arguments": {{"city": "서울"}}}}\n</tool_call>'


@pytest.fixture
async def tool_model(tmp_path) -> FakeModel:
    save_byte_level_tokenizer(tmp_path, chat_template=HERMES_TEMPLATE)
    return fake_model(tmp_path, max_model_len=2048)


def prepare(model: FakeModel, answer: str | None, tools: ToolUse | None, **more: object) -> Generation:
    messages = ({"role": "user", "content": "날씨?"},)
    turn = ChatTurn(messages=messages, options=SamplingOptions(grammar=answer), tools=tools, **more)
    return prepare_chat(model, turn, Caller())


def grammar_of(generation: Generation) -> str | None:
    (request,) = generation.requests
    return request.params.grammar


async def test_beside_a_format_of_the_answer_tools_can_still_be_called(tool_model):
    generation = prepare(tool_model, ANSWER, ToolUse((tool("weather"), tool("clock"))))
    await generation.check()
    grammar = grammar_of(generation)
    assert grammar is not None
    assert all(allows(grammar, text) for text in ('{"답": "맑음"}', call("weather"), call("clock")))
    assert not any(allows(grammar, text) for text in ("맑음", call("other"), '{"답": 1}'))


async def test_a_forced_call_leaves_no_room_for_the_format_of_an_answer(tool_model):
    generation = prepare(tool_model, ANSWER, ToolUse((tool("weather"),), frozenset({"weather"})))
    grammar = grammar_of(generation)
    assert grammar is not None
    assert allows(grammar, call("weather"))
    assert not allows(grammar, '{"답": "맑음"}')
    assert set(generation.untried_grammars) == {"tools"}


async def test_without_a_format_free_calls_are_held_to_their_schema_only_where_one_is_strict(tool_model):
    assert grammar_of(prepare(tool_model, None, ToolUse((tool("weather"),)))) is None
    strict = grammar_of(prepare(tool_model, None, ToolUse((tool("weather", strict=True),))))
    assert strict is not None
    assert allows(strict, "맑음")


async def test_a_model_without_tools_keeps_the_format(model):
    generation = prepare(model, ANSWER, ToolUse((tool("weather"),)))
    assert grammar_of(generation) == ANSWER
    assert generation.ignored == ("tools",)


@pytest.mark.parametrize(
    ("answer", "wrong", "param"),
    [
        (json_schema_grammar({"$ref": "#/$defs/none"}, strict=True), {}, "response_format"),
        (ANSWER, {"parameters": {"$ref": "#/$defs/none"}}, "tools"),
    ],
)
async def test_the_field_whose_grammar_cannot_be_used_is_named(tool_model, answer, wrong, param):
    generation = prepare(tool_model, answer, ToolUse((tool("weather", **wrong),)))
    with pytest.raises(InvalidRequest) as refusal:
        await generation.check()
    assert refusal.value.param == param


async def test_a_forced_call_is_not_cut_by_stop_strings_and_says_so(tool_model):
    tools = (tool("weather"),)
    forced = prepare(tool_model, None, ToolUse(tools, frozenset({"weather"})), stop=("서",))
    free = prepare(tool_model, None, ToolUse(tools), stop=("서",))
    unstopped = prepare(tool_model, None, ToolUse(tools, frozenset({"weather"})))
    assert (forced.requests[0].stop, forced.ignored) == ((), ("stop",))
    assert (free.requests[0].stop, free.ignored) == (("서",), ())
    assert unstopped.ignored == ()
