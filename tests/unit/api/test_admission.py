import asyncio

import pytest
from support.fake_model import FakeModel
from support.front_door import FrontDoor, eventually, live_server

from ondol.api.admission import Admission
from ondol.errors import EngineFailed, QueueFull

pytestmark = pytest.mark.anyio

STREAM = {"model": "tiny", "prompt": "hi", "stream": True}


async def test_requests_on_their_way_to_the_engine_count_against_its_limit(model: FakeModel):
    model.engine._max_open = 3
    admission = Admission()
    with admission.admit(model, 2):
        with pytest.raises(QueueFull), admission.admit(model, 2):
            pass
        with admission.admit(model, 1):
            pass
        model.engine.num_open = 2
        with admission.admit(model, 1):
            pass
    model.engine.num_open = 0
    with admission.admit(model, 3):
        pass


async def test_a_dead_engine_admits_nobody(model: FakeModel):
    model.engine.die("gone")
    with pytest.raises(EngineFailed, match="gone"), Admission().admit(model, 1):
        pass


async def test_a_burst_gets_exactly_as_many_streams_as_there_is_room_and_429_for_the_rest(door: FrontDoor):
    import httpx

    door.engine._max_open = 10
    async with live_server(door) as live, httpx.AsyncClient(timeout=20) as client:
        asking = [
            asyncio.create_task(client.post(f"{live.url}/v1/completions", json=STREAM)) for _ in range(60)
        ]
        await eventually(lambda: sum(task.done() for task in asking) == 50)
        assert door.engine.num_open == 10
        for call in door.engine.calls:
            call.feed([70], "length")
        answers = await asyncio.gather(*asking)
    assert sorted(answer.status_code for answer in answers) == [200] * 10 + [429] * 50
    assert all("error" not in answer.text for answer in answers if answer.status_code == 200)
    assert door.is_idle
