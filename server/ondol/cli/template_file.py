"""The Jinja file that stands in for a model's own chat template.

Knows nothing about what the template says.
"""

from pathlib import Path

from ondol.errors import ConfigError


def read_template(path: Path | None) -> str | None:
    """The file's text; None where the settings name none. Raises ConfigError if it cannot be read."""
    if path is None:
        return None
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the chat template {path} cannot be read: {error}") from error
