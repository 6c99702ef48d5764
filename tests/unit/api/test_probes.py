"""What machines ask about the daemon, and the list of models."""

import httpx
import pytest
from openai.types import Model
from prometheus_client.parser import text_string_to_metric_families
from support.fake_model import FakeModel, fake_model
from support.front_door import FrontDoor, live_server, open_front_door

from ondol.engine.messages import EngineStats

pytestmark = pytest.mark.anyio


async def get(door: FrontDoor, path: str) -> httpx.Response:
    async with door.client() as client:
        return await client.get(path)


async def test_a_daemon_that_works_is_healthy_and_ready(door: FrontDoor):
    for path, status in (("/health", "ok"), ("/ready", "ready")):
        answer = await get(door, path)
        assert (answer.status_code, answer.json()) == (200, {"status": status})


async def test_a_loading_daemon_is_healthy_and_not_ready(model: FakeModel):
    door = open_front_door(model, is_ready=False)
    assert (await get(door, "/health")).status_code == 200
    answer = await get(door, "/ready")
    assert (answer.status_code, answer.json()) == (503, {"status": "loading"})


async def test_a_draining_daemon_is_healthy_and_not_ready(door: FrontDoor):
    door.lifecycle.begin_drain()
    assert (await get(door, "/health")).status_code == 200
    answer = await get(door, "/ready")
    assert (answer.status_code, answer.json()) == (503, {"status": "draining"})


async def test_a_dead_engine_is_told_but_is_no_reason_to_restart_the_daemon(door: FrontDoor):
    door.engine.die("the engine process was killed by SIGKILL")
    health, ready = await get(door, "/health"), await get(door, "/ready")
    assert (health.status_code, ready.status_code) == (200, 200)
    assert health.json() == {"status": "degraded", "reason": "the engine process was killed by SIGKILL"}


async def test_models_are_listed_and_found_also_by_names_with_slashes(tokenizer_folder):
    door = open_front_door(fake_model(tokenizer_folder, name="owner/name"))
    async with live_server(door) as live, live.openai() as client:
        (listed,) = [model async for model in client.models.list()]
        found = await client.models.retrieve("owner/name")
    assert listed == found
    Model.model_validate(found.model_dump())
    assert (found.id, found.object, found.owned_by) == ("owner/name", "model", "ondol")
    assert found.max_model_len == 256
    assert found.source == {"kind": "folder"}


async def test_metrics_show_the_engine_as_it_is_at_the_scrape_and_what_requests_did(door: FrontDoor):
    def script(call) -> None:
        call.feed([70])
        call.feed([70, 71], "length")

    door.engine.script = script
    async with door.client() as client:
        await client.post("/v1/completions", json={"model": "tiny", "prompt": [5, 6, 7]})
        door.engine.stats = EngineStats(
            num_running=3, num_waiting=2, num_blocks=64, num_used_blocks=9, prefix_hit_tokens=16
        )
        answer = await client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=")
    samples = {
        (sample.name, sample.labels.get("finish_reason")): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
        if "le" not in sample.labels
    }
    assert samples["ondol_requests_running", None] == 3
    assert samples["ondol_requests_waiting", None] == 2
    assert samples["ondol_kv_blocks", None] == 64
    assert samples["ondol_kv_blocks_used", None] == 9
    assert samples["ondol_prefix_cache_hit_tokens_total", None] == 16
    assert samples["ondol_prompt_tokens_total", None] == 3
    assert samples["ondol_generation_tokens_total", None] == 3
    assert samples["ondol_requests_total", "length"] == 1
    assert samples["ondol_time_to_first_token_seconds_count", None] == 1
    assert samples["ondol_inter_token_latency_seconds_count", None] == 2
    assert samples["ondol_request_duration_seconds_count", None] == 1


async def test_every_request_has_an_id_of_its_own(door: FrontDoor):
    ids = {(await get(door, "/health")).headers["x-request-id"] for _ in range(3)}
    assert len(ids) == 3
