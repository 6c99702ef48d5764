"""What a text has to look like, as a grammar that the engine can follow.

JSON schemas, regular expressions and Lark grammars become llguidance's grammar text; what is too large or
means nothing is refused here, before anything is generated. Knows nothing about HTTP, tokens or the
engine. Invariant: a schema that comes through names no other document, and writes JSON with at most one
space between two tokens, so that a model cannot fill its answer with blanks.
"""

import asyncio
import json
import re
from collections.abc import Sequence

from llguidance import LLMatcher, LLTokenizer, TokenizerWrapper

from ondol.config.grammar_limits import parser_limits
from ondol.errors import InvalidRequest
from ondol.text.schema_bounds import MAX_LITERAL_LENGTH, JsonSchema, check_schema

PARAM = "response_format"
INVALID_SCHEMA = "invalid_json_schema"

MAX_GRAMMAR_BYTES = 256 * 1024
MAX_COMPILE_S = 1.0
# Forced text that a check follows: a grammar may be impossible only after its first few characters.
MAX_FORCED_STEPS = 64
# Special tokens in a grammar, `<[id]>`; a check has spare ids to stand for them.
TOKEN_ID = re.compile(r"<\[(\d+)\]>")
FIRST_SPARE_ID = 257
NUM_SPARE_IDS = 1024


def json_schema_grammar(schema: JsonSchema, *, strict: bool, param: str = PARAM) -> str:
    """The grammar of JSON texts that a schema allows, keys in the schema's order.

    Args:
        schema: JSON Schema; `$ref` may point into the schema itself.
        strict: refuse keywords that cannot be enforced, instead of leaving them out.
        param: the request's field that it came in, for the error.

    Raises:
        InvalidRequest: it is larger or deeper than a schema may be, or no schema at all.
    """
    try:
        text = json.dumps(schema, ensure_ascii=False, allow_nan=False)
        _check_text(text, param)
        check_schema(schema)
    except RecursionError as error:
        raise _refused("it is nested without end", param) from error
    except ValueError as error:
        raise _refused(str(error), param) from error
    if schema is True:
        text = "{}"
    return LLMatcher.grammar_from_json_schema(
        text,
        overrides={
            "whitespace_flexible": False,
            "whitespace_pattern": None,
            "item_separator": ", ?",
            "key_separator": ": ?",
            "coerce_one_of": True,
            "lenient": not strict,
        },
    )


def json_object_grammar() -> str:
    """The grammar of any JSON object."""
    return json_schema_grammar({"type": "object"}, strict=True)


def regex_grammar(pattern: str, *, param: str = PARAM) -> str:
    """The grammar of texts that a regular expression matches as a whole, in the syntax of Rust's regex."""
    _check_text(pattern, param, MAX_LITERAL_LENGTH)
    return LLMatcher.grammar_from_regex(pattern)


def lark_grammar(text: str, *, param: str = PARAM) -> str:
    """A grammar in llguidance's dialect of Lark; schemas in it come from `embedded_schema`."""
    _check_text(text, param)
    return LLMatcher.grammar_from_lark(text)


def either_grammar(grammars: Sequence[str]) -> str | None:
    """The grammar of texts that match at least one of these, which this module made; None where none is."""
    if len(grammars) < 2:
        return next(iter(grammars), None)
    parts = [
        json.loads(grammar)["grammars"][0] if grammar.startswith("{") else {"lark_grammar": grammar}
        for grammar in grammars
    ]
    named = [part | {"name": f"part{index}"} for index, part in enumerate(parts)]
    start = {"name": "either", "lark_grammar": "start: " + " | ".join(f"@{part['name']}" for part in named)}
    return json.dumps({"grammars": [start, *named]}, ensure_ascii=False)


def embedded_schema(schema: JsonSchema, *, strict: bool, param: str = PARAM) -> str:
    """`%json {...}` for a Lark grammar: bounded, and written as `json_schema_grammar` writes it.

    Raises InvalidRequest as that does.
    """
    (grammar,) = json.loads(json_schema_grammar(schema, strict=strict, param=param))["grammars"]
    return "%json " + json.dumps(grammar["json_schema"], ensure_ascii=False)


async def validate_grammar(grammar: str, *, param: str = PARAM) -> None:
    """Check in a thread that a grammar compiles and that something matches it.

    Raises:
        InvalidRequest: it says what is wrong; also if the answer takes longer than MAX_COMPILE_S. The
            thread then still ends: llguidance bounds its work, and lets go of Python's lock meanwhile.
    """
    try:
        reason = await asyncio.wait_for(asyncio.to_thread(grammar_error, grammar), MAX_COMPILE_S)
    except TimeoutError:
        reason = f"it takes longer than {MAX_COMPILE_S:.0f} s to compile; make it simpler"
    if reason is not None:
        raise _refused(reason, param)


def grammar_error(grammar: str) -> str | None:
    """Why nothing can be generated with a grammar, or None; blocks, for seconds at worst."""
    tokenizer = LLTokenizer(TokenizerWrapper(_Bytes()), slices=[])
    tried = TOKEN_ID.sub(lambda match: f"<[{FIRST_SPARE_ID + int(match[1]) % NUM_SPARE_IDS}]>", grammar)
    matcher = LLMatcher(tokenizer, tried, log_level=0, limits=parser_limits())
    for _ in range(MAX_FORCED_STEPS):
        if not matcher.is_error():
            matcher.compute_bitmask()
        if matcher.is_error():
            return _reason(matcher)
        forced = [] if matcher.is_stopped() else matcher.compute_ff_tokens()
        if not forced:
            return None
        matcher.consume_tokens(forced)
    return None


def _reason(matcher: LLMatcher) -> str:
    lines = [line.strip() for line in matcher.get_error().splitlines() if line.strip()]
    first = lines[0] if lines else "it has no meaning"
    if first.startswith("NoExtension"):
        return "nothing can match it"
    # A pattern's error shows the pattern in between.
    pattern_error = next((line for line in lines if line.startswith("error: ")), None)
    return first.rstrip(".") if pattern_error is None else f"regular expression {pattern_error}"


class _Bytes:
    """A vocabulary of all bytes, an end token and spare ids: enough to try a grammar without a model."""

    eos_token_id = 256
    bos_token_id = None
    special_token_ids = (256,)
    tokens = (*(bytes([value]) for value in range(256)), b"<end>", *([b""] * NUM_SPARE_IDS))

    def __call__(self, text: bytes) -> list[int]:
        return list(text)


def _check_text(text: str, param: str, max_bytes: int = MAX_GRAMMAR_BYTES) -> None:
    try:
        size_bytes = len(text.encode("utf-8"))
    except UnicodeEncodeError as error:
        raise _refused("it is not valid Unicode: it holds a lone surrogate", param) from error
    if size_bytes > max_bytes:
        raise _refused(f"it has {size_bytes} bytes; at most {max_bytes} are allowed", param)


def _refused(reason: str, param: str) -> InvalidRequest:
    return InvalidRequest(f"'{param}' cannot be used: {reason}.", param, INVALID_SCHEMA)
