"""Ends a request when its time is over; what it has written by then is its answer.

Knows nothing about text or why there is a deadline. Invariant: the outputs end with exactly one
finish reason, the engine's own or "length", and closing this closes the engine's stream.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

from ondol.engine.messages import TokenOutput


async def until_deadline(
    outputs: AsyncGenerator[TokenOutput], deadline_s: float
) -> AsyncGenerator[TokenOutput]:
    """The outputs that come before `deadline_s`, a time of the event loop's clock."""
    num_tokens = 0
    async with aclosing(outputs):
        while (output := await _next_before(outputs, deadline_s)) is not None:
            num_tokens = output.first_index + len(output.token_ids)
            yield output
            if output.finish_reason is not None:
                return
    # The engine's stream is closed by now, so the request computes nothing more.
    yield TokenOutput(request_id="", first_index=num_tokens, finish_reason="length")


async def _next_before(outputs: AsyncGenerator[TokenOutput], deadline_s: float) -> TokenOutput | None:
    # A time-out alone would not end a stream that always has its next output at hand.
    if asyncio.get_running_loop().time() >= deadline_s:
        return None
    try:
        async with asyncio.timeout_at(deadline_s):
            return await anext(outputs)
    except TimeoutError:
        return None
