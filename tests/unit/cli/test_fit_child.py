"""What the daemon hears of a fit that failed: the error of the command line, whole."""

import msgspec
import pytest
from support.fake_hub import REPO, Visitor

from ondol.cli.fit_child import main
from ondol.errors import (
    AccessDenied,
    HubAccessNotGranted,
    HubAccessPending,
    HubTokenInvalid,
    HubTokenLacksScope,
    HubTokenMissing,
    ModelNotFound,
    SourceUnreachable,
)
from ondol.model_manager.sent_error import SentError

# The token that is sent, what the Hub knows of it, and what becomes of that.
REFUSALS = {
    "no token": (None, None, HubTokenMissing),
    "unknown token": ("hf_wrong", None, HubTokenInvalid),
    "not asked": ("hf_hana", Visitor(access="not asked"), HubAccessNotGranted),
    "pending": ("hf_hana", Visitor(access="pending"), HubAccessPending),
    "rejected": ("hf_hana", Visitor(access="rejected"), AccessDenied),
    "no scope": ("hf_hana", Visitor(role="fineGrained", access="no scope"), HubTokenLacksScope),
}


@pytest.fixture
def failure(tmp_path, capsys):
    """Fit a model that cannot be had; its exit code and the error that a program reads."""

    def fit(model):
        exit_code = main(["--home", str(tmp_path / "home"), "--device", "cpu", "--", model])
        captured = capsys.readouterr()
        assert captured.out == ""
        return exit_code, msgspec.json.decode(captured.err.splitlines()[-1], type=SentError).rebuilt()

    return fit


@pytest.mark.parametrize("case", REFUSALS)
def test_each_refusal_of_the_hub_keeps_its_class_and_its_page(failure, fake_hub, monkeypatch, case):
    token, visitor, kind = REFUSALS[case]
    fake_hub.is_gated = True
    if visitor is not None:
        fake_hub.visitors[token] = visitor
    if token is not None:
        monkeypatch.setenv("HF_TOKEN", token)
    exit_code, error = failure(REPO)
    assert type(error) is kind
    assert exit_code == 4
    assert error.page.startswith(fake_hub.base_url)
    assert error.page in str(error)


def test_a_model_that_nobody_has_carries_the_names_that_are_close(failure):
    exit_code, error = failure("llama-2-7b-chta")
    assert type(error) is ModelNotFound
    assert exit_code == 3
    assert "llama-2-7b-chat" in error.close


def test_a_login_page_in_between_is_told_from_the_hub(failure, fake_hub):
    fake_hub.failure = "html"
    exit_code, error = failure(REPO)
    assert type(error) is SourceUnreachable
    assert "login page" in str(error)
    assert exit_code == 10
