"""Chat templates: reference formats, refusals, and what a hostile template may not do."""

import pytest
from support.tokenizers import CHATML_TEMPLATE, INST_TEMPLATE

from ondol.errors import InvalidRequest, ModelRefused
from ondol.text.chat_template import ChatTemplate, merge_system

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


def metas_reference(messages):
    """Llama-2's dialog format after Meta's published `chat_completion`, as text with BOS and EOS shown."""
    if messages[0]["role"] == "system":
        system, first, *rest = messages
        merged = f"<<SYS>>\n{system['content']}\n<</SYS>>\n\n{first['content']}"
        messages = [{"role": "user", "content": merged}, *rest]
    turns = ""
    for question, answer in zip(messages[::2], messages[1::2], strict=False):
        turns += f"<s>[INST] {question['content'].strip()} [/INST] {answer['content'].strip()} </s>"
    return turns + f"<s>[INST] {messages[-1]['content'].strip()} [/INST]"


LLAMA_2_TEMPLATE = (
    "{% set has_system = messages[0].role == 'system' %}"
    "{% for message in messages[(1 if has_system else 0):] %}"
    "{% if (message.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Roles must alternate.') }}{% endif %}"
    "{% set head = '<<SYS>>\n' + messages[0].content + '\n<</SYS>>\n\n'"
    " if has_system and loop.first else '' %}"
    "{% if message.role == 'user' %}"
    "{{ bos_token + '[INST] ' + (head + message.content).strip() + ' [/INST]' }}"
    "{% else %}{{ ' ' + message.content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}"
)


@pytest.mark.parametrize("system", [[], [{"role": "system", "content": "짧게 답해라. "}]])
@pytest.mark.parametrize("num_turns", [0, 1, 3])
def test_llama_2_renders_as_metas_reference_does(system, num_turns):
    turns = [message for n in range(num_turns) for message in (user(f"질문 {n} "), assistant(f" 답 {n}"))]
    messages = [*system, *turns, user("  인구는?\n")]
    assert ChatTemplate(LLAMA_2_TEMPLATE, LLAMA_TOKENS).render(messages) == metas_reference(messages)


def test_a_continued_message_stays_open_where_it_ends():
    template = ChatTemplate(CHATML_TEMPLATE, {})
    messages = [user("1부터 세어 봐"), assistant("하나, 둘, ")]
    assert template.render_open_end(messages).endswith("<|im_start|>assistant\n하나, 둘, ")


def test_a_message_that_the_template_leaves_out_cannot_be_continued():
    template = ChatTemplate("{% for m in messages if m.role == 'user' %}{{ m.content }}{% endfor %}", {})
    with pytest.raises(InvalidRequest, match="leaves out"):
        template.render_open_end([user("a"), assistant("b")])


def test_a_template_tells_whether_it_takes_system_messages_and_tools():
    chatml = ChatTemplate(CHATML_TEMPLATE, {})
    assert (chatml.takes_system, chatml.takes_tools) == (True, False)
    refusing = ChatTemplate(
        "{% for m in messages if m.role == 'system' %}{{ raise_exception('no') }}{% endfor %}",
        {},
    )
    assert not refusing.takes_system
    with_tools = ChatTemplate("{% for tool in tools or [] %}{{ tool | tojson }}{% endfor %}", {})
    assert with_tools.takes_tools


def test_arguments_reach_the_template_but_never_replace_what_is_reserved():
    template = ChatTemplate("{{ enable_thinking }} {{ messages[0].content }} {{ bos_token }}", LLAMA_TOKENS)
    arguments = {"enable_thinking": False, "messages": [user("forged")], "bos_token": "forged"}
    assert template.render([user("hi")], arguments=arguments) == "False hi <s>"


def test_a_system_prompt_is_merged_into_the_first_user_message():
    system = {"role": "system", "content": "짧게."}
    assert merge_system([system, user("안녕")]) == [user("짧게.\n\n안녕")]
    assert merge_system([user("안녕")]) == [user("안녕")]
    assert merge_system([system, assistant("네")]) == [system, assistant("네")]
    assert merge_system([system]) == [system]


def test_json_in_a_prompt_keeps_hangul_as_it_is():
    assert ChatTemplate("{{ messages | tojson }}", {}).render([user("한글 <b>")]) == (
        '[{"role": "user", "content": "한글 <b>"}]'
    )
