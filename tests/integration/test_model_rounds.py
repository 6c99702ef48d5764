"""Models that come and go for a long time leave nothing behind."""

import asyncio
import json
import random

import httpx
import pytest
from support.daemon import Daemon, poll
from support.served_models import save_served_model
from support.streams import DONE, endless, open_streams

pytestmark = [pytest.mark.anyio, pytest.mark.slow, pytest.mark.timeout(1800)]

NUM_ROUNDS = 10
NAMES = ("llama", "qwen2", "mistral")
# Memory of the first rounds is that of libraries and caches that fill once.
SETTLED_ROUND = 2
ALLOWED_GROWTH = 1.05


@pytest.fixture
def daemon(tmp_path):
    for name in NAMES:
        save_served_model(tmp_path / "home" / "models" / name, name)
    first = save_served_model(tmp_path / "first")
    places = ("--max-loaded-models", "4", "--home", str(tmp_path / "home"), "--keep-alive", "-1")
    with Daemon(str(first), *places) as daemon:
        yield daemon.wait_until_serving()


def order(daemon, action, name):
    body = {"model": name, "wait": True}
    answer = httpx.post(f"{daemon.url}/models/{action}", json=body, timeout=120)
    assert answer.status_code == 200, answer.text


def resident_bytes(process_id):
    with open(f"/proc/{process_id}/status", encoding="ascii") as status:
        line = next(line for line in status if line.startswith("VmRSS:"))
    return int(line.split()[1]) * 1024


async def stream_while(daemon, name, then):
    """Stream from a model while `then` runs beside; every stream must reach its length."""
    async with open_streams(daemon, 3, endless(model=name, max_tokens=300)) as streams:
        beside = asyncio.create_task(asyncio.to_thread(then))
        for *texts, last, done in await asyncio.gather(*streams):
            assert done == DONE
            assert json.loads(last)["choices"][0]["finish_reason"] == "length"
            assert not any("error" in json.loads(text) for text in texts)
        await beside


async def test_ten_rounds_leave_no_process_no_memory_and_cut_no_stream(daemon):
    """Slow: thirty engine starts."""
    shuffled = random.Random(7)
    sizes = []
    for _ in range(NUM_ROUNDS):
        names = list(NAMES)
        shuffled.shuffle(names)
        await asyncio.to_thread(order, daemon, "load", names[0])
        for name, following in zip(names, [*names[1:], None], strict=True):
            await stream_while(
                daemon,
                name,
                lambda name=following: order(daemon, "load", name) if name else None,
            )
            await asyncio.to_thread(order, daemon, "unload", name)
        poll(daemon.engine_ids, lambda ids: len(ids) == 1)
        sizes.append(resident_bytes(daemon.process.pid))
    assert max(sizes[SETTLED_ROUND:]) <= ALLOWED_GROWTH * sizes[SETTLED_ROUND - 1], sizes
