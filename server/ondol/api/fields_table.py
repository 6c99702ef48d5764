"""The table of docs/api.md: every field of every generating endpoint, and what is done with it.

`python -m ondol.api.fields_table` prints it. Knows nothing that the wire types do not say. Invariant:
a field is in the table exactly if the code knows it.
"""

import sys
from collections.abc import Iterator
from typing import Any

import msgspec

from ondol.api.body import WireModel
from ondol.api.chat_completions import PATH as CHAT_PATH
from ondol.api.chat_completions import ChatCompletionRequest
from ondol.api.completions import PATH as COMPLETIONS_PATH
from ondol.api.completions import CompletionRequest
from ondol.api.text_tools import (
    DETOKENIZE,
    TOKENIZE,
    DetokenizeRequest,
    TokenizeRequest,
)

ENDPOINTS: tuple[tuple[str, type[WireModel]], ...] = (
    (CHAT_PATH, ChatCompletionRequest),
    (COMPLETIONS_PATH, CompletionRequest),
    (TOKENIZE, TokenizeRequest),
    (DETOKENIZE, DetokenizeRequest),
)

BOUNDS = (
    ("minimum", "from {}"),
    ("exclusiveMinimum", "above {}"),
    ("maximum", "to {}"),
    ("minLength", ""),
    ("maxLength", "at most {} characters"),
    ("maxItems", "at most {}"),
    ("maxProperties", "at most {}"),
)


def fields_table() -> str:
    """Markdown, one table per endpoint, ending with a line break."""
    parts = []
    for path, body_type in ENDPOINTS:
        rows = [*_supported(body_type), *_others(body_type)]
        parts += [f"### POST {path}", "", "| field | Ondol | |", "|---|---|---|"]
        parts += [f"| `{name}` | {state} | {note} |" for name, state, note in rows]
        parts.append("")
    return "\n".join(parts)


def _supported(body_type: type[WireModel]) -> Iterator[tuple[str, str, str]]:
    schema = body_type.model_json_schema()
    required = set(schema.get("required", ()))
    for name, field in schema["properties"].items():
        notes = [*_shapes(field, schema.get("$defs", {}))]
        if name in required:
            notes.append("required")
        described = body_type.model_fields[name].description or ""
        yield name, "supported", "; ".join(filter(None, [", ".join(notes), described]))


def _others(body_type: type[WireModel]) -> Iterator[tuple[str, str, str]]:
    for name, other in sorted(body_type.other_fields.items()):
        quiet = [value for value in other.quiet_values if value is not None]
        note = other.reason
        if quiet and other.disregard != "accepted":
            note += "; `" + "`, `".join(_json_text(value) for value in quiet) + "` is accepted"
        yield name, other.disregard, note


def _shapes(field: dict[str, Any], definitions: dict[str, Any]) -> list[str]:
    """The types that a field takes, in a word each, with their bounds."""
    members = [member for member in field.get("anyOf", [field]) if member.get("type") != "null"]
    return [text for text in dict.fromkeys(_shape(member, definitions) for member in members) if text]


def _shape(member: dict[str, Any], definitions: dict[str, Any]) -> str:
    if "$ref" in member:
        return _shape(definitions[member["$ref"].rpartition("/")[2]], definitions)
    if "enum" in member:
        return " or ".join(f"`{value}`" for value in member["enum"])
    bounds = [text.format(_json_text(member[key])) for key, text in BOUNDS if key in member and text]
    kind = {"array": "list", "integer": "whole number"}.get(member.get("type", ""), member.get("type", ""))
    return " ".join([kind, *bounds]).strip()


def _json_text(value: object) -> str:
    return msgspec.json.encode(value).decode("utf-8")


if __name__ == "__main__":
    sys.stdout.write(fields_table())
