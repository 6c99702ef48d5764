"""What tests ask of a ModelManager, and a lease that is held while a block runs."""

import asyncio
from contextlib import asynccontextmanager

NAMES = ("a", "b", "c")


def phase(manager, name):
    return status(manager, name).status


def status(manager, name):
    return next(status for status in manager.statuses() if status.id == name)


def names(manager):
    return {summary.name for summary in manager.nameable()}


@asynccontextmanager
async def using(manager, name, **options):
    """A lease that a task of its own holds while the block runs."""
    done = asyncio.Event()
    begun = asyncio.Event()

    async def hold():
        async with manager.lease(name, **options):
            begun.set()
            await done.wait()

    holder = asyncio.create_task(hold())
    await asyncio.wait({holder, asyncio.create_task(begun.wait())}, return_when=asyncio.FIRST_COMPLETED)
    try:
        yield done
    finally:
        done.set()
        await holder


async def leased(manager, name):
    async with manager.lease(name) as model:
        yield model
