"""Models from the Hugging Face Hub, kept in the Hub library's own cache.

The library reads HF_ENDPOINT, HF_HUB_OFFLINE, HF_TOKEN and HF_HOME itself. Knows nothing about the
local store. The invariants: a snapshot that this module returns has every file of its model, each
compared with the digest that the Hub publishes; a revision names a new snapshot only when that is so.
"""

import glob
from pathlib import Path

from huggingface_hub import constants, get_cached_repo_tree, snapshot_download
from huggingface_hub.errors import CachedRepoTreeNotFoundError, LocalEntryNotFoundError

from ondol.errors import SourceUnreachable
from ondol.model_manager.catalog import HubSource
from ondol.model_manager.hub.client import (
    HUB_TIMEOUT_S,
    HubClient,
    RemoteFile,
    RemoteModel,
    digest_or_none,
    within,
)
from ondol.model_manager.hub.download import SnapshotDownload, damaged
from ondol.model_manager.hub.errors import translated
from ondol.model_manager.hub.files import missing_files, model_files, refuse_original_llama
from ondol.model_manager.hub.part import PartFile
from ondol.model_manager.hub.retry import MAX_WAIT_S
from ondol.model_manager.progress import Progress, SilentBar
from ondol.model_manager.store import check_space, disk_full_as_error, gigabytes

# For the library's two requests when every file is there.
FINISH_TIMEOUT_S = 60.0


class Hub:
    """One Hub and one cache folder; None leaves both to the library's own settings."""

    def __init__(
        self,
        progress: Progress,
        *,
        endpoint: str | None = None,
        cache: Path | None = None,
        timeout_s: float = HUB_TIMEOUT_S,
        max_wait_s: float = MAX_WAIT_S,
    ) -> None:
        self._progress = progress
        self._cache = cache or Path(constants.HF_HUB_CACHE)
        self.client = HubClient(progress, endpoint=endpoint, timeout_s=timeout_s, max_wait_s=max_wait_s)

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

        What an interrupted pull left is continued. An unreachable Hub is no error while the cache holds
        a complete snapshot.

        Raises:
            SourceUnreachable, AccessDenied, ModelNotFound, ModelRefused, DoesNotFit.
        """
        refuse_original_llama(source.repo)
        present = self.cached(source)
        try:
            model = self.client.model(source, is_worth_waiting=present is None)
            return self._bring(source, model)
        except SourceUnreachable as error:
            if present is None:
                raise
            self._progress.note(f"{error} Using the copy in {present}.")
            return present

    def _bring(self, source: HubSource, model: RemoteModel) -> Path:
        names = model_files(source.repo, model.files)
        download = SnapshotDownload(self.client, model, self._cache, self._progress)
        fresh = [model.files[name] for name in names if not (download.snapshot / name).is_file()]
        own = [file for file in fresh if download.is_downloadable(file)]
        with (
            disk_full_as_error(self._cache),
            translated(source, self.client.endpoint, self.client.timeout_s),
        ):
            if fresh:
                missing_bytes = download.missing_bytes(fresh)
                self._cache.mkdir(parents=True, exist_ok=True)
                check_space(self._cache, missing_bytes)
                self._progress.note(
                    f"Downloading {source.repo}: {len(fresh)} files, {gigabytes(missing_bytes)}."
                )
                download.run(own)
            else:
                self._progress.note(f"{source.repo} is complete in {download.snapshot}.")
            self._let_library_finish(source, names, is_fetching=len(own) < len(fresh))
        for file in fresh:
            if file not in own:
                verify(download.snapshot / file.name, file)
        return download.snapshot

    def _let_library_finish(self, source: HubSource, names: list[str], *, is_fetching: bool) -> None:
        """Have the library write its records of the snapshot, and fetch what only it can."""

        def finish() -> None:
            snapshot_download(
                source.repo,
                revision=source.revision,
                cache_dir=self._cache,
                endpoint=self.client.endpoint,
                etag_timeout=self.client.timeout_s,
                allow_patterns=[glob.escape(name) for name in names],
                tqdm_class=self._progress.bar_class if is_fetching else SilentBar,
            )

        if is_fetching:
            self.client.patiently(finish)
            return
        try:
            # The library itself waits as long as a busy Hub asks it to, be it an hour.
            within(FINISH_TIMEOUT_S, lambda: self.client.patiently(finish))
        except TimeoutError as error:
            raise SourceUnreachable(
                f"The Hub at {self.client.endpoint} is busy: it did not list {source.repo} within "
                f"{FINISH_TIMEOUT_S:.0f} s. Repeat the command; the files have arrived."
            ) from error


def verify(path: Path, file: RemoteFile) -> None:
    """Check a file that the library fetched: it takes any 200 answer for the file.

    Where the Hub's listing tells no digest, its ETag is one; the cache names the blob after it.

    Raises:
        ModelRefused: another content than the Hub publishes; the file is removed from the cache.
    """
    blob = path.resolve()
    expected = RemoteFile(file.name, blob.stat().st_size, file.digest or digest_or_none(blob.name))
    with PartFile(blob, expected) as content:
        is_intact = expected.digest is None or content.is_intact()
    if not is_intact:
        blob.unlink(missing_ok=True)
        path.unlink(missing_ok=True)
        raise damaged(file.name)
