"""What went wrong at the Hub, in one sentence that says what to do.

Knows nothing about downloading. The invariant: an exception that is not the Hub's or the network's
is not disguised as one.

What the Hub answers to somebody who may not read a repository, as its users' reports record it:
status, X-Error-Code, X-Error-Message.

    no token, gated           401  GatedRepo  "... You must have access to it and be authenticated ..."
    no token, private or none 401  -          "Invalid username or password."
    unknown token             401  -          "Invalid credentials in Authorization header"
    not asked for access      403  GatedRepo  "... you are not in the authorized list. Visit ..."
    asked, not answered yet   403  GatedRepo  "Your request ... is awaiting a review from the repo authors."
    fine-grained, no scope    403  -          "Please enable access to public gated repositories in your
                                               fine-grained token settings to view this repository"

Status and code decide; of the wording only single words are looked for, and a wording that is new
leads to a plain AccessDenied which repeats it.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager

import httpx2
from huggingface_hub.errors import (
    FileMetadataError,
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from ondol.errors import (
    AccessDenied,
    HubAccessNotGranted,
    HubAccessPending,
    HubTokenInvalid,
    HubTokenLacksScope,
    HubTokenMissing,
    ModelNotFound,
    OndolError,
    SourceUnreachable,
)
from ondol.model_manager.catalog import HubSource
from ondol.model_manager.hub.retry import BUSY_STATUSES, asked_wait_s

CONNECTION_ERRORS = (
    httpx2.HTTPError,
    httpx2.InvalidURL,
    LocalEntryNotFoundError,
    FileMetadataError,
    ConnectionError,
)
GATED_SCOPE = "Read access to contents of all public gated repos you can access"
LOGIN_PAGE = "its answer is not the Hub's; is there a login page in between?"


@contextmanager
def translated(source: HubSource, endpoint: str, timeout_s: float) -> Iterator[None]:
    """Turn what the Hub's library raises inside the block into an OndolError."""
    try:
        yield
    except json.JSONDecodeError as error:
        raise unreachable(endpoint, LOGIN_PAGE) from error
    except (OSError, httpx2.HTTPError, httpx2.InvalidURL) as error:
        raise translate(error, source, endpoint, timeout_s) from error


def translate(error: Exception, source: HubSource, endpoint: str, timeout_s: float) -> OndolError:
    """The error of the Hub's library as ours; raises it again if it is about something else."""
    # Where the library gives up on finding a local copy, the cause is the Hub's answer, or the lack of one.
    if isinstance(error, LocalEntryNotFoundError) and isinstance(error.__cause__, httpx2.HTTPError):
        error = error.__cause__
    if isinstance(error, HfHubHTTPError):
        return refusal(error, source, endpoint)
    return no_answer(error, endpoint, timeout_s)


def no_answer(error: Exception, endpoint: str, timeout_s: float) -> SourceUnreachable:
    """What a failed connection means; raises the error again if it is none."""
    if isinstance(error, OfflineModeIsEnabled):
        return SourceUnreachable(
            f"HF_HUB_OFFLINE is set, so the Hub at {endpoint} is not asked. Unset it, or use a model that "
            "`ondol list` shows as ready."
        )
    if isinstance(error, TimeoutError | httpx2.TimeoutException):
        return unreachable(endpoint, f"no answer within {timeout_s:.0f} s")
    if isinstance(error, CONNECTION_ERRORS):
        return unreachable(endpoint, first_line(error))
    raise error


def refusal(error: HfHubHTTPError, source: HubSource, endpoint: str) -> OndolError:
    """What an HTTP status of the Hub means for this repository."""
    status = error.response.status_code
    if isinstance(error, RevisionNotFoundError):
        return ModelNotFound(f"{source.repo}@{source.revision}")
    if status in (401, 403):
        if "authorization" in error.response.request.headers:
            return denied_with_token(error, source.repo, endpoint)
        return denied_without_token(error, source.repo, endpoint)
    if isinstance(error, RepositoryNotFoundError) or status == 404:
        return ModelNotFound(source.repo)
    return unwilling(error, endpoint)


