"""docs/api.md says of every field what the code does with it."""

from pathlib import Path

from openai.types import completion_create_params
from openai.types.chat import completion_create_params as chat_create_params

from ondol.api.chat_completions import ChatCompletionRequest
from ondol.api.completions import CompletionRequest
from ondol.api.fields_table import fields_table

DOCUMENT = Path(__file__).parents[3] / "docs" / "api.md"


def test_the_table_in_the_documentation_is_the_codes():
    _, found, table = DOCUMENT.read_text(encoding="utf-8").partition("### POST")
    assert found + table == fields_table(), "run python -m ondol.api.fields_table"


def test_every_field_of_openais_has_a_place():
    bodies = [
        (chat_create_params.CompletionCreateParamsNonStreaming, ChatCompletionRequest),
        (completion_create_params.CompletionCreateParamsNonStreaming, CompletionRequest),
    ]
    for openais, ours in bodies:
        known = ours.model_fields.keys() | ours.other_fields.keys()
        assert openais.__annotations__.keys() - known == set()
