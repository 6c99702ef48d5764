"""Keeps a burst of requests from slipping past the engine's limit together.

The engine counts a request once its stream runs, which is moments after it was let in; this counts
those in between. Knows nothing about what is generated. Invariant: whoever is let in here is not
refused by a full queue after the first byte.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from ondol.model_manager.manager import LoadedModel


class Admission:
    """Choices let in and not yet answered, by model; belongs to one event loop."""

    def __init__(self) -> None:
        self._num_admitted: Counter[str] = Counter()

    @contextmanager
    def admit(self, model: LoadedModel, num_choices: int) -> Iterator[None]:
        """Hold room for `num_choices`; raises QueueFull or EngineFailed when there is none."""
        num_underway = max(self._num_admitted[model.name] - model.engine.num_open, 0)
        model.engine.check_admission(num_choices + num_underway)
        self._num_admitted[model.name] += num_choices
        try:
            yield
        finally:
            self._num_admitted[model.name] -= num_choices
