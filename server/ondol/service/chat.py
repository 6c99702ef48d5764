"""From a conversation to what is to be generated: the one way, whatever protocol it came in.

Front doors translate their messages and fields into a `ChatTurn`. Knows nothing about HTTP or wire
formats. Invariant: the model's own template writes the prompt, special tokens included.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import msgspec

from ondol.errors import InvalidRequest
from ondol.model_manager.loaded_model import LoadedModel
from ondol.service.answer import Caller, Generation
from ondol.service.generation import GenerationRequest
from ondol.service.sampling_options import SamplingOptions, check_text_size
from ondol.text.structured_output import either_grammar, lark_grammar
from ondol.text.tools.tool_format import ToolFormat, tool_format


@dataclass(frozen=True, slots=True)
class ToolUse:
    """The tools that the model may call.

    Attributes:
        tools: as OpenAI describes them: {"type": "function", "function": {name, parameters, ...}}.
        forced_names: the answer has to be a call of one of these; empty leaves the model its choice.
        is_parallel: an answer may hold several calls.
    """

    tools: tuple[Mapping[str, Any], ...]
    forced_names: frozenset[str] = frozenset()
    is_parallel: bool = True

    @property
    def names(self) -> tuple[str, ...]:
        """Of all tools."""
        return tuple(tool["function"]["name"] for tool in self.tools)

    def grammar(self, fmt: ToolFormat) -> str | None:
        """What the answer has to match; None if neither a call nor a strict schema is asked for."""
        if self.forced_names:
            return self.call_grammar(fmt, self.forced_names)
        if any(tool["function"].get("strict") for tool in self.tools):
            return lark_grammar(fmt.free_grammar(self.tools), param="tools")
        return None

    def call_grammar(self, fmt: ToolFormat, names: Collection[str]) -> str:
        """Calls of the tools of these names, and nothing else."""
        tools = [tool for tool in self.tools if tool["function"]["name"] in names]
        return lark_grammar(fmt.forced_grammar(tools, is_parallel=self.is_parallel), param="tools")


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatTurn:
    """One turn of a conversation that is to be answered.

    Attributes:
        messages: as chat templates take them; content is one string, a call's arguments an object.
        options: how tokens are chosen; its grammar is that of the answer's text.
        num_choices: answers, each sampled apart.
        stop: strings that end the text; they are not part of it.
        tools: None offers none.
        add_generation_prompt: whether the template opens the assistant's turn.
        continues_final_message: whether the answer goes on inside of the last message.
        template_arguments: further variables of the template, such as `enable_thinking`.
    """

    messages: tuple[Mapping[str, Any], ...]
    options: SamplingOptions
    num_choices: int = 1
    stop: tuple[str, ...] = ()
    tools: ToolUse | None = None
    add_generation_prompt: bool = True
    continues_final_message: bool = False
    template_arguments: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ChatPrompt:
    """A rendered turn; `tool_format` is None where no tool is offered to the model."""

    text: str
    token_ids: list[int]
    tool_format: ToolFormat | None


def render_turn(model: LoadedModel, turn: ChatTurn) -> ChatPrompt:
    """Render and tokenize; blocks, so call it in a thread. Raises InvalidRequest."""
    fmt = None if turn.tools is None else tool_format(model.tokenizer)
    text = model.tokenizer.render_chat(
        turn.messages,
        tools=turn.tools.tools if turn.tools is not None and fmt is not None else None,
        add_generation_prompt=turn.add_generation_prompt,
        continues_final_message=turn.continues_final_message,
        arguments=turn.template_arguments,
    )
    check_text_size(text, model.max_model_len, "messages")
    token_ids = model.tokenizer.encode_rendered(text)
    if not token_ids:
        raise InvalidRequest("The messages make an empty prompt.", param="messages")
    return ChatPrompt(text, token_ids, fmt)


def prepare_chat(model: LoadedModel, turn: ChatTurn, caller: Caller) -> Generation:
    """Render, tokenize and check one turn; blocks, so call it in a thread.

    A model whose template knows no tools leaves them out, a forced call leaves out stop strings; the answer's
    `ignored` says so. Raises InvalidRequest.
    """
    prompt = render_turn(model, turn)
    fmt, tools = prompt.tool_format, turn.tools
    grammars = _grammars(turn, fmt)
    grammar = either_grammar(tuple(grammars.values()))
    params = replace(turn.options, grammar=grammar).params(model, len(prompt.token_ids), "messages")
    stop, ignored = turn.stop, ("tools",) if tools is not None and fmt is None else ()
    if stop and fmt is not None and tools is not None and tools.forced_names:
        # A call is no text: cut by a stop string, its arguments would be no JSON.
        stop, ignored = (), ("stop",)
    requests = tuple(
        GenerationRequest(
            prompt_ids=prompt.token_ids,
            params=msgspec.structs.replace(params, choice=choice),
            stop=stop,
            is_continuation=turn.continues_final_message,
            cache_salt=caller.cache_salt,
            shown_token_ids=frozenset() if fmt is None else fmt.shown_token_ids,
            deadline_s=caller.deadline_s,
            priority=caller.priority,
        )
        for choice in range(turn.num_choices)
    )
    return Generation(
        model,
        requests,
        len(prompt.token_ids),
        new_parser=None if fmt is None or tools is None else partial(fmt.parser, tools.names),
        ignored=ignored,
        untried_grammars=grammars,
    )


def _grammars(turn: ChatTurn, fmt: ToolFormat | None) -> dict[str, str]:
    """What the answer has to match, one or the other, by the field that asks for it."""
    tools, answer = turn.tools, turn.options.grammar
    formats = {} if answer is None else {"response_format": answer}
    if fmt is None or tools is None:
        return formats
    # A forced call leaves no room for another format; beside a free one either may come.
    if formats and not tools.forced_names:
        return {"tools": tools.call_grammar(fmt, tools.names), **formats}
    calls = tools.grammar(fmt)
    return {} if calls is None else {"tools": calls}
