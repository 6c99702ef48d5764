"""OpenAI's messages as clients write them, and as chat templates take them.

Knows nothing about which template renders them. Invariant: what a template gets has one text for
content and objects for a call's arguments, whichever of OpenAI's forms it came in.
"""

from typing import Annotated, Any, Literal

import msgspec
from pydantic import BeforeValidator, Discriminator, Field, Tag, model_validator

from ondol.api.body import WireModel

MAX_TOOL_CALLS = 128


def _text_alone(kind: object) -> object:
    if isinstance(kind, str) and kind != "text":
        raise ValueError(f"models read text here; leave out parts of type {kind!r:.80}")
    return kind


class TextPart(WireModel):
    """One part of a message's content."""

    type: Annotated[Literal["text"], BeforeValidator(_text_alone)]
    text: str


class RefusalPart(WireModel):
    """What an assistant said instead of an answer, as a part."""

    type: Literal["refusal"]
    refusal: str

    @property
    def text(self) -> str:
        """For the template, a refusal is what the assistant said."""
        return self.refusal


def _part_kind(part: object) -> str:
    """Tags no document has as keys: errors of a wrong part are those of a text."""
    kind = part.get("type") if isinstance(part, dict) else getattr(part, "type", None)
    return "<refusal>" if kind == "refusal" else "<text>"


Part = Annotated[
    Annotated[TextPart, Tag("<text>")] | Annotated[RefusalPart, Tag("<refusal>")], Discriminator(_part_kind)
]
Content = str | Annotated[list[Part], Field(fail_fast=True)]


class CalledFunction(WireModel):
    """What an earlier answer called; `arguments` is JSON text."""

    name: Annotated[str, Field(min_length=1)]
    arguments: str

    def for_template(self) -> dict[str, Any]:
        """Templates write arguments as JSON themselves: a text would be quoted twice."""
        return {"name": self.name, "arguments": _object_in(self.arguments)}


class EarlierToolCall(WireModel):
    """One call in an earlier answer."""

    id: str
    type: Literal["function"]
    function: CalledFunction

    def for_template(self) -> dict[str, Any]:
        """The same call with its arguments as an object."""
        return {"id": self.id, "type": self.type, "function": self.function.for_template()}


EarlierCalls = Annotated[list[EarlierToolCall], Field(max_length=MAX_TOOL_CALLS, fail_fast=True)]


class RequestMessage(WireModel):
    """One message of the conversation so far."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: Content | None = None
    name: str | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    tool_calls: EarlierCalls | None = None
    tool_call_id: str | None = None
    function_call: CalledFunction | None = None

    @model_validator(mode="after")
    def _is_whole(self) -> "RequestMessage":
        if self.content is None and self.role != "assistant":
            raise ValueError(f"content is required in a message of role {self.role}")
        if self.role == "tool" and self.tool_call_id is None:
            raise ValueError("tool_call_id is required in a message of role tool")
        if self.role == "function" and self.name is None:
            raise ValueError("name is required in a message of role function")
        return self

    def for_template(self) -> dict[str, Any]:
        """As chat templates expect it: they know "system" for "developer", "tool" for "function"."""
        content = self.content
        if isinstance(content, list):
            content = "".join(part.text for part in content)
        message: dict[str, Any] = {
            "role": {"developer": "system", "function": "tool"}.get(self.role, self.role),
            # Not None: templates that trim it would print the word.
            "content": content or self.refusal or "",
        }
        calls = [call.for_template() for call in self.tool_calls or ()]
        if self.function_call is not None:
            calls.append({"type": "function", "function": self.function_call.for_template()})
        extras = {
            "name": self.name,
            "reasoning_content": self.reasoning_content,
            "tool_calls": calls or None,
            "tool_call_id": self.tool_call_id,
        }
        return message | {key: value for key, value in extras.items() if value is not None}


def _object_in(arguments: str) -> Any:  # noqa: ANN401 - any JSON
    """The JSON object in a call's arguments; the text itself where a model wrote no object.

    As strict as the body itself: half a character could not be rendered.
    """
    try:
        parsed = msgspec.json.decode(arguments)
    except (msgspec.DecodeError, RecursionError):
        return arguments
    return parsed if isinstance(parsed, dict) else arguments
