"""Models from the Hugging Face Hub, kept in the Hub library's own cache.

The library reads HF_ENDPOINT, HF_HUB_OFFLINE, HF_TOKEN and HF_HOME itself. Knows nothing about the
local store. The invariants: a snapshot that this module returns has every file of its model, and a
Hub that does not answer is given up after HUB_TIMEOUT_S.
"""

import glob
import hashlib
import json
import queue
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import httpx2
from huggingface_hub import HfApi, constants, get_cached_repo_tree, snapshot_download
from huggingface_hub.errors import CachedRepoTreeNotFoundError, LocalEntryNotFoundError
from huggingface_hub.hf_api import ModelInfo, RepoSibling

from ondol.errors import ModelRefused, SourceUnreachable
from ondol.model_manager.catalog import HubSource
from ondol.model_manager.hub.errors import translate, unreachable
from ondol.model_manager.hub.files import missing_files, model_files
from ondol.model_manager.progress import LineBar, Progress
from ondol.model_manager.store import check_space, disk_full_as_error, gigabytes

HUB_TIMEOUT_S = 5.0

Answer = TypeVar("Answer")


class Hub:
    """One Hub and one cache folder; None leaves both to the library's own settings."""

    def __init__(
        self,
        progress: Progress,
        *,
        endpoint: str | None = None,
        cache: Path | None = None,
        timeout_s: float = HUB_TIMEOUT_S,
    ) -> None:
        self._progress = progress
        self._endpoint = (endpoint or constants.ENDPOINT).rstrip("/")
        self._timeout_s = timeout_s
        self._cache = cache or Path(constants.HF_HUB_CACHE)

    def cached(self, source: HubSource) -> Path | None:
        """The snapshot in the cache, if it is complete; never touches the network."""
        try:
            folder = Path(
                snapshot_download(
                    source.repo,
                    revision=source.revision,
                    cache_dir=self._cache,
                    local_files_only=True,
                    allow_patterns=[],  # completeness is judged below, by the files that a model needs
                )
            )
        except LocalEntryNotFoundError:
            return None
        try:
            tree = get_cached_repo_tree(source.repo, revision=source.revision, cache_dir=self._cache)
            names = model_files(source.repo, (entry.path for entry in tree))
            return folder if all((folder / name).is_file() for name in names) else None
        except CachedRepoTreeNotFoundError:
            return None if missing_files(folder) else folder

    def pull(self, source: HubSource) -> Path:
        """Bring the cache up to what the Hub has; the snapshot's folder.

        An unreachable Hub is no error while the cache holds a complete snapshot.

        Raises:
            SourceUnreachable, AccessDenied, ModelNotFound, ModelRefused, DoesNotFit.
        """
        try:
            info = self._model_info(source)
            return self._download(source, info)
        except SourceUnreachable as error:
            folder = self.cached(source)
            if folder is None:
                raise
            self._progress.note(f"{error} Using the copy in {folder}.")
            return folder

    def _model_info(self, source: HubSource) -> ModelInfo:
        api = HfApi(endpoint=self._endpoint)
        try:
            return within(
                self._timeout_s,
                lambda: api.model_info(
                    source.repo, revision=source.revision, files_metadata=True, timeout=self._timeout_s
                ),
            )
        except json.JSONDecodeError as error:
            reason = "its answer is not the Hub's; is there a login page in between?"
            raise unreachable(self._endpoint, reason) from error
        except (OSError, httpx2.HTTPError, httpx2.InvalidURL) as error:
            raise translate(error, source, self._endpoint, self._timeout_s) from error

    def _download(self, source: HubSource, info: ModelInfo) -> Path:
        siblings = {sibling.rfilename: sibling for sibling in info.siblings or ()}
        names = model_files(source.repo, siblings)
        folder = self._snapshot_folder(source.repo, str(info.sha))
        fresh = [siblings[name] for name in names if not (folder / name).is_file()]
        if not fresh:
            self._progress.note(f"{source.repo} is complete in {folder}.")
        else:
            size_bytes = sum(sibling.size or 0 for sibling in fresh)
            self._cache.mkdir(parents=True, exist_ok=True)
            check_space(self._cache, size_bytes)
            self._progress.note(f"Downloading {source.repo}: {len(fresh)} files, {gigabytes(size_bytes)}.")
        try:
            with disk_full_as_error(self._cache):
                folder = Path(
                    snapshot_download(
                        source.repo,
                        revision=source.revision,
                        cache_dir=self._cache,
                        endpoint=self._endpoint,
                        etag_timeout=self._timeout_s,
                        allow_patterns=[glob.escape(name) for name in names],
                        # None: the library's own bars, which show only on a terminal
                        tqdm_class=LineBar if self._progress.bar_class is LineBar else None,
                    )
                )
        except (OSError, httpx2.HTTPError) as error:
            raise translate(error, source, self._endpoint, self._timeout_s) from error
        for sibling in fresh:
            verify(folder / sibling.rfilename, sibling)
        return folder

    def _snapshot_folder(self, repo: str, commit: str) -> Path:
        return self._cache / f"models--{repo.replace('/', '--')}" / "snapshots" / commit


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


def verify(path: Path, sibling: RepoSibling) -> None:
    """Check a fresh download: the library takes any 200 answer for the file.

    Raises:
        ModelRefused: a wrong sha256 or unreadable JSON; the file is removed from the cache.
    """
    if sibling.lfs is not None:
        with path.open("rb") as file:
            is_intact = hashlib.file_digest(file, "sha256").hexdigest() == sibling.lfs.sha256
    else:
        is_intact = not path.name.endswith(".json") or is_json(path)
    if not is_intact:
        path.resolve().unlink(missing_ok=True)
        path.unlink(missing_ok=True)
        raise ModelRefused(f"The Hub delivered a damaged {path.name}; it was removed. Repeat the command.")


def is_json(path: Path) -> bool:
    """Whether the file parses as JSON."""
    try:
        json.loads(path.read_bytes())
    except ValueError:
        return False
    return True
