"""From the bytes of a request body to a validated wire type, or to a refusal that names the field.

Knows nothing about what the fields mean. Invariant: JSON as RFC 8259 has it — no NaN, no numbers out
of range, no lone surrogates, bounded size and depth — and no type is coerced ("1" is not a number).
"""

import asyncio
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, TypeVar

import msgspec
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails
from starlette.requests import Request

from ondol.api.errors import BodyTooLarge
from ondol.errors import InvalidRequest

Body = TypeVar("Body", bound=BaseModel)

Disregard = Literal["accepted", "ignored", "refused"]


@dataclass(frozen=True, slots=True)
class OtherField:
    """A field that clients send and that no wire type holds.

    Attributes:
        disregard: "accepted" has no bearing on the answer and is not worth a word; "ignored" is named
            in the answer's headers; "refused" would change the answer too much to be left out.
        reason: for the table in docs/api.md, and for the client whose field is refused.
        quiet_values: what asks for nothing, and is accepted.
    """

    disregard: Disregard
    reason: str
    quiet_values: tuple[object, ...] = (None,)

    def is_quiet(self, value: object) -> bool:
        """Whether nothing needs to be said about `value`."""
        # 0 == False in Python, but they do not ask for the same.
        return self.disregard == "accepted" or any(
            type(value) is type(quiet) and value == quiet for quiet in self.quiet_values
        )


class WireModel(BaseModel):
    """Base of what clients send: strict types, unknown fields left alone.

    Attributes:
        other_fields: names that are not unknown, with what is done about them.
    """

    model_config = ConfigDict(strict=True, extra="ignore", frozen=True)

    other_fields: ClassVar[Mapping[str, OtherField]] = {}


# Names come from the client: only what is safe in a header goes into one.
_HEADER_SAFE_NAME = re.compile(r"[A-Za-z0-9_.\-]{1,64}")
_MAX_IGNORED_NAMES = 32

# Nobody's tokens wait for another's body. The smallest messages that fit in this took 6 ms to validate,
# those of 8 MiB two seconds.
MAX_BYTES_ON_LOOP = 64 * 1024


async def read_body(request: Request, max_body_bytes: int) -> bytes:
    """The whole body; raises BodyTooLarge as soon as that is known, and InvalidRequest if it is encoded."""
    coding = request.headers.get("content-encoding", "identity")
    if coding != "identity":
        raise InvalidRequest(
            f"The request body is encoded as {coding!r:.80}. Send it without a content-encoding."
        )
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > max_body_bytes:
        raise BodyTooLarge(max_body_bytes)
    chunks: list[bytes] = []
    num_bytes = 0
    async for chunk in request.stream():
        num_bytes += len(chunk)
        if num_bytes > max_body_bytes:
            raise BodyTooLarge(max_body_bytes)
        chunks.append(chunk)
    return b"".join(chunks)


async def read_fields(
    request: Request, body_type: type[Body], max_body_bytes: int
) -> tuple[Body, tuple[str, ...]]:
    """What `parse_body` says of the request's body; large ones are parsed beside the event loop.

    Raises BodyTooLarge and InvalidRequest.
    """
    raw = await read_body(request, max_body_bytes)
    if len(raw) <= MAX_BYTES_ON_LOOP:
        return parse_body(raw, body_type)
    return await asyncio.to_thread(parse_body, raw, body_type)


def parse_body(raw: bytes, body_type: type[Body]) -> tuple[Body, tuple[str, ...]]:
    """The validated body, and the names of the fields that Ondol ignores.

    Raises InvalidRequest; its `param` is the path of the first wrong field, as messages[0].content.
    """
    document = _decode(raw)
    others = body_type.other_fields if issubclass(body_type, WireModel) else {}
    for name, other in others.items():
        if other.disregard == "refused" and not other.is_quiet(document.get(name)):
            raise InvalidRequest(f"'{name}' is not supported by this server: {other.reason}.", param=name)
    try:
        body = body_type.model_validate(document)
    except ValidationError as error:
        raise _invalid_field(error, document) from None
    return body, tuple(sorted(_ignored_names(document, body)))


