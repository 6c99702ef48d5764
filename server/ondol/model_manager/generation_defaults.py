"""The sampling defaults that a model's authors recommend.

Reads generation_config.json; a request's own fields win over it. Knows nothing about requests.
"""

import json
from dataclasses import dataclass
from pathlib import Path

from ondol.errors import ModelRefused


@dataclass(frozen=True, slots=True)
class GenerationDefaults:
    """Recommended sampling parameters; None where the authors recommend nothing."""

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None

    @classmethod
    def load(cls, folder: Path) -> "GenerationDefaults":
        """Read a model folder; raises ModelRefused if its generation_config.json is damaged."""
        path = folder / "generation_config.json"
        if not path.exists():
            return cls()
        try:
            raw = json.loads(path.read_text(encoding="utf-8"))
            return cls(
                temperature=_number(raw, "temperature"),
                top_p=_number(raw, "top_p"),
                top_k=None if raw.get("top_k") is None else int(raw["top_k"]),
                min_p=_number(raw, "min_p"),
                repetition_penalty=_number(raw, "repetition_penalty"),
            )
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise ModelRefused(f"{path} is damaged: {error}") from error


def _number(raw: dict[str, object], key: str) -> float | None:
    value = raw.get(key)
    if value is None:
        return None
    if not isinstance(value, int | float):
        raise TypeError(f"{key} is not a number")
    return float(value)