def denied_without_token(error: HfHubHTTPError, repo: str, endpoint: str) -> AccessDenied:
    """A 401 or 403 to a request that carried no token."""
    page = f"{endpoint}/{repo}"
    if isinstance(error, GatedRepoError):
        return HubTokenMissing(
            f"{repo} is gated and no token was sent: open {page}, accept its terms, then run `ondol login` "
            "with a token of that account.",
            page,
        )
    return HubTokenMissing(
        f"The Hub shows no {repo} to somebody without a token: it does not exist or it is private. "
        f"Check {page}, then run `ondol login` if it is private.",
        page,
    )


def denied_with_token(error: HfHubHTTPError, repo: str, endpoint: str) -> AccessDenied:
    """A 401 or 403 to a request that carried a token."""
    page = f"{endpoint}/{repo}"
    words = hub_words(error)
    if error.response.status_code == 401:
        return invalid_token(endpoint)
    if "fine-grained" in words.lower() and "gated" in words.lower():
        return HubTokenLacksScope(
            f"{repo} is gated and your fine-grained token may not read gated repositories: open "
            f"{tokens_page(endpoint)}, allow it '{GATED_SCOPE}', then repeat the command "
            "(`ondol login` if you made a new token).",
            tokens_page(endpoint),
        )
    if isinstance(error, GatedRepoError) and "awaiting" in words:
        return HubAccessPending(
            f"Your request for {repo} is waiting for its authors' answer: {page} shows its state. "
            "Repeat the command when it is granted.",
            page,
        )
    if isinstance(error, GatedRepoError) and "authorized list" in words:
        return HubAccessNotGranted(
            f"{repo} is gated and your account has not asked for access: open {page} with the account that "
            "`ondol whoami` names, accept its terms, then repeat the command.",
            page,
        )
    return AccessDenied(
        f"The Hub refuses {repo} to your token: {words.rstrip('.')}. Check {page}, then run `ondol login` "
        "with a token that may read it.",
        page,
    )


def invalid_token(endpoint: str) -> HubTokenInvalid:
    """The Hub answers 401 to a request that carries a token."""
    return HubTokenInvalid(
        "The Hub does not accept your token: it is mistyped, expired or revoked. Make one on "
        f"{tokens_page(endpoint)}, then run `ondol login` (or correct HF_TOKEN, if it is set).",
        tokens_page(endpoint),
    )


def tokens_page(endpoint: str) -> str:
    """Where tokens are made and their permissions set."""
    return f"{endpoint}/settings/tokens"


def unwilling(error: HfHubHTTPError, endpoint: str) -> SourceUnreachable:
    """The Hub answered, but with neither the thing nor a refusal."""
    status = error.response.status_code
    if status not in BUSY_STATUSES:
        return unreachable(endpoint, f"it answered with the HTTP status {status}")
    wait_s = asked_wait_s(error.response)
    wish = "" if wait_s is None else f" and asks to wait {wait_s:.0f} s"
    return SourceUnreachable(
        f"The Hub at {endpoint} is busy: it answered with the HTTP status {status}{wish}. "
        "Repeat the command later; what has arrived is kept."
    )


def unreachable(endpoint: str, reason: str) -> SourceUnreachable:
    """The Hub did not do its part."""
    return SourceUnreachable(
        f"The Hub at {endpoint} cannot be reached: {reason.rstrip('.')}. Check the network, set HF_ENDPOINT "
        "to a mirror, or serve a model folder; `ondol serve starter` needs only a Python package index."
    )


def hub_words(error: HfHubHTTPError) -> str:
    """The Hub's own sentence on one line, or the status where there is none."""
    words = error.response.headers.get("X-Error-Message") or error.server_message
    return " ".join((words or f"HTTP status {error.response.status_code}").split())


def first_line(error: Exception) -> str:
    """An exception's text without its later lines."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