def ignored_header(names: Iterable[str]) -> dict[str, str]:
    """The header that names what an answer left out of account; none if that is nothing."""
    listed = ", ".join(sorted(set(names))[:_MAX_IGNORED_NAMES])
    return {"x-ondol-ignored": listed} if listed else {}


def documented_body(path: str, body_type: type[BaseModel], *, streams: bool = False) -> dict[str, object]:
    """What /openapi.json says of a body that its route reads by itself; `path` is the route's.

    `streams`: the answer may be server-sent events.
    """
    place = f"#/paths/{path.replace('/', '~1')}/post/requestBody/content/application~1json/schema"
    schema = body_type.model_json_schema(ref_template=place + "/$defs/{model}")
    documented: dict[str, object] = {
        "requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}
    }
    if streams:
        documented["responses"] = {"200": {"content": {"text/event-stream": {"schema": {"type": "string"}}}}}
    return documented


def _decode(raw: bytes) -> dict[str, object]:
    try:
        document = msgspec.json.decode(raw)
    except UnicodeDecodeError:
        raise InvalidRequest("The request body is not valid UTF-8. Encode it as UTF-8.") from None
    except RecursionError:
        raise InvalidRequest("The request body is nested too deeply. Send plainer JSON.") from None
    except msgspec.DecodeError as error:
        raise InvalidRequest(f"The request body is not valid JSON: {error}") from None
    if not isinstance(document, dict):
        raise InvalidRequest("The request body must be a JSON object.")
    return document


def _ignored_names(document: Mapping[str, object], body: BaseModel, prefix: str = "") -> Iterator[str]:
    """Paths of the fields that `body` does not hold, also inside of its objects, but not of its lists."""
    others = body.other_fields if isinstance(body, WireModel) else {}
    known = {field.alias or name: name for name, field in type(body).model_fields.items()}
    for name, value in document.items():
        if name in known:
            inner = getattr(body, known[name])
            if isinstance(inner, WireModel) and isinstance(value, dict):
                yield from _ignored_names(value, inner, f"{prefix}{name}.")
        elif not (name in others and others[name].is_quiet(value)) and _HEADER_SAFE_NAME.fullmatch(name):
            yield prefix + name


def _invalid_field(error: ValidationError, document: object) -> InvalidRequest:
    """One sentence about the first wrong field.

    A union reports an error per member. The client meant the member that got furthest: one whose
    types fit, else the one whose path leads deepest; members that fail alike are told together.
    """
    details = error.errors(include_url=False, include_context=False, include_input=False)
    first_field = details[0]["loc"][:1]
    messages_at: dict[tuple[bool, int, tuple[int | str, ...]], list[str]] = {}
    for detail in details:
        if detail["loc"][:1] == first_field:
            steps = _steps_in_document(detail, document)
            reach = (not detail["type"].endswith("_type"), len(steps), steps)
            messages_at.setdefault(reach, []).append(_plain_message(detail["type"], detail["msg"]))
    furthest = max(messages_at)
    path = _path_text(furthest[-1])
    messages = " or ".join(dict.fromkeys(messages_at[furthest]))
    return InvalidRequest(f"Invalid value for '{path}': {messages}.", param=path)


def _steps_in_document(detail: ErrorDetails, document: object) -> tuple[int | str, ...]:
    """The error's location without the names of union members, which are no keys of the document."""
    location = detail["loc"]
    steps: list[int | str] = []
    here = document
    for step in location:
        if isinstance(here, dict) and isinstance(step, str):
            is_missing_field = detail["type"] == "missing" and step == location[-1]
            if step in here or is_missing_field:
                steps.append(step)
                here = here.get(step)
        elif isinstance(here, list) and isinstance(step, int) and step < len(here):
            steps.append(step)
            here = here[step]
    return tuple(steps)


def _path_text(steps: Sequence[int | str]) -> str:
    text = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps)
    return text.removeprefix(".")


def _plain_message(kind: str, message: str) -> str:
    if kind in ("model_type", "dict_type"):
        return "input should be an object"
    if kind == "missing":
        return "this field is required"
    text = message.removeprefix("Value error, ").replace(" after validation", "")
    return text[:1].lower() + text[1:]
