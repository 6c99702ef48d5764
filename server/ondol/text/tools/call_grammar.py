"""The JSON schema of a call, from the schemas of the tools.

Knows nothing about markers. Invariant: a tool's own `$ref`s still mean what they meant, although its
schema has moved into a larger one.
"""

from collections.abc import Mapping, Sequence
from typing import Any

Tool = Mapping[str, Any]

ANY_ARGUMENTS: Mapping[str, Any] = {"type": "object"}


def call_schema(tools: Sequence[Tool], arguments_key: str) -> dict[str, Any]:
    """Schema of one call of any of `tools` (OpenAI's tool objects), name first."""
    definitions: dict[str, Any] = {}
    calls: list[dict[str, Any]] = []
    for index, tool in enumerate(tools):
        key = f"tool_{index}"
        definitions[key] = moved(tool["function"].get("parameters") or ANY_ARGUMENTS, f"#/$defs/{key}")
        calls.append(
            {
                "type": "object",
                "properties": {
                    "name": {"const": tool["function"]["name"]},
                    arguments_key: {"$ref": f"#/$defs/{key}"},
                },
                "required": ["name", arguments_key],
                "additionalProperties": False,
            }
        )
    return {"$defs": definitions, "anyOf": calls}


def moved(schema: Any, root: str) -> Any:  # noqa: ANN401 - any JSON
    """The schema with every reference to its own root pointing to `root` instead."""
    if isinstance(schema, Mapping):
        return {
            key: root + value[1:]
            if key == "$ref" and isinstance(value, str) and value.startswith("#")
            else moved(value, root)
            for key, value in schema.items()
        }
    if isinstance(schema, list):
        return [moved(part, root) for part in schema]
    return schema
