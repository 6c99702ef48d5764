"""The progress of a pull in the user's language.

Knows nothing about pulls. Invariant: the language is that of the command line that made it, whichever
thread reports.
"""

from typing import TextIO

from ondol.cli.language import translator
from ondol.model_manager.progress import Progress


class TerminalProgress(Progress):
    """Notes are translated on their way to stderr."""

    def __init__(self, stream: TextIO | None = None) -> None:
        super().__init__(stream)
        self._translator = translator()

    def note(self, text: str) -> None:
        """One line."""
        super().note(self._translator.composed(text))
