import asyncio

import pytest
from support.front_door import eventually

from ondol.api.background import Background
from ondol.api.lifecycle import Lifecycle
from ondol.errors import DoesNotFit

pytestmark = pytest.mark.anyio


async def test_work_goes_on_after_its_start_has_returned():
    gate, is_done = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        await gate.wait()
        is_done.set()

    await Background(Lifecycle()).start("work", work)
    assert not is_done.is_set()
    gate.set()
    async with asyncio.timeout(10):
        await is_done.wait()


async def test_what_fails_at_once_is_raised():
    async def work() -> None:
        raise DoesNotFit("no room")

    with pytest.raises(DoesNotFit):
        await Background(Lifecycle()).start("work", work)


@pytest.mark.parametrize(
    ("error", "line"), [(DoesNotFit("no room"), "load of m failed: no room"), (ValueError("a bug"), "a bug")]
)
async def test_what_fails_later_is_logged(caplog, error, line):
    gate = asyncio.Event()

    async def work() -> None:
        await gate.wait()
        raise error

    await Background(Lifecycle()).start("load of m", work)
    gate.set()
    await eventually(lambda: line in caplog.text)


async def test_nothing_outlives_the_cut(caplog):
    lifecycle = Lifecycle()
    was_cancelled = asyncio.Event()

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            was_cancelled.set()

    await Background(lifecycle).start("work", work)
    lifecycle.cut()
    async with asyncio.timeout(10):
        await was_cancelled.wait()
    assert caplog.text == ""
