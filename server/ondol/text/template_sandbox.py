"""The sandbox in which chat templates run: programs from strangers, with bounds on what they may do.

Jinja's immutable sandbox keeps them from the machine; this module keeps them from its time and memory.
The names and options are those that templates on the Hub are written for (Transformers' chat template
documentation). Knows nothing about models. Invariant: a render ends, with a text of bounded length or
an error.
"""

import json
import time
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from jinja2 import nodes
from jinja2.exceptions import SecurityError, TemplateError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

# Far beyond any context length; what exceeds it is a template that loops.
MAX_RENDERED_CHARS = 8_000_000
MAX_RENDER_S = 5.0
MAX_RANGE_STEPS = 1_000_000
MAX_REPEATED_ITEMS = 1_000_000
MAX_POWER = 64

# They make a text of any length out of one number.
PADDING_METHODS = frozenset({"center", "ljust", "rjust", "zfill", "expandtabs"})


class RenderTooLarge(TemplateError):
    """The template would take more time or memory than any prompt needs."""


class _TrainingMask(Extension):
    """`{% generation %}` marks what training learns from; for a prompt it is its body."""

    tags = {"generation"}  # noqa: RUF012 - jinja's own way

    def parse(self, parser: Parser) -> list[nodes.Node]:
        """The nodes between the tags."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _BoundedSandbox(ImmutableSandboxedEnvironment):
    """Refuses the operations that turn a number into that much memory."""

    intercepted_binops = frozenset({"*", "**", "%"})

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:  # noqa: ANN401
        """Bounds repetition and powers; padding by `%` is padding too."""
        if operator == "*" and (_repeated_items(left, right) > MAX_REPEATED_ITEMS):
            raise RenderTooLarge("it repeats a text or a list too often")
        if operator == "**" and (abs(left) > MAX_REPEATED_ITEMS or abs(right) > MAX_POWER):
            raise RenderTooLarge("it raises a number to too high a power")
        if operator == "%" and isinstance(left, str):
            raise SecurityError("formatting by % is not allowed in a template; use ~")
        return super().call_binop(context, operator, left, right)

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:  # noqa: ANN401
        """Strings' padding methods are unsafe here."""
        is_padding = isinstance(obj, str) and attr in PADDING_METHODS
        return not is_padding and super().is_safe_attribute(obj, attr, value)

    def call(self, context: Any, function: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        """`str.format` may fill places, but not pad them."""
        owner = getattr(function, "__self__", None)
        if isinstance(owner, str) and function.__name__ in ("format", "format_map") and ":" in owner:
            raise SecurityError("a template may not use format specifications")
        return super().call(context, function, *args, **kwargs)


class CompiledTemplate:
    """A template ready to render; thread-safe."""

    def __init__(self, source: str) -> None:
        """Raises jinja2's TemplateSyntaxError."""
        environment = _BoundedSandbox(
            trim_blocks=True, lstrip_blocks=True, extensions=[_TrainingMask, loopcontrols]
        )
        # They make text without an end out of a number.
        del environment.globals["lipsum"]
        for padding in ("center", "format"):
            del environment.filters[padding]
        environment.filters["tojson"] = _to_json
        environment.globals["raise_exception"] = _raise_exception
        environment.globals["strftime_now"] = _strftime_now
        self._template = environment.from_string(source)

    def render(self, context: Mapping[str, Any]) -> str:
        """The text; raises RenderTooLarge, or what the template's expressions raise."""
        deadline_s = time.monotonic() + MAX_RENDER_S
        pieces: list[str] = []
        num_chars = 0
        for piece in self._template.generate(**{**context, "range": _BoundedRange(deadline_s)}):
            pieces.append(piece)
            num_chars += len(piece)
            if num_chars > MAX_RENDERED_CHARS:
                raise RenderTooLarge(f"it renders more than {MAX_RENDERED_CHARS} characters")
            if time.monotonic() > deadline_s:
                raise RenderTooLarge(f"it takes longer than {MAX_RENDER_S:.0f} s")
        return "".join(pieces)


class _BoundedRange:
    """`range` with a budget of steps for one render, spent also where no text comes out."""

    def __init__(self, deadline_s: float) -> None:
        self._deadline_s = deadline_s
        self._num_left = MAX_RANGE_STEPS

    def __call__(self, *bounds: int) -> range:
        steps = range(*bounds)
        self._num_left -= len(steps)
        if self._num_left < 0 or time.monotonic() > self._deadline_s:
            raise RenderTooLarge(f"it counts more than {MAX_RANGE_STEPS} steps")
        return steps


def _repeated_items(left: object, right: object) -> int:
    """How many characters or items a product would have; 0 for numbers."""
    for sequence, count in ((left, right), (right, left)):
        if isinstance(sequence, str | list | tuple) and isinstance(count, int):
            return len(sequence) * max(count, 0)
    return 0


def _to_json(
    value: object,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """JSON as models are trained on it: Hangul stays Hangul, HTML's characters are not escaped."""
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def _raise_exception(message: str) -> None:
    raise TemplateError(message)


def _strftime_now(pattern: str) -> str:
    return datetime.now().strftime(pattern)
