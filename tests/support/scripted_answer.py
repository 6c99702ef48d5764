"""What a daemon without a model answers to one chat, and the stream that it becomes.

Knows nothing about connections. Invariant: a stream says what its script says, at the script's pace.
"""

import asyncio
import json
import secrets
import threading
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

HOLD_TIMEOUT_S = 60


@dataclass
class Answer:
    """One streamed answer.

    Attributes:
        pieces: the texts of its chunks, one token each.
        tokens_per_s: their pace; None sends them at once.
        queued: places in the queue, told before the first piece.
        hold_at: before this piece the stream waits until `resume` is set.
        cut_at: before this piece the connection breaks.
        error: an error event in OpenAI's shape instead of the rest, before piece `cut_at` or at the end.
        refusal: status and error object; nothing is streamed then.
    """

    pieces: tuple[str, ...] = ("안녕", "하세요", ".")
    tokens_per_s: float | None = None
    queued: tuple[int, ...] = ()
    hold_at: int | None = None
    cut_at: int | None = None
    error: dict[str, Any] | None = None
    refusal: tuple[int, dict[str, Any]] | None = None
    finish_reason: str = "stop"
    resume: threading.Event = field(default_factory=threading.Event)


async def blocks(body: dict[str, Any], answer: Answer) -> AsyncIterator[bytes]:
    """The bytes of the stream to a request's body, event by event."""
    chunk = {
        "id": f"chatcmpl-{secrets.token_hex(8)}",
        "object": "chat.completion.chunk",
        "created": int(time.time()),
        "model": body["model"],
    }

    def choice(delta: dict[str, Any], finish_reason: str | None = None) -> bytes:
        return server_sent_event(
            {**chunk, "choices": [{"index": 0, "delta": delta, "finish_reason": finish_reason}]}
        )

    for place in answer.queued:
        yield f": queued {place}\n\n".encode()
        await asyncio.sleep(0.05)
    yield choice({"role": "assistant", "content": ""})
    begin_s = time.monotonic()
    for index, piece in enumerate(answer.pieces):
        if index == answer.hold_at:
            await asyncio.to_thread(answer.resume.wait, HOLD_TIMEOUT_S)
        if index == answer.cut_at:
            if answer.error is None:
                raise ConnectionAbortedError("as the script says")
            break
        if answer.tokens_per_s is not None:
            await asyncio.sleep(max(0.0, begin_s + index / answer.tokens_per_s - time.monotonic()))
        yield choice({"content": piece})
    if answer.error is not None:
        yield server_sent_event({"error": answer.error})
        return
    yield choice({}, answer.finish_reason)
    num_output = len(answer.pieces)
    usage = {"prompt_tokens": 10, "completion_tokens": num_output, "total_tokens": 10 + num_output}
    timings = {"queue_s": 0.0, "prefill_s": 0.05, "decode_s": num_output / 50, "tokens_per_second": 50.0}
    yield server_sent_event({**chunk, "choices": [], "usage": usage, "timings": timings})
    yield b"data: [DONE]\n\n"


def server_sent_event(value: dict[str, Any]) -> bytes:
    """One server-sent event."""
    return b"data: " + json.dumps(value, ensure_ascii=False).encode() + b"\n\n"
