"""Messages to the prompt text that a model was trained on, by the checkpoint's own Jinja template.

Rendered in a bounded sandbox: a template is a program from a stranger. Knows nothing about tokens,
except for the names of special ones that templates mention.

Invariant: the template is the truth. Nothing is added to what it renders, a BOS token least of all.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from jinja2.exceptions import TemplateError, TemplateSyntaxError

from ondol.errors import InvalidRequest, ModelRefused
from ondol.text.template_sandbox import CompiledTemplate, RenderTooLarge

Message = Mapping[str, Any]
Tool = Mapping[str, Any]

PROBE_REPLY = "ondol-probe"
PROBE_TOOL = {
    "type": "function",
    "function": {
        "name": PROBE_REPLY,
        "description": "?",
        "parameters": {"type": "object", "properties": {}, "required": []},
    },
}

# What a template's expressions raise on messages of a shape that its author did not think of.
TEMPLATE_FAULTS = (
    TypeError,
    ValueError,
    LookupError,
    AttributeError,
    ArithmeticError,
    RecursionError,
    MemoryError,
)

# Names that a caller's own template arguments may not take.
RESERVED_ARGUMENTS = frozenset({"messages", "tools", "documents", "add_generation_prompt", "range"})


class ChatTemplate:
    """One chat template with the special tokens it may mention (`bos_token`, `eos_token`, ...).

    Attributes:
        source: the Jinja text.
        takes_system: whether a system message reaches the prompt.
        takes_tools: whether tools do.
    """

    def __init__(self, source: str, special_tokens: Mapping[str, str]) -> None:
        """Raises ModelRefused for a syntax error."""
        self.source = source
        self._special_tokens = dict(special_tokens)
        try:
            self._compiled = CompiledTemplate(source)
        except TemplateSyntaxError as error:
            raise ModelRefused(
                f"The chat template is broken at line {error.lineno}: {error.message}"
            ) from error
        user = {"role": "user", "content": "?"}
        self.takes_system = self._shows([{"role": "system", "content": PROBE_REPLY}, user])
        self.takes_tools = self._shows([user], tools=[PROBE_TOOL])

    def render(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Tool] | None = None,
        add_generation_prompt: bool = True,
        arguments: Mapping[str, Any] | None = None,
    ) -> str:
        """The prompt text; `add_generation_prompt` opens the assistant's turn at its end.

        Args:
            messages, tools: in OpenAI's shapes, a call's arguments as an object.
            add_generation_prompt: whether the answer begins a new turn.
            arguments: further variables that the template may look at, such as `enable_thinking`.

        Raises InvalidRequest (param "messages"): with the template's own words where it refuses the
        conversation by raise_exception.
        """
        context: dict[str, Any] = {
            **{key: value for key, value in (arguments or {}).items() if key not in RESERVED_ARGUMENTS},
            **self._special_tokens,
            "messages": list(messages),
            "tools": list(tools) if tools else None,
            "documents": None,
            "add_generation_prompt": add_generation_prompt,
        }
        try:
            return self._compiled.render(context)
        except RenderTooLarge as error:
            raise _refused(f"The model's chat template was stopped: {error}.") from error
        except TemplateError as error:
            own_words = type(error) is TemplateError  # raise_exception's; Jinja itself raises subclasses
            raise _refused(str(error) if own_words else _template_fault(error)) from error
        except TEMPLATE_FAULTS as error:
            raise _refused(_template_fault(error)) from error

    def render_open_end(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Tool] | None = None,
        arguments: Mapping[str, Any] | None = None,
    ) -> str:
        """The prompt text up to the end of the last message's own text, so that the answer goes on there.

        Raises InvalidRequest as `render` does, and where the template shows no such place.
        """
        last = messages[-1]
        marked = {**last, "content": f"{last.get('content') or ''}{PROBE_REPLY}"}
        rendered = self.render(
            [*messages[:-1], marked], tools=tools, add_generation_prompt=False, arguments=arguments
        )
        text, found, _ = rendered.rpartition(PROBE_REPLY)
        if not found:
            raise _refused("The model's chat template leaves out the message that is to be continued.")
        return text

    def text_after_reply(self) -> str:
        """What the template writes after an assistant's message: its end-of-turn token comes first.

        "" for a template that refuses the probing conversation.
        """
        probe = ({"role": "user", "content": "?"}, {"role": "assistant", "content": PROBE_REPLY})
        try:
            rendered = self.render(probe, add_generation_prompt=False)
        except InvalidRequest:
            return ""
        _, found, tail = rendered.rpartition(PROBE_REPLY)
        return tail if found else ""

    def _shows(self, messages: Sequence[Message], tools: Sequence[Tool] | None = None) -> bool:
        try:
            return PROBE_REPLY in self.render(messages, tools=tools)
        except InvalidRequest:
            return False


def merge_system(messages: Sequence[Message]) -> list[Message]:
    """The messages with leading system ones put in front of the first user's text.

    For templates that know no system role. Left alone where no user's text follows.
    """
    num_system = next(
        (index for index, message in enumerate(messages) if message["role"] != "system"), len(messages)
    )
    rest = messages[num_system:]
    if not num_system or not rest or rest[0]["role"] != "user":
        return list(messages)
    texts = [str(message.get("content") or "") for message in (*messages[:num_system], rest[0])]
    return [{**rest[0], "content": "\n\n".join(text for text in texts if text)}, *rest[1:]]


def _refused(reason: str) -> InvalidRequest:
    return InvalidRequest(reason, param="messages")


def _template_fault(error: Exception) -> str:
    return f"The model's chat template cannot render these messages: {error}"
