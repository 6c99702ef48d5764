"""Whether bodies are what OpenAI's clients expect: no key more, none less, every type right.

Two judges: the typed models of the `openai` package, read strictly (they themselves accept anything), and
OpenAI's published component schemas where the environment variable OPENAI_COMPONENTS names a file of
them. Knows nothing about how bodies come about. Ondol's own extensions are listed here and nowhere else.
"""

import json
import os
import types
from functools import cache
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import jsonschema
import pytest
from pydantic import BaseModel

COMPONENTS_VARIABLE = "OPENAI_COMPONENTS"

# Class name -> keys that OpenAI's does not have.
EXTENSIONS = {
    "ChatCompletion": {"timings"},
    "ChatCompletionChunk": {"timings"},
    "Completion": {"timings"},
    "Choice": {"token_ids"},
    "CompletionChoice": {"token_ids"},
    "Model": {"max_model_len", "source", "status"},
}
# Keys that the package's models need and OpenAI itself leaves out or null in streamed text completions,
# and before a prompt's first token.
LOOSER = {("CompletionChoice", "finish_reason"), ("Logprobs", "token_logprobs"), ("Logprobs", "top_logprobs")}


def violations(expected: Any, value: Any, path: str = "$") -> list[str]:
    """What is wrong with `value`, as paths with a word each; empty if nothing is."""
    origin = get_origin(expected)
    if origin is Annotated:
        return violations(get_args(expected)[0], value, path)
    if origin in (Union, types.UnionType):
        return min((violations(member, value, path) for member in get_args(expected)), key=len)
    if origin is Literal:
        return (
            [] if value in get_args(expected) else [f"{path}: {value!r} is not one of {get_args(expected)}"]
        )
    if origin is list:
        return _of_list(get_args(expected)[0], value, path)
    if origin is dict:
        return [] if isinstance(value, dict) else [f"{path}: not an object"]
    if isinstance(expected, type) and issubclass(expected, BaseModel):
        return _of_model(expected, value, path)
    return [] if _is_scalar(expected, value) else [f"{path}: {value!r} is no {expected}"]


def _of_list(item: Any, value: Any, path: str) -> list[str]:
    if not isinstance(value, list):
        return [f"{path}: not a list"]
    return [wrong for index, part in enumerate(value) for wrong in violations(item, part, f"{path}[{index}]")]


def _of_model(model: type[BaseModel], value: Any, path: str) -> list[str]:
    if not isinstance(value, dict):
        return [f"{path}: not an object"]
    fields = {field.alias or name: field for name, field in model.model_fields.items()}
    unknown = value.keys() - fields.keys() - EXTENSIONS.get(model.__name__, set())
    wrong = [f"{path}.{name}: unknown" for name in sorted(unknown)]
    for name, field in fields.items():
        if name in value:
            part = _without_nulls(value[name]) if (model.__name__, name) in LOOSER else value[name]
            is_absent = part is None and (model.__name__, name) in LOOSER
            wrong += [] if is_absent else violations(field.annotation, part, f"{path}.{name}")
        elif field.is_required() and name not in value:
            wrong.append(f"{path}.{name}: missing")
    return wrong


def _without_nulls(value: Any) -> Any:
    return [part for part in value if part is not None] if isinstance(value, list) else value


def _is_scalar(expected: Any, value: Any) -> bool:
    if expected in (Any, object):
        return True
    if expected in (None, type(None)):
        return value is None
    if expected is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if expected is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(expected, type) and isinstance(value, expected)


@cache
def _components() -> dict[str, Any]:
    path = os.environ.get(COMPONENTS_VARIABLE)
    if path is None:
        pytest.skip(f"{COMPONENTS_VARIABLE} names no file of OpenAI's component schemas")
    with open(path, encoding="utf-8") as file:
        return json.load(file)


def component_violations(name: str, value: Any) -> list[str]:
    """The same by OpenAI's component `name`; skips the test where no file of components is named."""
    components = _components()
    schema = {
        "$schema": components["$schema"],
        "$ref": f"#/$defs/{name}",
        "$defs": components["$defs"],
    }
    validator = jsonschema.Draft202012Validator(schema)
    return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(value)]
