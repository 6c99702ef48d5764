"""The events of /models/sse, in words and on a live server."""

import json
from collections.abc import AsyncIterator

import httpx
import msgspec
import pytest
from support.fake_model import fake_model
from support.front_door import eventually, live_server, open_front_door

from ondol.api import sse
from ondol.api.model_events import EventWords
from ondol.errors import SourceUnreachable
from ondol.model_manager.model_events import ModelEvent
from ondol.model_manager.model_status import ModelStatus, StageProgress

pytestmark = pytest.mark.anyio


def told(words: EventWords, *statuses: ModelStatus) -> list[dict]:
    events = [event for status in statuses for event in words.tell(ModelEvent("status", status))]
    return [json.loads(msgspec.json.encode(event)) for event in events]


def test_a_load_is_told_from_its_start_to_its_end():
    events = told(
        EventWords(),
        ModelStatus("m", "loading", StageProgress("starting")),
        ModelStatus("m", "loading", StageProgress("weights", 1, 2)),
        ModelStatus("m", "loaded", max_model_len=64),
    )
    assert [event["event"] for event in events] == ["model_status"] * 3
    assert [event["data"]["status"] for event in events] == ["loading", "loading", "loaded"]
    stages = ["starting", "waiting", "weights"]
    assert events[0]["data"]["progress"] == {"stages": stages, "current": "starting", "value": 0.0}
    assert events[1]["data"]["progress"] == {"stages": stages, "current": "weights", "value": 0.5}
    assert events[2]["data"]["info"]["max_model_len"] == 64
    assert "failed" not in events[2]["data"]


def test_a_download_is_told_in_bytes_and_its_end_by_an_event_of_its_own():
    events = told(
        EventWords(),
        ModelStatus("m", "downloading"),
        ModelStatus("m", "downloading", StageProgress("downloading", 5, 10)),
        ModelStatus("m", "unloaded"),
    )
    assert events == [
        {"model": "m", "event": "model_status", "data": {"status": "downloading"}},
        {"model": "m", "event": "download_progress", "data": {"m": {"done": 5, "total": 10}}},
        {"model": "m", "event": "download_finished"},
        {"model": "m", "event": "model_status", "data": {"status": "unloaded"}},
    ]


def test_a_download_that_fails_says_why():
    events = told(
        EventWords(),
        ModelStatus("m", "downloading"),
        ModelStatus("m", "failed", error=SourceUnreachable("no network")),
    )
    assert [event["event"] for event in events] == ["model_status", "download_failed", "model_status"]
    assert events[1]["data"]["error"]["message"] == "no network"
    assert events[2]["data"]["status"] == "unloaded"
    assert events[2]["data"]["failed"] is True
    assert events[2]["data"]["exit_code"] == 10


def test_a_removed_model_is_told():
    words = EventWords()
    (event,) = words.tell(ModelEvent("removed", ModelStatus("m", "unloaded")))
    assert json.loads(msgspec.json.encode(event)) == {"model": "m", "event": "model_remove"}


async def next_event(lines: AsyncIterator[str]) -> dict:
    async for line in lines:
        if line.startswith("data: "):
            return json.loads(line.removeprefix("data: "))
    raise AssertionError("the stream ended")


async def test_a_watcher_sees_a_load_and_is_forgotten_when_it_leaves(model, tokenizer_folder):
    door = open_front_door(model, shelf=[fake_model(tokenizer_folder, name="small")])
    async with live_server(door) as live, httpx.AsyncClient(base_url=live.url) as client:
        async with client.stream("GET", "/models/sse") as stream:
            assert stream.headers["content-type"].startswith("text/event-stream")
            door.manager.load_gate.clear()
            await client.post("/models/load", json={"model": "small"})
            lines = stream.aiter_lines()
            assert (await next_event(lines))["data"]["status"] == "loading"
            door.manager.load_gate.set()
            assert (await next_event(lines))["data"]["status"] == "loaded"
            assert door.manager.events.num_watchers == 1
        await eventually(lambda: door.manager.events.num_watchers == 0)


async def test_an_idle_watch_is_kept_alive_by_comments(door, monkeypatch):
    monkeypatch.setattr(sse, "PING_INTERVAL_S", 0.05)
    async with (
        live_server(door) as live,
        httpx.AsyncClient(base_url=live.url) as client,
        client.stream("GET", "/models/sse") as stream,
    ):
        async for line in stream.aiter_lines():
            if line.startswith(":"):
                break


async def test_a_watcher_does_not_hold_up_the_end_and_hears_of_it(door):
    async with live_server(door) as live, httpx.AsyncClient(base_url=live.url) as client:
        async with client.stream("GET", "/models/sse") as stream:
            live.server.handle_exit(15, None)
            text = "".join([line async for line in stream.aiter_lines()])
        await live.done
    assert "shutting_down" in text
