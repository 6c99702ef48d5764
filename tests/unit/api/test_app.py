"""The application as a whole: what it documents, and what it does not share."""

from functools import reduce

import httpx
import pytest
from support.fake_model import FakeModel
from support.front_door import FrontDoor, live_server, open_front_door

pytestmark = pytest.mark.anyio


def references(node: object) -> list[str]:
    if isinstance(node, dict):
        own = [node["$ref"]] if isinstance(node.get("$ref"), str) else []
        return own + [ref for value in node.values() for ref in references(value)]
    if isinstance(node, list):
        return [ref for value in node for ref in references(value)]
    return []


async def test_openapi_describes_both_bodies_and_every_reference_leads_somewhere(door: FrontDoor):
    async with door.client() as client:
        document = (await client.get("/openapi.json")).json()
    for path in ("/v1/chat/completions", "/v1/completions"):
        body = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]
        assert {"model", "temperature", "stream"} <= body["properties"].keys()
    found = references(document)
    assert found
    for reference in found:
        steps = [step.replace("~1", "/") for step in reference.removeprefix("#/").split("/")]
        assert reduce(lambda node, step: node[step], steps, document)


@pytest.mark.parametrize("path", ["/docs", "/redoc"])
async def test_no_page_loads_scripts_from_elsewhere(door: FrontDoor, path: str):
    async with door.client() as client:
        assert (await client.get(path)).status_code == 404


async def test_two_apps_in_one_process_share_nothing(model: FakeModel):
    guarded, draining = open_front_door(model, api_keys=("k",)), open_front_door(model)
    draining.lifecycle.begin_drain()
    async with guarded.client(authorization="Bearer k") as client:
        assert (await client.get("/ready")).status_code == 200
    async with draining.client() as client:
        assert (await client.get("/v1/models")).status_code == 200
        assert (await client.get("/ready")).status_code == 503


async def test_a_client_that_sends_too_much_reads_the_refusal_and_not_a_broken_pipe(model: FakeModel):
    door = open_front_door(model, max_body_bytes=1000)
    async with live_server(door) as live, httpx.AsyncClient(timeout=20) as client:
        answer = await client.post(f"{live.url}/v1/completions", content=b" " * 9_000_000)
        again = await client.get(f"{live.url}/health")
    assert answer.status_code == 413
    assert answer.json()["error"]["code"] == "request_too_large"
    assert again.status_code == 200
