"""One Hub: which files a model has there, and the bytes of each.

The library reads HF_ENDPOINT, HF_HUB_OFFLINE and HF_TOKEN itself. Knows nothing about caches. The
invariants: a Hub that does not answer is given up after HUB_TIMEOUT_S, one that is busy after
MAX_WAIT_S; the token goes to the Hub's own address and nowhere else.
"""

import hashlib
import queue
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import httpx2
from huggingface_hub import HfApi, constants, hf_hub_url
from huggingface_hub.hf_api import RepoSibling
from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status

from ondol import __version__
from ondol.model_manager.catalog import HubSource
from ondol.model_manager.hub.errors import LOGIN_PAGE, translated, unreachable
from ondol.model_manager.hub.retry import MAX_WAIT_S, with_patience
from ondol.model_manager.progress import Progress

HUB_TIMEOUT_S = 5.0
TRANSFER_TIMEOUT_S = 30.0
HEX_DIGEST = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")

Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """What the Hub publishes of one file.

    Attributes:
        digest: in hexadecimal: sha256 of the content for a file in large storage, else git's sha1 of
            the blob; None if the Hub does not tell. The Hub library names the cached blob after it.
    """

    name: str
    size_bytes: int | None
    digest: str | None

    def new_digest(self) -> "hashlib._Hash":
        """A running hash that ends in `digest` when it was fed the file."""
        if self.digest is not None and len(self.digest) == 64:
            return hashlib.sha256()
        return hashlib.sha1(b"blob %d\0" % (self.size_bytes or 0), usedforsecurity=False)


@dataclass(frozen=True, slots=True)
class RemoteModel:
    """A repository at one commit, known without its files."""

    repo: str
    commit: str
    files: dict[str, RemoteFile]


class HubClient:
    """Requests to one Hub; None for the endpoint leaves it to the library's own settings."""

    def __init__(
        self,
        progress: Progress,
        *,
        endpoint: str | None = None,
        timeout_s: float = HUB_TIMEOUT_S,
        max_wait_s: float = MAX_WAIT_S,
    ) -> None:
        self.endpoint = (endpoint or constants.ENDPOINT).rstrip("/")
        self.timeout_s = timeout_s
        self._max_wait_s = max_wait_s
        self._progress = progress

    def model(self, source: HubSource, *, is_worth_waiting: bool = True) -> RemoteModel:
        """The files of a model; `is_worth_waiting` False takes a busy Hub for an unreachable one.

        Raises:
            SourceUnreachable, AccessDenied, ModelNotFound.
        """
        api = HfApi(endpoint=self.endpoint, library_name="ondol", library_version=__version__)
        with translated(source, self.endpoint, self.timeout_s):
            info = with_patience(
                lambda: within(
                    self.timeout_s,
                    lambda: api.model_info(
                        source.repo, revision=source.revision, files_metadata=True, timeout=self.timeout_s
                    ),
                ),
                self._max_wait_s if is_worth_waiting else 0.0,
                self._tell_wait,
            )
        files = {sibling.rfilename: remote_file(sibling) for sibling in info.siblings or ()}
        return RemoteModel(repo=source.repo, commit=str(info.sha), files=files)

    def patiently(self, call: Callable[[], Answer]) -> Answer:
        """The result of a call that raises the library's errors; waits for a Hub that is busy."""
        return with_patience(call, self._max_wait_s, self._tell_wait)

    @contextmanager
    def stream(
        self, model: RemoteModel, name: str, start: int = 0, stop: int | None = None
    ) -> Iterator[httpx2.Response]:
        """The answer to a request for a file's bytes from `start` to before `stop` (default: its end).

        The Hub may redirect to another host; httpx2 sends the token to none but the first. A server
        without ranges answers 200 with the whole file.

        Raises:
            HfHubHTTPError, httpx2.HTTPError: as the library does.
            SourceUnreachable: a page for people came instead of the file.
        """
        url = hf_hub_url(model.repo, name, revision=model.commit, endpoint=self.endpoint)
        headers: dict[str, Any] = build_hf_headers(library_name="ondol", library_version=__version__)
        headers["Accept-Encoding"] = "identity"  # ranges count the bytes of the file, not of an encoding
        if start or stop is not None:
            headers["Range"] = f"bytes={start}-{'' if stop is None else stop - 1}"
        with get_session().stream("GET", url, headers=headers, timeout=TRANSFER_TIMEOUT_S) as response:
            hf_raise_for_status(response)
            if response.headers.get("Content-Type", "").startswith("text/html"):
                raise unreachable(self.endpoint, LOGIN_PAGE)
            yield response

    def _tell_wait(self, status: int, wait_s: float) -> None:
        self._progress.note(f"The Hub is busy (HTTP status {status}); asking again in {wait_s:.0f} s.")


def remote_file(sibling: RepoSibling) -> RemoteFile:
    """The library's record of a file as ours.

    The Hub blanks the sha256 of files that the asker may not read, so what is no digest is dropped.
    """
    if sibling.lfs is not None:
        return RemoteFile(sibling.rfilename, sibling.lfs.size, digest_or_none(sibling.lfs.sha256))
    return RemoteFile(sibling.rfilename, sibling.size, digest_or_none(sibling.blob_id))


def digest_or_none(text: str | None) -> str | None:
    """The text, if it is a sha1 or sha256 in hexadecimal."""
    return text if text is not None and HEX_DIGEST.fullmatch(text) else None


def starts_at(response: httpx2.Response, start: int) -> bool:
    """Whether the answer's first byte is this one of the file."""
    if response.status_code != 206:
        return start == 0
    return bool(response.headers.get("Content-Range", "").startswith(f"bytes {start}-"))


def within(timeout_s: float, call: Callable[[], Answer]) -> Answer:
    """The call's result, or TimeoutError; bounds what no HTTP timeout bounds, such as name resolution.

    The thread is a daemon, so that a call that never returns does not keep the process alive.
    """
    outcome: queue.SimpleQueue[tuple[Answer | None, BaseException | None]] = queue.SimpleQueue()

    def run() -> None:
        try:
            outcome.put((call(), None))
        except BaseException as error:  # noqa: BLE001 - raised again in the caller's thread
            outcome.put((None, error))

    threading.Thread(target=run, name="hub-request", daemon=True).start()
    try:
        answer, error = outcome.get(timeout=timeout_s)
    except queue.Empty:
        raise TimeoutError from None
    if error is not None:
        raise error
    return answer  # type: ignore[return-value]  # no error, so an answer
