import asyncio

import pytest
from starlette.requests import ClientDisconnect, Request

from ondol.api.lifecycle import Lifecycle
from ondol.api.waiting import while_wanted
from ondol.errors import DoesNotFit, Draining

pytestmark = pytest.mark.anyio


def request_of(client_left: asyncio.Event) -> Request:
    async def receive() -> dict[str, str]:
        await client_left.wait()
        return {"type": "http.disconnect"}

    return Request({"type": "http"}, receive)


@pytest.fixture
async def request_that_stays() -> Request:
    return request_of(asyncio.Event())


async def test_the_result_of_the_work_is_the_result(request_that_stays):
    async def work() -> int:
        return 7

    assert await while_wanted(request_that_stays, Lifecycle(), work()) == 7


async def test_an_error_of_the_work_is_the_error(request_that_stays):
    async def work() -> None:
        raise DoesNotFit("no room")

    with pytest.raises(DoesNotFit):
        await while_wanted(request_that_stays, Lifecycle(), work())


async def test_work_ends_with_its_client():
    client_left = asyncio.Event()
    client_left.set()
    with pytest.raises(ClientDisconnect):
        await while_wanted(request_of(client_left), Lifecycle(), asyncio.Event().wait())


async def test_work_ends_with_the_daemon(request_that_stays):
    lifecycle = Lifecycle()
    lifecycle.cut()
    with pytest.raises(Draining):
        await while_wanted(request_that_stays, lifecycle, asyncio.Event().wait())
