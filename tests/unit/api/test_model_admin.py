"""Loading, unloading, downloading and removing over HTTP, in front of a fake manager."""

import asyncio
import math

import httpx
import pytest
from support.fake_model import FakeModel, fake_model
from support.front_door import FrontDoor, eventually, is_openai_error, live_server, open_front_door

from ondol.errors import DoesNotFit, HubTokenMissing, ModelInUse, SourceUnreachable
from ondol.model_manager.load_order import LoadOrder
from ondol.model_manager.model_status import MemoryUse, ModelStatus, StageProgress

pytestmark = pytest.mark.anyio


@pytest.fixture
def shelved(tokenizer_folder) -> FakeModel:
    return fake_model(tokenizer_folder, name="small")


@pytest.fixture
async def door(model, shelved) -> FrontDoor:
    return open_front_door(model, shelf=[shelved])


async def statuses(door: FrontDoor) -> dict[str, dict]:
    answer = await door.client().get("/models")
    assert answer.status_code == 200
    return {entry["id"]: entry["status"] for entry in answer.json()["data"]}


async def test_every_known_model_is_listed_with_its_status(door):
    door.manager.publish(
        ModelStatus(
            "tiny",
            "loaded",
            source={"kind": "folder", "path": "/secret"},
            path="/secret",
            num_streams=2,
            expires_at=1_700_000_000.5,
            memory=MemoryUse(10, 20, 3),
            quantization="int8",
            device="cpu",
            max_model_len=256,
            dtype="float32",
            kv_cache_dtype="fp8",
            deterministic=True,
        )
    )
    answer = await door.client().get("/models")
    loaded, unloaded = answer.json()["data"]
    assert loaded == {
        "id": "tiny",
        "in_cache": True,
        "object": "model",
        "owned_by": "ondol",
        "status": {"value": "loaded"},
        "source": {"kind": "folder"},
        "num_streams": 2,
        "expires_at": 1_700_000_000.5,
        "pinned": False,
        "memory": {
            "weights_bytes": 10,
            "kv_cache_bytes": 20,
            "workspace_bytes": 3,
            "total_bytes": 33,
            "host_weights_bytes": 0,
        },
        "quantization": "int8",
        "device": "cpu",
        "max_model_len": 256,
        "dtype": "float32",
        "kv_cache_dtype": "fp8",
        "deterministic": True,
        "architecture": {"input_modalities": ["text"], "output_modalities": ["text"]},
    }
    assert unloaded["id"] == "small"
    assert unloaded["status"] == {"value": "unloaded"}
    assert "/secret" not in answer.text


async def test_progress_has_the_shape_of_llama_cpps_router(door):
    door.manager.publish(ModelStatus("tiny", "loading", StageProgress("weights", 30, 120)))
    door.manager.publish(ModelStatus("small", "downloading", StageProgress("downloading", 5, 100)))
    found = await statuses(door)
    assert found["tiny"] == {
        "value": "loading",
        "progress": {"stages": ["starting", "waiting", "weights"], "current": "weights", "value": 0.25},
    }
    assert found["small"] == {"value": "downloading", "progress": {"small": {"done": 5, "total": 100}}}


async def test_a_load_goes_on_after_its_answer(door):
    door.manager.load_gate.clear()
    answer = await door.client().post("/models/load", json={"model": "small"})
    assert answer.status_code == 200
    assert answer.json() == {"model": "small", "success": True}
    assert (await statuses(door))["small"]["value"] == "loading"
    door.manager.load_gate.set()
    await eventually(lambda: len(door.manager.served()) == 2)
    assert (await statuses(door))["small"] == {"value": "loaded"}


async def test_an_order_carries_what_the_body_says(door):
    body = {
        "model": "small",
        "quantization": "nf4",
        "dtype": "bfloat16",
        "context": 512,
        "kv_cache_memory": "1MiB",
        "kv_cache_dtype": "fp8",
        "cpu_offload_gb": 0.5,
        "deterministic": False,
        "keep_alive": "5m",
        "pin": True,
        "download": False,
        "wait": True,
    }
    answer = await door.client().post("/models/load", json=body)
    assert answer.json()["data"]["status"] == {"value": "loaded"}
    (order,) = door.manager.orders
    assert (order.model, order.quantization, order.dtype) == ("small", "nf4", "bfloat16")
    assert (order.max_model_len, order.kv_cache_bytes, order.kv_cache_dtype) == (512, 1 << 20, "fp8")
    assert (order.offload_bytes, order.deterministic) == (1 << 29, False)
    assert (order.keep_alive_s, order.is_pinned, order.allow_download) == (300.0, True, False)


