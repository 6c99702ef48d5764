"""Messages to the prompt text that a model was trained on, by the checkpoint's own Jinja template.

Rendered in the Transformers library's immutable sandbox: a template is a program from a stranger.
Knows nothing about tokens, except for the names of special ones that templates mention.

Invariant: the template is the truth. Nothing is added to what it renders, a BOS token least of all.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from jinja2.exceptions import TemplateError, TemplateSyntaxError
from transformers.utils.chat_template_utils import render_jinja_template

from ondol.errors import InvalidRequest, ModelRefused

Message = Mapping[str, Any]
Tool = Mapping[str, Any]

# Far beyond any context length; what exceeds it is a template that loops.
MAX_RENDERED_CHARS = 8_000_000

PROBE_REPLY = "ondol-probe"

# What a template's expressions raise on messages of a shape that its author did not think of.
TEMPLATE_FAULTS = (TypeError, ValueError, LookupError, AttributeError, ArithmeticError, RecursionError)


class ChatTemplate:
    """One chat template with the special tokens it may mention (`bos_token`, `eos_token`, ...)."""

    def __init__(self, source: str, special_tokens: Mapping[str, str]) -> None:
        self.source = source
        self._special_tokens = dict(special_tokens)

    def render(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Tool] | None = None,
        add_generation_prompt: bool = True,
    ) -> str:
        """The prompt text; `add_generation_prompt` opens the assistant's turn at its end.

        Raises InvalidRequest (param "messages"): with the template's own words where it refuses the
        conversation by raise_exception.
        """
        try:
            rendered, _ = render_jinja_template(
                [list(messages)],
                chat_template=self.source,
                tools=None if tools is None else list(tools),
                add_generation_prompt=add_generation_prompt,
                **self._special_tokens,
            )
        except TemplateSyntaxError as error:
            raise ModelRefused(
                f"The chat template is broken at line {error.lineno}: {error.message}"
            ) from error
        except TemplateError as error:
            own_words = type(error) is TemplateError  # raise_exception's; Jinja itself raises subclasses
            raise _refused(str(error) if own_words else _template_fault(error)) from error
        except TEMPLATE_FAULTS as error:
            raise _refused(_template_fault(error)) from error
        text: str = rendered[0]
        if len(text) > MAX_RENDERED_CHARS:
            raise _refused(
                f"The chat template renders {len(text)} characters, more than {MAX_RENDERED_CHARS}."
            )
        return text

    def text_after_reply(self) -> str:
        """What the template writes after an assistant's message: its end-of-turn token comes first.

        "" for a template that refuses the probing conversation. Raises ModelRefused for a syntax error.
        """
        probe = ({"role": "user", "content": "?"}, {"role": "assistant", "content": PROBE_REPLY})
        try:
            rendered = self.render(probe, add_generation_prompt=False)
        except InvalidRequest:
            return ""
        _, found, tail = rendered.rpartition(PROBE_REPLY)
        return tail if found else ""


def _refused(reason: str) -> InvalidRequest:
    return InvalidRequest(reason, param="messages")


def _template_fault(error: Exception) -> str:
    return f"The model's chat template cannot render these messages: {error}"
