import stat
from dataclasses import asdict

import pytest
from huggingface_hub import constants, get_token, hf_api
from support.fake_hub import Busy, Visitor

from ondol.errors import AccessDenied, HubTokenInvalid, HubTokenMissing, SourceUnreachable
from ondol.model_manager.hub import account

TOKEN = "hf_secret"


@pytest.fixture
def hub_in_use(fake_hub, monkeypatch):
    """The fake Hub in place of the real one, as HF_ENDPOINT does it in a new process."""
    monkeypatch.setattr(constants, "ENDPOINT", fake_hub.base_url)
    monkeypatch.setattr(hf_api.api, "endpoint", fake_hub.base_url)
    fake_hub.visitors[TOKEN] = Visitor()
    return fake_hub


def test_a_login_is_confirmed_by_the_hub_and_kept_in_the_librarys_store(hub_in_use, token_store):
    owner = account.login(TOKEN)
    assert (owner.name, owner.token_name, owner.token_kind) == ("hana", "laptop", "read")
    assert owner.endpoint == hub_in_use.base_url
    assert get_token() == TOKEN
    assert stat.S_IMODE((token_store / "token").stat().st_mode) == 0o600


def test_a_token_that_the_hub_does_not_know_is_not_stored(hub_in_use, token_store):
    with pytest.raises(HubTokenInvalid) as caught:
        account.login("hf_mistyped")
    assert caught.value.page == f"{hub_in_use.base_url}/settings/tokens"
    assert "hf_mistyped" not in str(caught.value)
    assert not token_store.exists()


def test_an_organizations_token_is_refused_before_it_is_sent(hub_in_use):
    with pytest.raises(HubTokenInvalid, match="organization"):
        account.login("api_org_secret")
    assert hub_in_use.requests == []


@pytest.mark.parametrize(
    ("visitor", "kind", "can_read_gated"),
    [
        (Visitor(role="read"), "read", True),
        (Visitor(role="write"), "write", True),
        (Visitor(role="fineGrained", can_read_gated=True), "fine-grained", True),
        (Visitor(role="fineGrained", can_read_gated=False), "fine-grained", False),
        (Visitor(role="fineGrained", can_read_gated=None), "fine-grained", None),
    ],
)
def test_whoami_tells_what_the_token_may_read_and_never_the_token(hub_in_use, visitor, kind, can_read_gated):
    hub_in_use.visitors[TOKEN] = visitor
    account.login(TOKEN)
    owner = account.whoami()
    assert (owner.token_kind, owner.can_read_gated, owner.token_source) == (kind, can_read_gated, "store")
    assert TOKEN not in str(asdict(owner))


def test_an_account_without_a_token_description_is_still_an_account():
    owner = account.describe({"name": "hana"}, "store")
    assert (owner.token_kind, owner.token_name, owner.can_read_gated) == ("unknown", "-", None)


def test_a_token_in_the_environment_wins_over_the_stored_one(hub_in_use, monkeypatch):
    account.login(TOKEN)
    assert not account.is_overridden()
    hub_in_use.visitors["hf_other"] = Visitor(name="minsu")
    monkeypatch.setenv("HF_TOKEN", "hf_other")
    owner = account.whoami()
    assert (owner.name, owner.token_source) == ("minsu", "HF_TOKEN")


def test_without_a_token_whoami_names_the_login(hub_in_use):
    with pytest.raises(HubTokenMissing, match="`ondol login`"):
        account.whoami()
    assert hub_in_use.requests == []


def test_a_logout_removes_every_stored_token(hub_in_use, token_store):
    account.login(TOKEN)
    assert account.logout()
    assert list(token_store.iterdir()) == []
    assert get_token() is None
    assert not account.logout()


@pytest.mark.parametrize(
    ("failure", "error", "words"),
    [
        ("html", SourceUnreachable, "login page"),
        ((403, "", "Not for you."), AccessDenied, "Not for you"),
        ((500, ""), SourceUnreachable, "500"),
    ],
)
def test_a_hub_that_does_not_answer_as_one_is_named(hub_in_use, failure, error, words):
    hub_in_use.failure = failure
    with pytest.raises(error, match=words):
        account.login(TOKEN)


def test_a_hub_that_never_answers_is_given_up(hub_in_use):
    hub_in_use.failure = "silent"
    with pytest.raises(SourceUnreachable, match="no answer within"):
        account.login(TOKEN, timeout_s=0.2)


def test_a_rate_limit_is_named_with_the_wait(hub_in_use):
    hub_in_use.busy = [Busy(429, {"Retry-After": "300"})]
    with pytest.raises(SourceUnreachable, match="429 and asks to wait 300 s"):
        account.login(TOKEN)


def test_offline_mode_is_named(hub_in_use, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(SourceUnreachable, match="HF_HUB_OFFLINE is set"):
        account.login(TOKEN)
