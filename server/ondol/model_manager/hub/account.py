"""Who the Hub takes this machine for: the token, where it comes from, and what it may read.

Tokens are kept in the Hub library's own store, so that `hf` and transformers know them too. Knows
nothing about models. The invariant: no token leaves this module, neither in a result nor in a message.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import httpx2
import huggingface_hub
from huggingface_hub import HfApi, constants, get_token
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.utils import logging as library_logging

from ondol.errors import AccessDenied, HubTokenInvalid, HubTokenMissing, OndolError
from ondol.model_manager.hub.client import HUB_TIMEOUT_S, within
from ondol.model_manager.hub.errors import (
    LOGIN_PAGE,
    hub_words,
    invalid_token,
    no_answer,
    tokens_page,
    unreachable,
    unwilling,
)

FINE_GRAINED = "fineGrained"
ORGANIZATION_TOKEN_PREFIX = "api_org"

Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class Account:
    """The owner of a token.

    Attributes:
        token_kind: "read", "write" or "fine-grained"; "unknown" for one that the Hub does not describe,
            such as a browser login's.
        can_read_gated: whether the token may read the gated repositories that its owner has access to;
            None where the Hub does not tell.
        token_source: "HF_TOKEN" or "store".
    """

    name: str
    token_name: str
    token_kind: str
    can_read_gated: bool | None
    token_source: str
    endpoint: str


def login(token: str, *, timeout_s: float = HUB_TIMEOUT_S) -> Account:
    """Have the Hub confirm a token, and keep it in the library's store.

    Raises:
        HubTokenInvalid, AccessDenied, SourceUnreachable: the Hub did not confirm it.
    """
    if token.startswith(ORGANIZATION_TOKEN_PREFIX):
        raise HubTokenInvalid(
            f"This is an organization's token; log in with your own from {endpoint_tokens_page()}.",
            endpoint_tokens_page(),
        )
    account = describe(_ask(lambda: HfApi().whoami(token=token), timeout_s), "store")
    with _quiet_library():
        _ask(lambda: huggingface_hub.login(token=token), timeout_s)
    return account


def logout() -> bool:
    """Remove every token from the library's store; whether there was one."""
    stored = [Path(constants.HF_TOKEN_PATH), Path(constants.HF_STORED_TOKENS_PATH)]
    had_token = any(path.is_file() for path in stored)
    for path in stored:
        path.unlink(missing_ok=True)
    return had_token


def whoami(*, timeout_s: float = HUB_TIMEOUT_S) -> Account:
    """The owner of the token that requests carry now.

    Raises:
        HubTokenMissing: there is none.
        HubTokenInvalid, AccessDenied, SourceUnreachable.
    """
    token = get_token()
    if token is None:
        raise HubTokenMissing(
            f"There is no Hub token on this machine. Make one on {endpoint_tokens_page()}, "
            "then run `ondol login`.",
            endpoint_tokens_page(),
        )
    source = "HF_TOKEN" if is_overridden() else "store"
    return describe(_ask(lambda: HfApi().whoami(token=token), timeout_s), source)


def is_overridden() -> bool:
    """Whether requests carry another token than the stored one: HF_TOKEN wins over the store."""
    path = Path(constants.HF_TOKEN_PATH)
    stored = path.read_text(encoding="utf-8").strip() if path.is_file() else None
    return get_token() not in (None, stored)


def describe(answer: dict[str, Any], source: str) -> Account:
    """The Hub's answer to whoami-v2 as an account."""
    token = (answer.get("auth") or {}).get("accessToken") or {}
    role = token.get("role")
    can_read_gated = True if role in ("read", "write") else None
    if role == FINE_GRAINED:
        can_read_gated = (token.get("fineGrained") or {}).get("canReadGatedRepos")
    return Account(
        name=str(answer.get("name", "?")),
        token_name=str(token.get("displayName") or "-"),
        token_kind="fine-grained" if role == FINE_GRAINED else str(role or "unknown"),
        can_read_gated=can_read_gated,
        token_source=source,
        endpoint=constants.ENDPOINT,
    )


def endpoint_tokens_page() -> str:
    """Where the Hub in use lets its users make tokens."""
    return tokens_page(constants.ENDPOINT)


@contextmanager
def _quiet_library() -> Iterator[None]:
    """Without the library's own advice, which names its own commands."""
    verbosity = library_logging.get_verbosity()
    library_logging.set_verbosity_error()
    try:
        yield
    finally:
        library_logging.set_verbosity(verbosity)


def _ask(call: Callable[[], Answer], timeout_s: float) -> Answer:
    try:
        return within(timeout_s, call)
    except HfHubHTTPError as error:
        raise _refusal(error) from error
    except json.JSONDecodeError as error:
        raise unreachable(constants.ENDPOINT, LOGIN_PAGE) from error
    except (OSError, httpx2.HTTPError, httpx2.InvalidURL) as error:
        raise no_answer(error, constants.ENDPOINT, timeout_s) from error


def _refusal(error: HfHubHTTPError) -> OndolError:
    status = error.response.status_code
    if status == 401:
        return invalid_token(constants.ENDPOINT)
    if status == 403:
        return AccessDenied(
            f"The Hub refuses to tell whose token this is: {hub_words(error)}.", endpoint_tokens_page()
        )
    return unwilling(error, constants.ENDPOINT)
