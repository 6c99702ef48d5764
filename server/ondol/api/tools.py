"""OpenAI's `tools` and `tool_choice` as clients write them.

Knows nothing about how a model writes calls. Invariant: a choice that forces a call names tools that
are there.
"""

from typing import Annotated, Any, Literal

from pydantic import Field

from ondol.api.body import WireModel
from ondol.errors import InvalidRequest
from ondol.service.chat import ToolUse

MAX_TOOLS = 128

FunctionName = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9_.\-]+$")]


class FunctionSpec(WireModel):
    """What a function is for and takes; `strict` asks for arguments that always fit the schema."""

    name: FunctionName
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class FunctionTool(WireModel):
    """A tool that the model may call."""

    type: Literal["function"]
    function: FunctionSpec


class FunctionRef(WireModel):
    """A function by its name."""

    name: FunctionName


class NamedTool(WireModel):
    """The one tool that has to be called."""

    type: Literal["function"]
    function: FunctionRef


class AllowedTools(WireModel):
    """Those of the tools that may be called now."""

    mode: Literal["auto", "required"]
    tools: Annotated[list[NamedTool], Field(min_length=1, max_length=MAX_TOOLS, fail_fast=True)]


class AllowedToolsChoice(WireModel):
    """OpenAI's form of a choice among some of the tools."""

    type: Literal["allowed_tools"]
    allowed_tools: AllowedTools


Tools = Annotated[list[FunctionTool], Field(max_length=MAX_TOOLS, fail_fast=True)]
ToolChoice = Literal["none", "auto", "required"] | NamedTool | AllowedToolsChoice


def tool_use(tools: Tools | None, choice: ToolChoice | None, *, is_parallel: bool) -> ToolUse | None:
    """The tools as the chat service takes them; None offers none.

    Raises InvalidRequest for a choice of tools that are not there, or for two of one name.
    """
    described = {tool.function.name: tool.model_dump(exclude_none=True) for tool in tools or ()}
    if len(described) < len(tools or ()):
        raise InvalidRequest("Two tools have the same name.", param="tools")
    offered, forced_names = _chosen(tuple(described), choice)
    if not offered or choice == "none":
        return None
    return ToolUse(tuple(described[name] for name in offered), frozenset(forced_names), is_parallel)


def _chosen(names: tuple[str, ...], choice: ToolChoice | None) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(names of the tools to offer, names of those of which one has to be called)."""
    if choice == "required":
        if not names:
            raise InvalidRequest("tool_choice asks for a call, but there are no tools.", param="tool_choice")
        return names, names
    if isinstance(choice, NamedTool):
        return names, _known((choice.function.name,), names)
    if isinstance(choice, AllowedToolsChoice):
        allowed = choice.allowed_tools
        offered = _known(tuple(tool.function.name for tool in allowed.tools), names)
        return offered, offered if allowed.mode == "required" else ()
    return names, ()


def _known(wanted: tuple[str, ...], names: tuple[str, ...]) -> tuple[str, ...]:
    for name in wanted:
        if name not in names:
            raise InvalidRequest(f"tool_choice names '{name}', which is not in tools.", param="tool_choice")
    return wanted
