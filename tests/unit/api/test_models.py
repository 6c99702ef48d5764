"""What OpenAI's client sees of the models."""

import pytest
from support.fake_model import fake_model
from support.front_door import is_openai_error, live_server, open_front_door

from ondol.model_manager.model_status import ModelStatus, ModelSummary

pytestmark = pytest.mark.anyio


async def test_exactly_the_names_that_requests_may_use_are_listed(door, tokenizer_folder):
    door = open_front_door(door.model, shelf=[fake_model(tokenizer_folder, name="small")])
    async with live_server(door) as live, live.openai() as client:
        listed = [model async for model in client.models.list()]
    assert [model.id for model in listed] == ["tiny"]
    assert listed[0].owned_by == "ondol"
    assert listed[0].status == {"value": "loaded"}


async def test_a_model_that_a_request_would_load_is_listed_as_unloaded(door, monkeypatch):
    summaries = (ModelSummary("tiny", 1, 256), ModelSummary("온돌", 2))
    monkeypatch.setattr(door.manager, "nameable", lambda: summaries)
    door.manager.publish(ModelStatus("온돌", "unloaded"))
    answer = (await door.client().get("/v1/models")).json()
    assert [model["status"]["value"] for model in answer["data"]] == ["loaded", "unloaded"]
    assert [model["max_model_len"] for model in answer["data"]] == [256, None]
    one = (await door.client().get("/v1/models/온돌")).json()
    assert one == answer["data"][1]


async def test_a_name_that_no_request_may_use_is_openais_404(door):
    answer = await door.client().get("/v1/models/owner/name")
    assert answer.status_code == 404
    assert is_openai_error(answer)
    assert answer.json()["error"]["code"] == "model_not_found"


async def test_folders_of_this_machine_are_told_to_nobody(door):
    assert "/secret" not in (await door.client().get("/v1/models")).text
