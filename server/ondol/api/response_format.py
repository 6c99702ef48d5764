"""OpenAI's `response_format`, and Ondol's regular expressions, as grammars of the answer.

Knows nothing about how a grammar is held to. Invariant: what is no grammar is refused here, before
anything is computed, with an error of this request alone.
"""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from ondol.api.body import WireModel
from ondol.text.structured_output import json_object_grammar, json_schema_grammar, regex_grammar


class JsonSchema(WireModel):
    """A named schema; `strict` says whether fields that it does not name are impossible."""

    name: Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9_\-]+$")]
    description: str | None = None
    schema_: Annotated[dict[str, Any] | None, Field(alias="schema")] = None
    strict: bool | None = None


class ResponseFormat(WireModel):
    """What the answer's text must look like."""

    type: Literal["text", "json_object", "json_schema", "regex"]
    json_schema: JsonSchema | None = None
    regex: Annotated[str, Field(min_length=1)] | None = None

    @model_validator(mode="after")
    def _is_whole(self) -> "ResponseFormat":
        if self.type == "json_schema" and self.json_schema is None:
            raise ValueError("json_schema is required with type json_schema")
        if self.type == "regex" and self.regex is None:
            raise ValueError("regex is required with type regex")
        return self

    def grammar(self) -> str | None:
        """The grammar that the answer must match; None is any text.

        Blocks: call it in a thread. Raises InvalidRequest for a schema or expression that is none.
        """
        if self.type == "json_object":
            return json_object_grammar()
        if self.type == "json_schema" and self.json_schema is not None:
            schema = self.json_schema.schema_
            if schema is None:
                return json_object_grammar()
            return json_schema_grammar(schema, strict=bool(self.json_schema.strict))
        if self.type == "regex" and self.regex is not None:
            return regex_grammar(self.regex)
        return None
