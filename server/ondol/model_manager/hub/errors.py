"""What went wrong at the Hub, in one sentence that says what to do.

Knows nothing about downloading. The invariant: an exception that is not the Hub's or the network's
is not disguised as one.
"""

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

from ondol.errors import AccessDenied, ModelNotFound, OndolError, SourceUnreachable
from ondol.model_manager.catalog import HubSource

CONNECTION_ERRORS = (
    httpx2.HTTPError,
    httpx2.InvalidURL,
    LocalEntryNotFoundError,
    FileMetadataError,
    ConnectionError,
)


def translate(error: Exception, source: HubSource, endpoint: str, timeout_s: float) -> OndolError:
    """The error of the Hub's library as ours; raises it again if it is about something else."""
    if isinstance(error, HfHubHTTPError):
        return refusal(error, source, endpoint)
    if isinstance(error, OfflineModeIsEnabled):
        return unreachable(endpoint, "HF_HUB_OFFLINE is set")
    if isinstance(error, TimeoutError | httpx2.TimeoutException):
        return unreachable(endpoint, f"no answer within {timeout_s:.0f} s")
    if isinstance(error, CONNECTION_ERRORS):
        return unreachable(endpoint, first_line(error))
    raise error


def refusal(error: HfHubHTTPError, source: HubSource, endpoint: str) -> OndolError:
    """What an HTTP status of the Hub means for this repository."""
    page = f"{endpoint}/{source.repo}"
    status = error.response.status_code
    if isinstance(error, GatedRepoError):
        return AccessDenied(
            f"{source.repo} is gated: open {page}, accept its terms, then run `hf auth login` with a token "
            "that may read gated repositories."
        )
    if isinstance(error, RevisionNotFoundError):
        return ModelNotFound(f"{source.repo}@{source.revision}")
    if status in (401, 403):
        return AccessDenied(
            f"The Hub does not show {source.repo} to you: it does not exist, or is private, or your token "
            f"may not read it. Check {page}, then run `hf auth login`."
        )
    if isinstance(error, RepositoryNotFoundError) or status == 404:
        return ModelNotFound(source.repo)
    return unreachable(endpoint, f"it answered with the HTTP status {status}")


def unreachable(endpoint: str, reason: str) -> SourceUnreachable:
    """The Hub did not do its part."""
    return SourceUnreachable(
        f"The Hub at {endpoint} cannot be reached: {reason.rstrip('.')}. Check the network, set HF_ENDPOINT "
        "to a mirror, or serve a model folder; `ondol serve starter` needs only a Python package index."
    )


def first_line(error: Exception) -> str:
    """An exception's text without its later lines."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
