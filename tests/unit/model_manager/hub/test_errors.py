import httpx2
import pytest
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled
from huggingface_hub.utils import hf_raise_for_status
from support.fake_hub import REPO, Visitor

from ondol.errors import (
    AccessDenied,
    HubAccessNotGranted,
    HubAccessPending,
    HubTokenInvalid,
    HubTokenLacksScope,
    HubTokenMissing,
    SourceUnreachable,
)
from ondol.model_manager.catalog import HubSource
from ondol.model_manager.hub.errors import refusal, translate

SOURCE = HubSource(repo=REPO)
ENDPOINT = "https://hub.example"


def log_in(fake_hub, token_store, visitor=None):
    token_store.mkdir()
    (token_store / "token").write_text("hf_secret")
    if visitor is not None:
        fake_hub.visitors["hf_secret"] = visitor


def refused(hub):
    with pytest.raises(AccessDenied) as caught:
        hub.pull(SOURCE)
    message = str(caught.value)
    assert "\n" not in message
    assert "hf_secret" not in message
    assert "hf auth" not in message
    return caught.value


def test_a_gated_model_without_a_token_names_the_page_and_the_login(fake_hub, hub):
    fake_hub.is_gated = True
    error = refused(hub)
    assert type(error) is HubTokenMissing
    assert error.page == f"{fake_hub.base_url}/{REPO}"
    assert error.page in str(error)
    assert "`ondol login`" in str(error)


@pytest.mark.parametrize(
    ("access", "error_type", "words"),
    [
        ("not asked", HubAccessNotGranted, "has not asked for access"),
        ("pending", HubAccessPending, "waiting for its authors' answer"),
        ("rejected", AccessDenied, "has been rejected by the repo's authors"),
    ],
)
def test_an_account_without_access_is_told_what_is_missing(
    fake_hub, hub, token_store, access, error_type, words
):
    log_in(fake_hub, token_store, Visitor(access=access))
    fake_hub.is_gated = True
    error = refused(hub)
    assert type(error) is error_type
    assert words in str(error)
    assert error.page == f"{fake_hub.base_url}/{REPO}"
    assert error.page in str(error)


def test_a_fine_grained_token_without_the_gated_scope_names_the_tokens_page(fake_hub, hub, token_store):
    log_in(fake_hub, token_store, Visitor(role="fineGrained", can_read_gated=False, access="no scope"))
    fake_hub.is_gated = True
    error = refused(hub)
    assert type(error) is HubTokenLacksScope
    assert error.page == f"{fake_hub.base_url}/settings/tokens"
    assert "public gated repos" in str(error)


def test_an_unknown_token_is_told_apart_from_a_missing_one(fake_hub, hub, token_store):
    log_in(fake_hub, token_store)
    error = refused(hub)
    assert type(error) is HubTokenInvalid
    assert error.page == f"{fake_hub.base_url}/settings/tokens"


def test_a_private_model_without_a_token_asks_for_a_login(fake_hub, hub):
    fake_hub.failure = (401, "", "Invalid username or password.")
    assert type(refused(hub)) is HubTokenMissing


def test_with_access_a_gated_model_is_pulled(fake_hub, hub, token_store):
    log_in(fake_hub, token_store, Visitor())
    fake_hub.is_gated = True
    assert (hub.pull(SOURCE) / "model.safetensors").is_file()


def answered(status, code="", message="", token="hf_secret"):
    """The library's own exception for an answer of the real Hub, over HTTPS."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    request = httpx2.Request("GET", f"{ENDPOINT}/api/models/{REPO}/revision/main", headers=headers)
    answer = {"X-Error-Code": code, "X-Error-Message": message}
    response = httpx2.Response(status, headers={k: v for k, v in answer.items() if v}, request=request)
    with pytest.raises(HfHubHTTPError) as caught:
        hf_raise_for_status(response)
    return caught.value


@pytest.mark.parametrize(
    ("error", "error_type"),
    [
        (answered(401, message="Invalid credentials in Authorization header"), HubTokenInvalid),
        (answered(401, message="Invalid username or password."), HubTokenInvalid),
        (answered(401, message="Invalid username or password.", token=None), HubTokenMissing),
        (answered(403, "GatedRepo", "Something that the Hub never said before."), AccessDenied),
        (answered(403, "", "Access to this resource is disabled."), AccessDenied),
        (answered(403), AccessDenied),
    ],
)
def test_a_new_wording_leads_to_a_plain_refusal_that_repeats_it(error, error_type):
    mine = refusal(error, SOURCE, ENDPOINT)
    assert type(mine) is error_type
    if error_type is AccessDenied:
        assert error.response.headers.get("X-Error-Message", "403").rstrip(".") in str(mine)


def test_offline_mode_is_named_as_the_reason():
    error = translate(OfflineModeIsEnabled("offline"), SOURCE, ENDPOINT, 5)
    assert type(error) is SourceUnreachable
    assert str(error).startswith("HF_HUB_OFFLINE is set")


@pytest.mark.parametrize(
    ("cause", "words"),
    [
        (
            httpx2.ConnectError("[Errno 111] Connection refused"),
            "reached: [Errno 111] Connection refused. Check",
        ),
        (httpx2.ReadTimeout("slow"), "no answer within 5 s"),
    ],
)
def test_a_connection_that_failed_is_told_in_its_own_words(cause, words):
    given_up = LocalEntryNotFoundError(
        f"Got: {type(cause).__name__}: {cause}\nAn error happened while trying"
    )
    given_up.__cause__ = cause
    error = translate(given_up, SOURCE, ENDPOINT, 5)
    assert type(error) is SourceUnreachable
    assert words in str(error)


def test_what_is_not_the_hubs_is_raised_as_it_is():
    with pytest.raises(FileExistsError):
        translate(FileExistsError("a"), SOURCE, ENDPOINT, 5)
