"""Keys at rest: digests only, changes seen at once, nothing lost."""

import json
import stat

import pytest

from ondol.errors import ConfigError, InvalidKeyName, KeyNotFound
from ondol.keys.key_ring import KeyRing
from ondol.keys.key_store import KEY_PREFIX, KEYS_FILE, KeyLimits, KeyStore


@pytest.fixture
def store(tmp_path):
    return KeyStore(tmp_path / "home")


def test_a_new_key_opens_and_is_not_kept_itself(store, tmp_path):
    key = store.create("노트북", KeyLimits(requests_per_minute=60))
    assert key.startswith(KEY_PREFIX)
    assert KeyRing((), store).find(key.encode()) is not None
    file = tmp_path / "home" / KEYS_FILE
    assert key.removeprefix(KEY_PREFIX) not in file.read_text(encoding="utf-8")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_running_daemon_sees_new_and_revoked_keys(store, tmp_path):
    ring = KeyRing((), KeyStore(tmp_path / "home"))
    assert not ring.is_required
    key = store.create("a", KeyLimits()).encode()
    assert ring.is_required
    assert ring.find(key) is not None
    store.revoke("a")
    assert ring.find(key) is None


def test_revoking_the_last_key_does_not_open_the_door(store):
    ring = KeyRing((), store)
    store.create("a", KeyLimits())
    store.revoke("a")
    assert ring.is_required


def test_losing_the_file_does_not_open_the_door(store, tmp_path):
    ring = KeyRing((), store)
    key = store.create("a", KeyLimits())
    assert ring.is_required
    (tmp_path / "home" / KEYS_FILE).unlink()
    assert ring.is_required
    assert ring.find(key.encode()) is None


def test_keys_of_the_settings_open_beside_those_of_the_store(store):
    ring = KeyRing(("첫째", "second"), store)
    assert ring.is_required
    assert ring.find("첫째".encode()) is not None
    assert ring.find(b"third") is None
    assert ring.find(store.create("third", KeyLimits()).encode()) is not None


def test_limits_survive_in_the_file(store, tmp_path):
    limits = KeyLimits(requests_per_minute=1, tokens_per_minute=2, max_concurrency=3)
    store.create("a", limits)
    (key,) = KeyStore(tmp_path / "home").entries()
    assert key.limits == limits


def test_a_name_is_used_once_but_again_after_its_revocation(store):
    store.create("a", KeyLimits())
    with pytest.raises(InvalidKeyName, match="already"):
        store.create("a", KeyLimits())
    store.revoke("a")
    store.create("a", KeyLimits())
    assert [key.revoked is None for key in store.entries()] == [False, True]


@pytest.mark.parametrize("name", ["", " ", "\x1b[31m", "a\nb", "x" * 65, "-"])
def test_names_that_would_confuse_a_terminal_are_refused(store, name):
    with pytest.raises(InvalidKeyName):
        store.create(name, KeyLimits())


def test_revoking_an_unknown_name_tells_the_known_ones(store):
    store.create("laptop", KeyLimits())
    with pytest.raises(KeyNotFound, match="laptop"):
        store.revoke("labtop")


@pytest.mark.parametrize("content", ["", "{", "[]", '{"keys": [{"name": "a"}]}', '{"unknown": 1}'])
def test_a_damaged_file_is_an_error_and_not_an_open_door(store, tmp_path, content):
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / KEYS_FILE).write_text(content, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"keys\.json"):
        store.entries()


def test_two_processes_that_make_keys_lose_none(tmp_path):
    one, other = KeyStore(tmp_path), KeyStore(tmp_path)
    for number in range(5):
        one.create(f"one {number}", KeyLimits())
        other.create(f"other {number}", KeyLimits())
    assert len(json.loads((tmp_path / KEYS_FILE).read_bytes())["keys"]) == 10
