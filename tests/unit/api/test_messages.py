"""Messages as clients write them, and what a template gets of them."""

import pytest
from support.fake_model import fake_model
from support.front_door import open_front_door
from support.tokenizers import save_byte_level_tokenizer
from support.tool_templates import HERMES_TEMPLATE

from ondol.api.messages import RequestMessage

pytestmark = pytest.mark.anyio


def message_with(arguments: str) -> dict[str, object]:
    function = {"name": "f", "arguments": arguments}
    return {"role": "assistant", "tool_calls": [{"id": "c1", "type": "function", "function": function}]}


@pytest.mark.parametrize(
    ("arguments", "given"),
    [
        ('{"도시": "서울", "n": 1.5}', {"도시": "서울", "n": 1.5}),
        ("", ""),
        ("[1]", "[1]"),
        ("null", "null"),
        ('{"city": ', '{"city": '),
        ('{"n": NaN}', '{"n": NaN}'),
        (r'{"half": "\ud83d"}', r'{"half": "\ud83d"}'),
        (r'{"\udc00": 1}', r'{"\udc00": 1}'),
        ('{"a": ' * 5000, '{"a": ' * 5000),
    ],
)
def test_a_calls_arguments_are_an_object_where_they_are_one_and_else_a_text(arguments, given):
    (call,) = RequestMessage.model_validate(message_with(arguments)).for_template()["tool_calls"]
    assert call["function"]["arguments"] == given


async def test_half_a_character_in_an_earlier_call_is_no_error(tmp_path):
    save_byte_level_tokenizer(tmp_path, chat_template=HERMES_TEMPLATE)
    door = open_front_door(fake_model(tmp_path, max_model_len=2048))
    door.engine.script = lambda call: call.feed([5], "length")
    messages = [{"role": "user", "content": "x"}, message_with(r'{"half": "\ud83d"}')]
    async with door.client() as client:
        answer = await client.post("/v1/chat/completions", json={"model": "tiny", "messages": messages})
    assert answer.status_code == 200, answer.text
