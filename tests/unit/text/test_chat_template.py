"""Chat templates: reference formats, refusals, and what a hostile template may not do."""

import pytest
from support.tokenizers import CHATML_TEMPLATE, INST_TEMPLATE

from ondol.errors import InvalidRequest, ModelRefused
from ondol.text import chat_template
from ondol.text.chat_template import ChatTemplate

LLAMA_TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}
LLAMA_3_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '<|start_header_id|>' + message.role + '<|end_header_id|>\n\n' }}"
    "{{ message.content | trim + '<|eot_id|>' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)


def user(content):
    return {"role": "user", "content": content}


def assistant(content):
    return {"role": "assistant", "content": content}


def test_chatml_conversation_ends_with_the_open_turn_of_the_assistant():
    template = ChatTemplate(CHATML_TEMPLATE, {})
    assert template.render([user("안녕")]) == "<|im_start|>user\n안녕<|im_end|>\n<|im_start|>assistant\n"


def test_no_generation_prompt_leaves_the_conversation_closed():
    rendered = ChatTemplate(CHATML_TEMPLATE, {}).render([user("안녕")], add_generation_prompt=False)
    assert rendered == "<|im_start|>user\n안녕<|im_end|>\n"


def test_inst_conversation_follows_metas_format():
    messages = [
        {"role": "system", "content": "짧게 답해라."},
        user("  수도는? "),
        assistant(" 서울입니다. "),
        user("인구는?"),
    ]
    assert ChatTemplate(INST_TEMPLATE, LLAMA_TOKENS).render(messages) == (
        "<s>[INST] <<SYS>>\n짧게 답해라.\n<</SYS>>\n\n  수도는? [/INST] 서울입니다. </s>"
        "<s>[INST] 인구는? [/INST]"
    )


def test_llama_3_conversation_opens_with_one_bos():
    tokens = {"bos_token": "<|begin_of_text|>"}
    assert ChatTemplate(LLAMA_3_TEMPLATE, tokens).render([user(" hi ")]) == (
        "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nhi<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n"
    )


def test_templates_own_refusal_reaches_the_client_word_for_word():
    with pytest.raises(InvalidRequest) as refusal:
        ChatTemplate(INST_TEMPLATE, LLAMA_TOKENS).render([user("a"), user("b")])
    assert str(refusal.value) == "user and assistant messages must take turns, user first"
    assert refusal.value.param == "messages"


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("{{ messages[0].tool_calls[0].name }}", "tool_calls"),
        ("{{ messages[0]['content'] + 1 }}", "str"),
        ("{{ messages[9].role.upper() }}", "no element 9"),
        ("{{ 1 / (messages | length - 1) }}", "zero"),
    ],
)
def test_template_that_trips_over_the_messages_is_the_requests_error(source, reason):
    with pytest.raises(InvalidRequest, match="cannot render these messages") as refusal:
        ChatTemplate(source, {}).render([user("a")])
    assert reason in str(refusal.value)
    assert refusal.value.param == "messages"


@pytest.mark.parametrize(
    "source",
    ["{{ messages.append(1) }}", "{{ ''.__class__.__mro__ }}", "{{ messages[0].update({'role': 'x'}) }}"],
)
def test_template_cannot_leave_the_sandbox(source):
    with pytest.raises(InvalidRequest, match="unsafe"):
        ChatTemplate(source, {}).render([user("a")])


def test_content_that_looks_like_a_template_is_not_run():
    assert "{{ 1 + 1 }}" in ChatTemplate(CHATML_TEMPLATE, {}).render([user("{{ 1 + 1 }}")])


def test_tojson_keeps_hangul_and_html_characters():
    tools = [{"type": "function", "function": {"name": "날씨", "description": "<도시>의 날씨"}}]
    rendered = ChatTemplate("{{ tools[0].function | tojson }}", {}).render([user("a")], tools=tools)
    assert rendered == '{"name": "날씨", "description": "<도시>의 날씨"}'


def test_tools_are_none_for_the_template_when_there_are_none():
    assert ChatTemplate("{{ 'yes' if tools is none else 'no' }}", {}).render([user("a")]) == "yes"


def test_date_function_of_newer_templates_is_there():
    year = ChatTemplate("{{ strftime_now('%Y') }}", {}).render([user("a")])
    assert year.isdigit()


def test_rendering_leaves_the_callers_messages_alone():
    messages = [user("a")]
    ChatTemplate("{% set ns = namespace(x=messages) %}{{ ns.x[0].content }}", {}).render(messages)
    assert messages == [user("a")]


def test_template_that_writes_without_end_is_refused(monkeypatch):
    monkeypatch.setattr(chat_template, "MAX_RENDERED_CHARS", 1000)
    with pytest.raises(InvalidRequest, match="1001 characters"):
        ChatTemplate("{% for _ in range(1001) %}x{% endfor %}", {}).render([user("a")])


@pytest.mark.parametrize("source", ["ok\n{% if %}", "ok\n{{ messages | no_such_filter }}"])
def test_broken_template_is_the_models_fault_and_names_the_line(source):
    with pytest.raises(ModelRefused, match="line 2"):
        ChatTemplate(source, {}).render([user("a")])


def test_text_after_a_reply_opens_with_the_end_of_turn_token():
    assert ChatTemplate(CHATML_TEMPLATE, {}).text_after_reply() == "<|im_end|>\n"
    assert ChatTemplate(INST_TEMPLATE, LLAMA_TOKENS).text_after_reply() == " </s>"
    assert ChatTemplate(LLAMA_3_TEMPLATE, {}).text_after_reply() == "<|eot_id|>"


@pytest.mark.parametrize("source", ["{{ raise_exception('no') }}", "{{ messages[0].content }}", ""])
def test_template_that_will_not_show_a_reply_has_nothing_after_it(source):
    assert ChatTemplate(source, {}).text_after_reply() == ""
