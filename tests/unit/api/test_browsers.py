"""Browsers: forged names, foreign websites, preflights. Programs are not affected."""

import pytest
from support.fake_model import FakeModel
from support.front_door import open_front_door

from ondol.api.browsers import host_names

pytestmark = pytest.mark.anyio

CHAT = {"model": "tiny", "messages": [{"role": "user", "content": "안녕"}]}
PREFLIGHT = {
    "origin": "https://chat.example.com",
    "access-control-request-method": "POST",
    "access-control-request-headers": "authorization, x-stainless-os",
    "access-control-request-private-network": "true",
}


@pytest.mark.parametrize(
    "host", ["localhost", "LocalHost:8000", "127.0.0.1:8000", "[::1]:8000", "10.0.0.7", "a.localhost:1"]
)
async def test_this_machines_names_and_any_address_are_known(model: FakeModel, host: str):
    async with open_front_door(model).client() as client:
        assert (await client.get("/v1/models", headers={"host": host})).status_code == 200


@pytest.mark.parametrize("host", ["evil.example.com", "evil.example.com:8000", "127.0.0.1.evil.com", ""])
async def test_a_name_that_was_rebound_to_this_machine_is_refused(model: FakeModel, host: str):
    async with open_front_door(model).client() as client:
        answer = await client.get("/v1/models", headers={"host": host})
    assert answer.status_code == 403
    assert answer.json()["error"]["code"] == "host_not_allowed"
    assert "--allowed-hosts" in answer.json()["error"]["message"]


async def test_names_of_the_users_own_are_known(model: FakeModel):
    door = open_front_door(model, allowed_hosts=("chat.example.com", "test"))
    async with door.client() as client:
        answer = await client.get("/v1/models", headers={"host": "chat.example.com:443"})
    assert answer.status_code == 200


def test_any_name_goes_where_a_key_is_needed_on_a_network():
    assert host_names("0.0.0.0", (), is_guarded=True) == ("*",)
    assert "*" not in host_names("0.0.0.0", (), is_guarded=False)
    assert "chat.example.com" in host_names("0.0.0.0", ("chat.example.com",), is_guarded=True)


async def test_another_websites_page_changes_nothing(model: FakeModel):
    async with open_front_door(model).client() as client:
        for headers in ({"origin": "https://evil.example.com"}, {"origin": "null"}):
            answer = await client.post("/v1/chat/completions", json=CHAT, headers=headers)
            assert answer.status_code == 403
            assert answer.json()["error"]["code"] == "origin_not_allowed"
    assert not model.engine.calls


async def test_without_cors_nobody_else_reads_and_a_preflight_is_refused(model: FakeModel):
    async with open_front_door(model).client() as client:
        read = await client.get("/v1/models", headers={"origin": "https://evil.example.com"})
        preflight = await client.options("/v1/chat/completions", headers=PREFLIGHT)
    assert "access-control-allow-origin" not in read.headers
    assert preflight.status_code == 403
    assert "access-control-allow-origin" not in preflight.headers


async def test_the_daemons_own_page_needs_no_permission(model: FakeModel):
    async with open_front_door(model).client() as client:
        headers = {"origin": "http://localhost:8000", "host": "localhost:8000"}
        answer = await client.post("/v1/chat/completions", json={}, headers=headers)
    assert answer.status_code == 400


@pytest.mark.parametrize("origins", [("https://chat.example.com",), ("*",)])
async def test_a_preflight_needs_no_key_and_reflects_what_it_asks_for(model: FakeModel, origins: tuple):
    door = open_front_door(model, api_keys=("secret",), cors_origins=origins)
    async with door.client() as client:
        answer = await client.options("/v1/chat/completions", headers=PREFLIGHT)
    assert answer.status_code == 204
    assert answer.headers["access-control-allow-origin"] == "https://chat.example.com"
    assert answer.headers["access-control-allow-headers"] == "authorization, x-stainless-os"
    assert "POST" in answer.headers["access-control-allow-methods"]
    assert answer.headers["access-control-allow-private-network"] == "true"
    assert "Origin" in answer.headers["vary"]
    assert "access-control-allow-credentials" not in answer.headers


async def test_an_allowed_website_reads_answers_and_errors(model: FakeModel):
    door = open_front_door(model, api_keys=("secret",), cors_origins=("https://chat.example.com",))
    origin = {"origin": "https://chat.example.com"}
    async with door.client() as client:
        refused = await client.get("/v1/models", headers=origin)
        answered = await client.get("/v1/models", headers=origin | {"authorization": "Bearer secret"})
    for answer, status in ((refused, 401), (answered, 200)):
        assert answer.status_code == status
        assert answer.headers["access-control-allow-origin"] == "https://chat.example.com"
        assert "x-ondol-ignored" in answer.headers["access-control-expose-headers"]


async def test_options_without_a_preflight_is_like_any_other_request(model: FakeModel):
    async with open_front_door(model, api_keys=("secret",)).client() as client:
        assert (await client.options("/v1/models")).status_code == 401