@pytest.mark.parametrize(("keep_alive", "seconds"), [(90, 90.0), ("1h30m", 5400.0), (0, 0.0), (-1, math.inf)])
async def test_keep_alive_is_a_number_of_seconds_or_a_duration(door, keep_alive, seconds):
    await door.client().post("/models/load", json={"model": "small", "keep_alive": keep_alive, "wait": True})
    assert door.manager.orders[0].keep_alive_s == seconds


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "model"),
        ({"model": ""}, "model"),
        ({"model": "small", "keep_alive": "soon"}, "keep_alive"),
        ({"model": "small", "quantization": "int3"}, "quantization"),
        ({"model": "small", "max_model_len": 0}, "max_model_len"),
        ({"model": "small", "max_model_len": "512"}, "max_model_len"),
        ({"model": "small", "kv_cache_memory": "lots"}, "kv_cache_memory"),
        ({"model": "/etc"}, "model"),
        ({"model": "../tiny"}, "model"),
        ({"model": "~/tiny"}, "model"),
        ({"model": "-rf"}, "model"),
    ],
)
async def test_a_wrong_order_is_refused_by_the_name_of_its_field(door, body, param):
    answer = await door.client().post("/models/load", json=body)
    assert answer.status_code == 400
    assert is_openai_error(answer)
    assert answer.json()["error"]["param"] == param
    assert door.manager.orders == []


async def test_unknown_fields_are_named_in_a_header(door):
    body = {"model": "small", "instance_id": "small", "wait": True}
    answer = await door.client().post("/models/load", json=body)
    assert answer.headers["x-ondol-ignored"] == "instance_id"


@pytest.mark.parametrize("path", ["/models", "/models/load", "/models/unload"])
async def test_only_a_json_body_is_an_order(door, path):
    """What a page of another site can send without asking first is text or a form."""
    for headers in ({"content-type": "text/plain"}, {}):
        answer = await door.client().post(path, content=b'{"model": "small"}', headers=headers)
        assert answer.status_code == 400
        assert is_openai_error(answer)
    assert door.manager.orders == []


async def test_a_load_that_fails_at_once_fails_in_the_answer(door):
    answer = await door.client().post("/models/load", json={"model": "nobody"})
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "model_not_found"


async def test_a_load_that_fails_later_is_told_by_the_list(door, caplog):
    door.manager.load_gate.clear()
    door.manager.failures["small"] = DoesNotFit("small needs 3 GiB, 2 GiB are left")
    answer = await door.client().post("/models/load", json={"model": "small"})
    assert answer.status_code == 200
    door.manager.load_gate.set()
    await eventually(lambda: "small needs 3 GiB" in caplog.text)
    assert (await statuses(door))["small"] == {
        "value": "unloaded",
        "failed": True,
        "exit_code": 5,
        "error": {
            "message": "small needs 3 GiB, 2 GiB are left",
            "type": "invalid_request_error",
            "param": "model",
            "code": "model_does_not_fit",
        },
    }


async def test_a_load_that_is_waited_for_fails_in_the_answer(door):
    door.manager.failures["small"] = SourceUnreachable("the Hub does not answer")
    answer = await door.client().post("/models/load", json={"model": "small", "wait": True})
    assert answer.status_code == 502
    assert answer.json()["error"]["code"] == "source_unreachable"


async def test_a_model_is_unloaded(door):
    answer = await door.client().post("/models/unload", json={"model": "tiny"})
    assert answer.json() == {"model": "tiny", "success": True}
    assert (await statuses(door))["tiny"] == {"value": "unloaded"}


