"""Keys guard every path but the probes; an open door needs an explicit word."""

import pytest
from support.api_settings import api_config
from support.fake_model import FakeModel
from support.front_door import open_front_door

from ondol.api.access import check_exposure, is_loopback
from ondol.errors import ConfigError
from ondol.keys.key_ring import KeyRing
from ondol.keys.key_store import KEYS_FILE, KeyLimits, KeyStore

pytestmark = pytest.mark.anyio

PATHS = [
    "/v1/models",
    "/v1/models/tiny",
    "/metrics",
    "/docs",
    "/openapi.json",
    "/nothing",
    "/health/",
    "//health",
]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": "Bearer wrong"},
        {"authorization": "Bearer "},
        {"authorization": "secret-key"},
        {"authorization": "Basic secret-key"},
        {"authorization": "Bearer secret-ke"},
        {"authorization": b"Bearer \xff\xfe"},
        {"x-api-key": "secret-key"},
    ],
    ids=str,
)
async def test_without_a_valid_key_every_path_is_a_401(model: FakeModel, path: str, headers: dict):
    door = open_front_door(model, api_keys=("secret-key",))
    async with door.client() as client:
        # In full: the client would take "//health" alone for a host, and ask for the open page at "/".
        answer = await client.get(f"http://test{path}", headers=headers)
    assert answer.status_code == 401
    assert answer.json()["error"]["code"] == "invalid_api_key"
    assert answer.headers["www-authenticate"] == "Bearer"
    assert answer.headers["x-request-id"]


@pytest.mark.parametrize("key", ["first", "둘째"])
@pytest.mark.parametrize("scheme", ["Bearer", "bearer"])
async def test_any_of_the_keys_opens(model: FakeModel, key: str, scheme: str):
    door = open_front_door(model, api_keys=("first", "둘째"))
    async with door.client() as client:
        headers = {"authorization": f"{scheme} {key}".encode()}
        answer = await client.get("/v1/models", headers=headers)
    assert answer.status_code == 200


@pytest.mark.parametrize("path", ["/health", "/ready"])
async def test_probes_need_no_key(model: FakeModel, path: str):
    door = open_front_door(model, api_keys=("secret-key",))
    async with door.client() as client:
        assert (await client.get(path)).status_code == 200


async def test_a_host_header_does_not_open_anything(model: FakeModel):
    door = open_front_door(model, api_keys=("secret-key",))
    async with door.client(host="test/health?") as client:
        assert (await client.get("/v1/models")).status_code == 403
    door = open_front_door(model, api_keys=("secret-key",), allowed_hosts=("*",))
    async with door.client(host="test/health?") as client:
        assert (await client.get("/v1/models")).status_code == 401


async def test_with_no_key_set_any_key_is_accepted(model: FakeModel):
    door = open_front_door(model)
    async with door.client(authorization="Bearer whatever") as client:
        assert (await client.get("/v1/models")).status_code == 200


async def test_each_key_has_a_prefix_cache_of_its_own(model: FakeModel):
    door = open_front_door(model, api_keys=("one", "two"))
    door.engine.script = lambda call: call.feed([5], "length")
    body = {"model": "tiny", "prompt": "hi"}
    async with door.client() as client:
        for key in ("one", "two", "one"):
            await client.post("/v1/completions", json=body, headers={"authorization": f"Bearer {key}"})
    first, second, third = (call.cache_salt for call in door.engine.calls)
    assert first == third != second
    assert "one" not in first


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.0.7", "example.org", ""])
def test_a_network_address_without_a_key_is_refused(host: str):
    config = api_config(host=host)
    with pytest.raises(ConfigError, match="--allow-unauthenticated"):
        check_exposure(config, KeyRing(config.api_keys, KeyStore(config.home)))


@pytest.mark.parametrize("change", [{"api_keys": ("k",)}, {"allow_unauthenticated": True}])
def test_a_network_address_is_fine_with_a_key_or_an_explicit_word(change: dict):
    config = api_config(host="0.0.0.0", **change)
    check_exposure(config, KeyRing(config.api_keys, KeyStore(config.home)))


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_loopback_needs_no_key(host: str):
    assert is_loopback(host)
    config = api_config(host=host)
    check_exposure(config, KeyRing(config.api_keys, KeyStore(config.home)))


