"""How much a JSON schema may hold before llguidance sees it.

Some schemas take that library minutes, or the process that it runs in. Knows nothing about grammars.
Invariant: a schema is walked without recursion, in time with its size.
"""

import json
import math
from collections.abc import Iterator, Mapping
from decimal import Decimal
from types import MappingProxyType
from typing import Any

JsonSchema = Mapping[str, Any] | bool

# Bounds of one schema. Compiling takes time with the square of an object's properties, a mask with the
# square of a literal's length; llguidance's own limits would find out late.
MAX_LITERAL_LENGTH = 16 * 1024
MAX_DEPTH = 64
MAX_SIZES: Mapping[str, int] = MappingProxyType(
    {"properties": 1000, "patternProperties": 50, "enum": 10_000, "anyOf": 500, "oneOf": 500, "allOf": 500}
)
# Common multiple of the significant digits of all `multipleOf`. An automaton in llguidance has as many
# states, and a larger one is built for minutes, in a thread that nobody can stop.
MAX_MULTIPLE = 50_000
# llguidance holds bounds of integers in 64 bits, and a range that ends at the least of them runs through its
# stack: the process is gone.
UPPER_BOUNDS = frozenset({"const", "enum", "maximum", "exclusiveMaximum"})
LEAST_UPPER_BOUND = -(2**62)


def check_schema(schema: JsonSchema) -> None:
    """Raises ValueError with the reason why a schema is too much, or none."""
    if not isinstance(schema, Mapping) and schema is not True:
        raise ValueError("it allows no value at all" if schema is False else "it is not a JSON object")
    sizes, multiple = dict.fromkeys(MAX_SIZES, 0), 1
    for keyword, value, depth in _walk(schema):
        if depth > MAX_DEPTH:
            raise ValueError(f"it is nested deeper than {MAX_DEPTH} levels")
        if keyword in sizes and isinstance(value, Mapping | list):
            sizes[keyword] += len(value)
        _check_literals(keyword, value)
        if keyword == "multipleOf" and isinstance(value, int | float):
            multiple = math.lcm(multiple, _significant_digits(value))
            if multiple > MAX_MULTIPLE:
                raise ValueError(f"its 'multipleOf' have no common multiple up to {MAX_MULTIPLE}")
        if keyword == "$ref" and not str(value).startswith("#"):
            raise ValueError("'$ref' may only point into the schema itself")
    for keyword, size in sizes.items():
        if size > MAX_SIZES[keyword]:
            raise ValueError(
                f"it has {size} entries under '{keyword}'; at most {MAX_SIZES[keyword]} are allowed"
            )


def _check_literals(keyword: str, value: Any) -> None:  # noqa: ANN401 - any JSON
    """Raises ValueError with the reason."""
    literals = [keyword, *_literals(keyword, value)]
    if max(map(len, literals)) > MAX_LITERAL_LENGTH:
        raise ValueError(f"it holds a name, value or pattern longer than {MAX_LITERAL_LENGTH} characters")
    if keyword in UPPER_BOUNDS and any(number < LEAST_UPPER_BOUND for number in _numbers(value)):
        raise ValueError(f"it holds a number below {LEAST_UPPER_BOUND}")


def _significant_digits(number: int | float) -> int:
    """Its digits without the zeros around them: 12 for 1200 and for 0.12; at least 1."""
    digits = Decimal(str(abs(number))).normalize().as_tuple().digits
    return max(1, int("".join(map(str, digits))))


def _numbers(value: Any) -> Iterator[int | float]:  # noqa: ANN401 - any JSON
    """All numbers in a value, without recursion."""
    open_values = [value]
    while open_values:
        one = open_values.pop()
        if isinstance(one, Mapping):
            open_values.extend(one.values())
        elif isinstance(one, list):
            open_values.extend(one)
        elif isinstance(one, int | float):
            yield one


def _literals(keyword: str, value: Any) -> list[str]:  # noqa: ANN401 - any JSON
    """What the schema allows word for word, as JSON."""
    if keyword == "enum" and isinstance(value, list):
        return [json.dumps(one, ensure_ascii=False) for one in value]
    return [json.dumps(value, ensure_ascii=False)] if keyword in ("const", "pattern") else []


def _walk(schema: JsonSchema) -> Iterator[tuple[str, Any, int]]:
    """(key, value, depth) of everything in a schema, without recursion."""
    open_nodes: list[tuple[Any, int]] = [(schema, 0)]
    while open_nodes:
        node, depth = open_nodes.pop()
        if isinstance(node, Mapping):
            for key, value in node.items():
                yield key, value, depth
                open_nodes.append((value, depth + 1))
        elif isinstance(node, list):
            open_nodes.extend((value, depth + 1) for value in node)
