"""Tells requests that wait for admission where they stand in the queue.

Knows the order of the queue, nothing about why it is long. Invariant: a request hears its place when it
has changed, and all of them together not oftener than a person wants to read it.
"""

import time
from collections.abc import Callable, Iterable

from ondol.engine.messages import TokenOutput
from ondol.engine.request import Request

INTERVAL_S = 1.0


class QueueNotices:
    """Remembers who was told what.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._last_s: float | None = None
        self._told: dict[str, int] = {}

    def take(self, waiting: Iterable[Request]) -> list[TokenOutput]:
        """Outputs without tokens for those whose place has changed; 1 is the next to be admitted.

        A preempted request, which has been admitted before, counts but is not told.
        """
        now_s = self._clock()
        if self._last_s is not None and now_s - self._last_s < INTERVAL_S:
            return []
        told, self._told = self._told, {}
        outputs = []
        for place, request in enumerate(waiting, start=1):
            if request.started_s is not None:
                continue
            self._told[request.request_id] = place
            if told.get(request.request_id) != place:
                outputs.append(
                    TokenOutput(
                        request_id=request.request_id,
                        first_index=request.num_output_tokens,
                        queue_position=place,
                    )
                )
        if outputs:
            self._last_s = now_s
        return outputs