def test_a_network_address_is_fine_with_a_key_of_the_store(tmp_path):
    config = api_config(host="0.0.0.0", home=tmp_path)
    KeyStore(tmp_path).create("laptop", KeyLimits())
    check_exposure(config, KeyRing(config.api_keys, KeyStore(config.home)))


async def test_metrics_are_open_where_the_setting_says_so(model: FakeModel):
    door = open_front_door(model, api_keys=("secret-key",), metrics_require_key=False)
    async with door.client() as client:
        assert (await client.get("/metrics")).status_code == 200
        assert (await client.get("/v1/models")).status_code == 401


async def test_a_key_of_the_store_works_from_the_moment_it_is_made_until_it_is_revoked(
    model: FakeModel, tmp_path
):
    door = open_front_door(model, home=tmp_path)
    async with door.client() as client:
        assert (await client.get("/v1/models")).status_code == 200
        key = KeyStore(tmp_path).create("laptop", KeyLimits())
        assert (await client.get("/v1/models")).status_code == 401
        bearer = {"authorization": f"Bearer {key}"}
        assert (await client.get("/v1/models", headers=bearer)).status_code == 200
        KeyStore(tmp_path).revoke("laptop")
        assert (await client.get("/v1/models", headers=bearer)).status_code == 401


async def test_a_key_over_its_limit_is_told_when_to_come_again(model: FakeModel, tmp_path):
    door = open_front_door(model, home=tmp_path)
    door.engine.script = lambda call: call.feed([5], "length")
    key = KeyStore(tmp_path).create("laptop", KeyLimits(requests_per_minute=1))
    body = {"model": "tiny", "prompt": "hi"}
    async with door.client(authorization=f"Bearer {key}") as client:
        first = await client.post("/v1/completions", json=body)
        second = await client.post("/v1/completions", json=body)
        listed = await client.get("/v1/models")
    assert (first.status_code, first.headers["x-ratelimit-remaining-requests"]) == (200, "0")
    assert second.status_code == 429
    assert second.json()["error"]["code"] == "rate_limit_exceeded"
    assert 1 <= int(second.headers["retry-after"]) <= 60
    assert listed.status_code == 200  # looking costs nothing


@pytest.mark.parametrize("is_stream", [False, True])
async def test_tokens_of_prompts_and_answers_count_against_the_key(model: FakeModel, tmp_path, is_stream):
    door = open_front_door(model, home=tmp_path)
    door.engine.script = lambda call: call.feed([5, 6, 7], "length")
    key = KeyStore(tmp_path).create("laptop", KeyLimits(tokens_per_minute=8))
    body = {"model": "tiny", "prompt": [1, 2, 3, 4, 5], "stream": is_stream}
    async with door.client(authorization=f"Bearer {key}") as client:
        assert (await client.post("/v1/completions", json=body)).status_code == 200
        refused = await client.post("/v1/completions", json=body)
    assert refused.status_code == 429
    assert "8 tokens per minute" in refused.json()["error"]["message"]


async def test_keys_that_cannot_be_read_let_nobody_in_and_the_log_tells_why(
    model: FakeModel, tmp_path, caplog
):
    door = open_front_door(model, home=tmp_path)
    key = KeyStore(tmp_path).create("laptop", KeyLimits())
    (tmp_path / KEYS_FILE).write_text("{", encoding="utf-8")
    async with door.client(authorization=f"Bearer {key}") as client:
        answer = await client.get("/v1/models")
    assert answer.status_code == 500
    assert "log" in answer.json()["error"]["message"]
    assert str(tmp_path) not in answer.text
    assert str(tmp_path) in caplog.text


@pytest.mark.parametrize(
    ("lowest", "asked", "given"),
    [
        (0, None, 0),
        (0, 0, 0),
        (0, 3, 3),
        (0, -1, None),
        (2, None, 2),
        (2, 1, None),
        (-5, None, 0),
        (-5, -5, -5),
    ],
)
async def test_a_key_allows_priorities_from_its_own_on(model: FakeModel, tmp_path, lowest, asked, given):
    key = KeyStore(tmp_path).create("laptop", KeyLimits(min_priority=lowest))
    door = open_front_door(model, home=tmp_path)
    door.engine.script = lambda call: call.feed([5], "length")
    async with door.client(authorization=f"Bearer {key}") as client:
        body = {"model": "tiny", "prompt": "hi", "priority": asked}
        answer = await client.post("/v1/completions", json=body)
    assert [call.priority for call in door.engine.calls] == ([] if given is None else [given])
    if given is None:
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, "priority")
