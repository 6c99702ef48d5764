"""GET /models/sse: what happens to models, as it happens.

Tells the manager's events in the words of llama.cpp's server. Knows nothing about who causes them.
Invariant: a watcher ends with its client or with the daemon, and never keeps the daemon from ending.
"""

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, aclosing
from typing import Any, Literal

from fastapi import APIRouter, Request
from msgspec import UNSET, Struct, UnsetType
from starlette.responses import Response

from ondol.api.context import context_of
from ondol.api.errors import ErrorDetail, error_body
from ondol.api.model_status import (
    ModelEntry,
    StatusValue,
    WireProgress,
    model_entry,
    status_object,
    wire_progress,
)
from ondol.api.sse import EventStream, event
from ondol.model_manager.manager import ModelManager
from ondol.model_manager.model_events import ModelEvent
from ondol.model_manager.model_status import ModelStatus, Phase

router = APIRouter()


class StatusData(Struct, frozen=True, omit_defaults=True):
    """A model's new status; `info` is what GET /models says of a loaded one."""

    status: StatusValue
    progress: WireProgress | UnsetType = UNSET
    failed: bool = False
    exit_code: int | UnsetType = UNSET
    error: ErrorDetail | UnsetType = UNSET
    info: ModelEntry | UnsetType = UNSET


class FailureData(Struct, frozen=True):
    """Why a download ended."""

    error: ErrorDetail


EventName = Literal[
    "model_status", "download_progress", "download_finished", "download_failed", "model_remove"
]


class WireEvent(Struct, frozen=True, omit_defaults=True):
    """One event."""

    model: str
    event: EventName
    data: StatusData | FailureData | dict[str, Any] | UnsetType = UNSET


class EventWords:
    """The words of one watcher, who is also told how downloads end."""

    def __init__(self) -> None:
        self._phases: dict[str, Phase] = {}

    def tell(self, update: ModelEvent) -> list[WireEvent]:
        """The wire's events for one of the manager's."""
        status = update.status
        if update.kind == "removed":
            self._phases.pop(status.id, None)
            return [WireEvent(status.id, "model_remove")]
        before = self._phases.get(status.id)
        self._phases[status.id] = status.status
        if status.status == "downloading":
            started = [] if before == "downloading" else [_status_event(status)]
            return [*started, *_download_progress(status)]
        ended = [_download_end(status)] if before == "downloading" else []
        return [*ended, _status_event(status)]


@router.get("/models/sse", summary="Watch what happens to models")
async def watch_models(request: Request) -> Response:
    """Server-sent events: loads, downloads and unloads of all models from now on."""
    context = context_of(request)
    return EventStream(
        _events(context.manager), resources=AsyncExitStack(), lifecycle=context.lifecycle, headers={}
    )


async def _events(manager: ModelManager) -> AsyncGenerator[bytes]:
    words = EventWords()
    async with aclosing(manager.watch()) as updates:
        async for update in updates:
            for told in words.tell(update):
                yield event(told)


def _status_event(status: ModelStatus) -> WireEvent:
    where = status_object(status)
    info = model_entry(status) if status.status == "loaded" else UNSET
    # A download's bytes are told by events of their own.
    progress = UNSET if status.status == "downloading" else where.progress
    data = StatusData(where.value, progress, where.failed, where.exit_code, where.error, info)
    return WireEvent(status.id, "model_status", data)


def _download_progress(status: ModelStatus) -> list[WireEvent]:
    progress = wire_progress(status.id, status.progress)
    return [WireEvent(status.id, "download_progress", progress)] if isinstance(progress, dict) else []


def _download_end(status: ModelStatus) -> WireEvent:
    if status.error is None:
        return WireEvent(status.id, "download_finished")
    return WireEvent(status.id, "download_failed", FailureData(error_body(status.error).error))
