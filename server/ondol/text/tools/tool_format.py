"""How a model writes its calls, told from its chat template.

Three families: Hermes (also Qwen), Llama-3's JSON, Mistral. Knows nothing about requests. Invariant:
a template that does not show one of these syntaxes has no format, so that its tools are left out and
never half understood.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ondol.text.structured_output import embedded_schema
from ondol.text.tokenizer import TextTokenizer
from ondol.text.tools.call_grammar import call_schema
from ondol.text.tools.call_parser import CallParser, CallSyntax, short_id
from ondol.text.tools.calls import ToolCallParser

MAX_PARALLEL_CALLS = 8
ANY_TEXT = r"/(?s:.*)/"

HERMES = CallSyntax(start="<tool_call>", end="</tool_call>")
LLAMA_3 = CallSyntax(start="<|python_tag|>", separators=";", is_bare=True)
MISTRAL = CallSyntax(start="[TOOL_CALLS]", separators="[],", names_in_front="[ARGS]", new_id=short_id)


@dataclass(frozen=True, slots=True)
class ToolFormat:
    """One family's way, for one tokenizer.

    Attributes:
        name: "hermes", "llama3" or "mistral".
        arguments_key: what the family calls the arguments.
        shown_token_ids: special tokens that have to appear in the text, because calls are told by them.
    """

    name: str
    syntax: CallSyntax
    arguments_key: str
    special_ids: Mapping[str, int]

    @property
    def shown_token_ids(self) -> frozenset[int]:
        """Ids of the markers that the tokenizer would leave out of the text."""
        return frozenset(self.special_ids.values())

    def parser(self, tool_names: Collection[str]) -> ToolCallParser:
        """A parser for one answer."""
        return CallParser(self.syntax, tool_names)

    def forced_grammar(self, tools: Sequence[Mapping[str, Any]], *, is_parallel: bool) -> str:
        """Lark grammar of an answer that is nothing but calls; one, or up to MAX_PARALLEL_CALLS."""
        body = embedded_schema(call_schema(tools, self.arguments_key), strict=False, param="tools")
        num_more = MAX_PARALLEL_CALLS - 1 if is_parallel else 0
        if self.name == "hermes":
            call = f'{self._marker("<tool_call>")} "\\n" body "\\n" {self._marker("</tool_call>")}'
            more = f' ("\\n" call){{0,{num_more}}}' if num_more else ""
            return f"start: call{more}\ncall: {call}\nbody: {body}\n"
        if self.name == "mistral":
            more = f' (", " body){{0,{num_more}}}' if num_more else ""
            return f'start: {self._marker("[TOOL_CALLS]")} "[" body{more} "]"\nbody: {body}\n'
        return f"start: body\nbody: {body}\n"

    def free_grammar(self, tools: Sequence[Mapping[str, Any]]) -> str:
        """Lark grammar of any text in which every call, if there is one, follows its tool's schema."""
        body = embedded_schema(call_schema(tools, self.arguments_key), strict=False, param="tools")
        if self.name == "llama3":
            python_tag = self._marker(LLAMA_3.start)
            return f"start: TEXT | {python_tag}? body\nTEXT: /[^{{](?s:.*)/\nbody: {body}\n"
        if self.name == "mistral":
            call = f'"[" body (", " body){{0,{MAX_PARALLEL_CALLS - 1}}} "]"'
            return self._text_then_call("[TOOL_CALLS]", call, body)
        return self._text_then_call("<tool_call>", f'"\\n" body "\\n" {self._marker("</tool_call>")}', body)

    def _text_then_call(self, start: str, call: str, body: str) -> str:
        if start in self.special_ids:
            head = f"head: TEXT {self._marker(start)}"
        else:
            head = f"head[lazy]: TEXT {json.dumps(start)}"
        return f"start: call* TEXT\nTEXT: {ANY_TEXT}\n{head}\ncall: head {call}\nbody: {body}\n"

    def _marker(self, text: str) -> str:
        """A marker in a grammar: a special token by its id, other text by its characters."""
        token_id = self.special_ids.get(text)
        return json.dumps(text) if token_id is None else f"<[{token_id}]>"


def tool_format(tokenizer: TextTokenizer) -> ToolFormat | None:
    """The format that the chat template teaches; None if it knows no tools, or writes calls otherwise."""
    template = tokenizer.chat_template
    if template is None or "tools" not in template.source:
        return None
    source = template.source
    if "<tool_call>" in source and "<function=" not in source and "<arg_key>" not in source:
        return ToolFormat(
            "hermes", HERMES, "arguments", _special_ids(tokenizer, "<tool_call>", "</tool_call>")
        )
    if "[TOOL_CALLS]" in source:
        markers = _special_ids(tokenizer, "[TOOL_CALLS]", "[ARGS]", "[CALL_ID]")
        return ToolFormat("mistral", MISTRAL, "arguments", markers)
    if "<|start_header_id|>" in source and "parameters" in source:
        return ToolFormat("llama3", LLAMA_3, "parameters", _special_ids(tokenizer, "<|python_tag|>"))
    return None


def _special_ids(tokenizer: TextTokenizer, *markers: str) -> dict[str, int]:
    """Those markers that are special tokens, which a detokenizer shows only on demand."""
    return {
        marker: token_id for marker in markers if (token_id := tokenizer.special_token_id(marker)) is not None
    }
