"""`ondol key`: a key is printed once; lists never show it."""

import json

import pytest

from ondol.cli.main import run
from ondol.keys.key_ring import KeyRing
from ondol.keys.key_store import KeyStore


@pytest.fixture
def ondol(tmp_path, capsys):
    def call(*arguments):
        code = run(["key", *arguments, "--home", str(tmp_path)])
        return code, capsys.readouterr()

    return call


def test_a_new_key_is_all_that_stdout_carries(ondol, tmp_path):
    code, output = ondol("create", "노트북")
    assert code == 0
    assert KeyRing((), KeyStore(tmp_path)).find(output.out.strip().encode()) is not None
    assert "digest" in output.err


def test_the_list_shows_limits_and_no_key(ondol):
    _, created = ondol("create", "laptop", "--requests-per-minute", "60", "--min-priority", "0")
    ondol("create", "old")
    ondol("revoke", "old")
    code, output = ondol("list")
    assert code == 0
    laptop, old = output.out.splitlines()[1:]
    assert laptop.split()[0] == "laptop"
    assert laptop.split()[2:] == ["60", "-", "-", "0", "valid"]
    assert "revoked" in old
    assert created.out.strip() not in output.out


def test_json_tells_the_same(ondol):
    created = json.loads(ondol("create", "laptop", "--tokens-per-minute", "5", "--json")[1].out)
    assert created["limits"] == {"tokens_per_minute": 5}
    (listed,) = json.loads(ondol("list", "--json")[1].out)
    assert (listed["name"], listed["revoked"]) == ("laptop", None)
    assert created["key"] not in json.dumps(listed)


def test_the_last_revocation_says_that_a_key_is_still_needed(ondol):
    ondol("create", "laptop")
    code, output = ondol("revoke", "laptop")
    assert code == 0
    assert "still asks for one" in output.err


@pytest.mark.parametrize(("arguments", "code"), [(("revoke", "nobody"), 3), (("create", "\x1b"), 2)])
def test_wrong_names_have_their_exit_codes(ondol, arguments, code):
    assert ondol(*arguments)[0] == code
