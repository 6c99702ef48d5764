"""A client that leaves costs nothing from then on, whenever it leaves."""

import asyncio
import json
from collections.abc import Awaitable, Callable

import httpx
import pytest
from support.front_door import FrontDoor, eventually, live_server

pytestmark = pytest.mark.anyio

CHAT = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}]}
STREAM = CHAT | {"stream": True}


async def test_closing_a_stream_aborts_the_request_in_the_engine(door: FrontDoor):
    async with live_server(door) as live, live.openai() as client:
        stream = await client.chat.completions.create(**STREAM)
        call = await door.engine.call()
        call.feed([5])
        async for _ in stream:
            break
        await stream.close()
        await asyncio.wait_for(call.closed.wait(), 10)
        await eventually(lambda: door.is_idle)
    assert call.was_aborted
    assert door.metrics.value("ondol_requests_total", {"model": "tiny", "finish_reason": "abort"}) == 1


async def test_leaving_while_the_request_still_waits_for_its_first_token_aborts_it(door: FrontDoor):
    async with live_server(door) as live, live.openai() as client:
        stream = await client.chat.completions.create(**STREAM)
        call = await door.engine.call()
        await stream.close()
        await asyncio.wait_for(call.closed.wait(), 10)
        await eventually(lambda: door.is_idle)
    assert call.was_aborted


@pytest.mark.parametrize("n", [1, 3])
async def test_leaving_before_a_whole_answer_is_ready_aborts_every_choice(door: FrontDoor, n: int):
    async with live_server(door) as live, httpx.AsyncClient() as client:
        asking = asyncio.create_task(client.post(f"{live.url}/v1/chat/completions", json=CHAT | {"n": n}))
        calls = [await door.engine.call(index) for index in range(n)]
        calls[0].feed([5])
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        await eventually(lambda: door.is_idle)
    assert all(call.was_aborted for call in calls)


async def test_leaving_a_stream_of_many_choices_aborts_each(door: FrontDoor):
    async with live_server(door) as live, live.openai() as client:
        stream = await client.chat.completions.create(**STREAM, n=8)
        calls = [await door.engine.call(index) for index in range(8)]
        calls[3].feed([5])
        await stream.close()
        await eventually(lambda: door.is_idle)
    assert all(call.was_aborted for call in calls)


async def call_app(
    door: FrontDoor, body: dict, send: Callable[[dict], Awaitable[None]], *, leaves_at_once: bool
) -> None:
    """One request with a hand-made receive and send."""
    messages = [{"type": "http.request", "body": json.dumps(body).encode(), "more_body": False}]
    if leaves_at_once:
        messages.append({"type": "http.disconnect"})

    async def receive() -> dict:
        if messages:
            return messages.pop(0)
        return await asyncio.get_running_loop().create_future()

    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "POST",
        "path": "/v1/chat/completions",
        "raw_path": b"/v1/chat/completions",
        "query_string": b"",
        "root_path": "",
        "scheme": "http",
        "headers": [(b"host", b"test")],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 2),
    }
    await door.app(scope, receive, send)


@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_that_is_gone_before_the_first_item_leaves_nothing_behind(door, stream: bool):
    async def send(message: dict) -> None:
        # A server that has to wait before it can write the head: the events never start.
        await asyncio.sleep(0)

    async with asyncio.timeout(10):
        await call_app(door, CHAT | {"stream": stream}, send, leaves_at_once=True)
    assert door.is_idle


async def test_a_connection_that_breaks_in_send_closes_the_engines_stream(door: FrontDoor):
    async def send(message: dict) -> None:
        if b'content":"!' in message.get("body", b""):
            raise OSError("the connection is gone")

    door.engine.script = lambda call: call.feed(door.model.tokenizer.encode_rendered("!"))
    with pytest.raises(OSError, match="the connection is gone"):
        await call_app(door, STREAM, send, leaves_at_once=False)
    assert door.is_idle
    assert door.engine.calls[0].was_aborted


async def test_a_reader_that_stops_reading_and_then_leaves_is_aborted_in_mid_send(door: FrontDoor):
    is_stuck = asyncio.Event()

    async def send(message: dict) -> None:
        if b'content":"!' in message.get("body", b""):
            is_stuck.set()
            await asyncio.get_running_loop().create_future()

    door.engine.script = lambda call: call.feed(door.model.tokenizer.encode_rendered("!"))
    request = asyncio.create_task(call_app(door, STREAM, send, leaves_at_once=False))
    await asyncio.wait_for(is_stuck.wait(), 10)
    request.cancel()
    await asyncio.gather(request, return_exceptions=True)
    assert door.is_idle
    assert door.engine.calls[0].was_aborted


async def test_two_hundred_clients_that_leave_at_random_moments_leak_nothing(door: FrontDoor):
    door.engine._max_open = 1000
    door.engine.script = lambda call: [call.feed([5 + index]) for index in range(3)]

    async def come_and_go(client: httpx.AsyncClient, url: str, index: int) -> None:
        body = CHAT | {"stream": bool(index % 2), "n": 1 + index % 3}
        asking = asyncio.create_task(client.post(url, json=body))
        for _ in range(index % 40):
            await asyncio.sleep(0)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)

    async with live_server(door) as live, httpx.AsyncClient(timeout=30) as client:
        url = f"{live.url}/v1/chat/completions"
        for start in range(0, 200, 50):
            await asyncio.gather(*(come_and_go(client, url, start + index) for index in range(50)))
        await eventually(lambda: door.is_idle)
    assert door.metrics.value("ondol_requests_total", {"model": "tiny", "finish_reason": "stop"}) is None