async def test_a_model_in_use_is_not_unloaded(door):
    async with door.manager.lease("tiny"):
        answer = await door.client().post("/models/unload", json={"model": "tiny"})
        assert answer.status_code == 409
        assert answer.json()["error"]["code"] == "model_in_use"
    assert door.manager.served() == (door.model,)


async def test_an_unload_that_waits_is_done_when_the_stream_has_ended(door):
    async with door.manager.lease("tiny"):
        unload = asyncio.create_task(
            door.client().post("/models/unload", json={"model": "tiny", "wait": True})
        )
        done, _ = await asyncio.wait({unload}, timeout=0.4)
        assert not done
    assert (await unload).status_code == 200
    assert door.manager.served() == ()


async def test_a_model_that_is_served_under_any_name_can_be_named(model, tokenizer_folder):
    door = open_front_door(fake_model(tokenizer_folder, name="my model:latest"))
    answer = await door.client().post("/models/unload", json={"model": "my model:latest"})
    assert answer.json()["success"] is True


async def test_a_download_goes_on_after_its_answer(door):
    door.manager.load_gate.clear()
    answer = await door.client().post("/models", json={"model": "owner/name"})
    assert answer.json() == {"model": "owner/name", "success": True}
    assert (await statuses(door))["owner/name"]["value"] == "downloading"
    door.manager.load_gate.set()
    await eventually(lambda: door.manager.states["owner/name"].status == "unloaded")
    assert door.manager.pulled == ["owner/name"]


async def test_a_gated_download_says_which_way_the_hub_refused(door):
    door.manager.failures["owner/name"] = HubTokenMissing("log in first", "https://hub.test/owner/name")
    answer = await door.client().post("/models", json={"model": "owner/name"})
    assert answer.status_code == 401
    assert answer.json()["error"]["code"] == "hub_token_missing"


async def test_a_model_is_removed(door):
    answer = await door.client().delete("/models", params={"model": "small"})
    assert answer.json() == {"model": "small", "success": True}
    assert set(await statuses(door)) == {"tiny"}


@pytest.mark.parametrize(
    ("params", "status"),
    [({}, 400), ({"model": ""}, 400), ({"model": "../x"}, 400), ({"model": "nobody"}, 404)],
)
async def test_only_a_known_name_is_removed(door, params, status):
    answer = await door.client().delete("/models", params=params)
    assert answer.status_code == status
    assert is_openai_error(answer)


async def test_a_model_in_use_is_not_removed(door):
    door.manager.failures["small"] = ModelInUse("small", 1)
    assert (await door.client().delete("/models", params={"model": "small"})).status_code == 409


async def test_a_daemon_that_ends_takes_no_orders(door):
    door.lifecycle.begin_drain()
    client = door.client()
    for request in (
        client.post("/models/load", json={"model": "small"}),
        client.post("/models", json={"model": "small"}),
        client.delete("/models", params={"model": "small"}),
    ):
        answer = await request
        assert answer.status_code == 503
        assert answer.json()["error"]["code"] == "shutting_down"


async def test_a_load_needs_no_model_to_be_ready(model, shelved):
    door = open_front_door(model, shelf=[shelved], is_ready=False)
    answer = await door.client().post("/models/load", json={"model": "small", "wait": True})
    assert answer.status_code == 200


async def test_a_load_that_nobody_waits_for_any_more_is_given_up(door, monkeypatch):
    was_given_up = asyncio.Event()

    async def load(order: LoadOrder) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            was_given_up.set()

    monkeypatch.setattr(door.manager, "load", load)
    async with live_server(door) as live, httpx.AsyncClient(timeout=httpx.Timeout(10, read=0.2)) as client:
        with pytest.raises(httpx.ReadTimeout):
            await client.post(f"{live.url}/models/load", json={"model": "small", "wait": True})
        async with asyncio.timeout(10):
            await was_given_up.wait()


async def test_orders_need_a_key_where_keys_are_set(model):
    client = open_front_door(model, api_keys=("secret",)).client()
    assert (await client.get("/models")).status_code == 401
    assert (await client.get("/models/sse")).status_code == 401
    assert (await client.get("/models/fit?model=tiny")).status_code == 401
    assert (await client.post("/models/load", json={"model": "tiny"})).status_code == 401
    assert (await client.delete("/models?model=tiny")).status_code == 401
