"""Reading a checkpoint's quantization_config: what is not supported is refused by name.

Knows nothing about tensors.
"""

from collections.abc import Mapping
from typing import Any, TypeVar

from ondol.errors import ModelRefused

Value = TypeVar("Value")


class Options:
    """The options of one quantization method, as config.json gives them.

    Args:
        method: its name, for errors.
        raw: the JSON object.
    """

    def __init__(self, method: str, raw: Mapping[str, Any]) -> None:
        self.method = method
        self._raw = raw

    def get(self, key: str) -> Any:
        """The bare value; None if absent."""
        return self._raw.get(key)

    def one_of(self, key: str, allowed: tuple[Value, ...], default: Value) -> Value:
        """The value, which must be one of `allowed`; letters' case does not matter.

        Raises:
            ModelRefused: another value, named.
        """
        value = self._raw.get(key)
        if value is None:
            return default
        for candidate in allowed:
            folded = value.lower() if isinstance(value, str) and isinstance(candidate, str) else value
            if type(folded) is type(candidate) and folded == candidate:
                return candidate
        raise self.refused(key, f"it reads {', '.join(map(repr, allowed))}")

    def group_size(self, key: str = "group_size", *, default: int | None) -> int | None:
        """Columns that share a scale; -1 in the file is None, one scale per row.

        Raises:
            ModelRefused: not a positive number or -1.
        """
        value = self._raw.get(key)
        if value is None:
            return default
        if type(value) is not int or value < -1 or value == 0:
            raise self.refused(key, "it is a positive number or -1")
        return None if value == -1 else value

    def must_be_absent(self, *keys: str) -> None:
        """Raise ModelRefused if one of these options is set to anything."""
        for key in keys:
            if self._raw.get(key):
                raise self.refused(key, "")

    def refused(self, key: str, reason: str) -> ModelRefused:
        """The error for an option's value."""
        given = " ".join(repr(self._raw.get(key)).split())[:80]
        hint = f": {reason}" if reason else ""
        subject = f"the checkpoint is quantized with {self.method} and {key}={given}"
        return ModelRefused(f"{subject}, which Ondol does not read{hint}")
