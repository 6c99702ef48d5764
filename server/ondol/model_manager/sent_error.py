"""An expected error on its way out of a process of our own: its class, its sentence and its data.

Knows nothing about processes. The invariant: what is rebuilt has the class, the text and the attributes of
what was sent; of a class that `ondol.errors` does not have, the nearest one above it that it has.
"""

from typing import Any

import msgspec

from ondol import errors
from ondol.errors import OndolError


class SentError(msgspec.Struct, frozen=True, tag="error"):
    """The class in `ondol.errors`, the sentence, and the error's other attributes."""

    kind: str
    message: str
    attributes: dict[str, Any]

    @classmethod
    def of(cls, error: OndolError) -> "SentError":
        """What to send of `error`."""
        known = (kind for kind in type(error).__mro__ if kind.__module__ == errors.__name__)
        return cls(next(known).__name__, str(error), vars(error))

    def rebuilt(self) -> OndolError:
        """The error that was sent; its sentence is final, so no `__init__` runs."""
        kind: type[OndolError] = getattr(errors, self.kind)
        assert issubclass(kind, OndolError), "the process names one of our own errors"
        error = kind.__new__(kind, self.message)
        for name, value in self.attributes.items():
            setattr(error, name, value)
        return error
