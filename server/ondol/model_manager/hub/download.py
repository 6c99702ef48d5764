"""Brings files of a model into the Hub library's cache, and goes on where a killed pull stopped.

The library's own download begins anew after a kill and takes whatever bytes arrive. Knows nothing
about which files make a model. The invariants: a blob bears its final name only after its digest was
compared with the Hub's, and is on the disk by then; a snapshot links to such blobs alone.
Layout: https://huggingface.co/docs/huggingface_hub/guides/manage-cache
"""

import os
import queue
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import httpx2
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.utils import WeakFileLock

from ondol.errors import ModelRefused, SourceUnreachable
from ondol.model_manager.hub.client import HubClient, RemoteFile, RemoteModel, starts_at
from ondol.model_manager.hub.part import PartFile
from ondol.model_manager.progress import Progress, Transfer
from ondol.model_manager.store import sync_entry

CHUNK_BYTES = 1 << 20
NUM_CONNECTIONS = 4
MAX_STALLED_ATTEMPTS = 5
ATTEMPT_INTERVAL_S = 1.0
# The Hub serves larger files through Xet only, which the library speaks.
MAX_HTTP_FILE_BYTES = 50_000_000_000
BROKEN_OFF = (httpx2.TimeoutException, httpx2.NetworkError, httpx2.RemoteProtocolError)

Files = queue.SimpleQueue[RemoteFile]
Outcomes = queue.SimpleQueue[BaseException | None]


class SnapshotDownload:
    """The missing files of one commit of one repository."""

    def __init__(self, client: HubClient, model: RemoteModel, cache: Path, progress: Progress) -> None:
        self._client = client
        self._model = model
        self._progress = progress
        folder_name = f"models--{model.repo.replace('/', '--')}"
        self.snapshot = cache / folder_name / "snapshots" / model.commit
        self._blobs = cache / folder_name / "blobs"
        self._locks = cache / ".locks" / folder_name
        self._stopped = threading.Event()

    def is_downloadable(self, file: RemoteFile) -> bool:
        """Whether this class can fetch the file: the Hub tells its digest and serves it over HTTP."""
        return (
            file.digest is not None and file.size_bytes is not None and file.size_bytes <= MAX_HTTP_FILE_BYTES
        )

    def missing_bytes(self, files: Iterable[RemoteFile]) -> int:
        """How much still has to arrive, less what earlier pulls left behind."""
        return sum((file.size_bytes or 0) - self._present_bytes(file) for file in files)

    def run(self, files: list[RemoteFile]) -> None:
        """Fetch and link the files, several side by side; an interrupt ends it within a chunk.

        Raises:
            ModelRefused: a file is not the one that the Hub publishes; it was removed.
            SourceUnreachable, HfHubHTTPError, httpx2.HTTPError, OSError.
        """
        for folder in (self._blobs, self._locks, self.snapshot):
            folder.mkdir(parents=True, exist_ok=True)
        total_bytes = sum(file.size_bytes or 0 for file in files)
        done_bytes = sum(self._present_bytes(file) for file in files)
        # The large ones first: what is small fills the gaps at the end.
        todo: Files = queue.SimpleQueue()
        for file in sorted(files, key=lambda file: -(file.size_bytes or 0)):
            todo.put(file)
        outcomes: Outcomes = queue.SimpleQueue()
        with self._progress.transfer(self._model.repo, total_bytes, done_bytes) as transfer:
            for _ in range(min(NUM_CONNECTIONS, len(files))):
                # A daemon, so that Ctrl-C does not wait for a connection that stands still.
                threading.Thread(
                    target=self._work, args=(todo, outcomes, transfer), name="hub-download", daemon=True
                ).start()
            try:
                for _ in files:
                    error = outcomes.get()
                    if error is not None:
                        raise error
            finally:
                self._stopped.set()

    def _work(self, todo: Files, outcomes: Outcomes, transfer: Transfer) -> None:
        """One thread: bring files until none is left or one failed."""
        try:
            while not self._stopped.is_set():
                self._bring(todo.get_nowait(), transfer)
                outcomes.put(None)
        except queue.Empty:
            return
        except BaseException as error:  # noqa: BLE001 - raised again in the caller's thread
            outcomes.put(error)

    def _bring(self, file: RemoteFile, transfer: Transfer) -> None:
        blob = self._blobs / str(file.digest)
        with WeakFileLock(self._locks / f"{file.digest}.lock"):
            if not blob.is_file():
                self._fetch(file, blob, transfer)
        link(blob, self.snapshot / file.name)

    def _fetch(self, file: RemoteFile, blob: Path, transfer: Transfer) -> None:
        size_bytes = file.size_bytes or 0
        with PartFile(self._part_path(file), file) as part:
            if part.size_bytes > size_bytes:
                part.clear()
            with transfer.file(file.name, size_bytes, part.size_bytes) as advance:
                self._fill(part, file, advance)
                if not part.is_intact():
                    raise self._damaged(part, file)
            part.sync()
        part.path.replace(blob)
        sync_entry(self._blobs)

    def _fill(self, part: PartFile, file: RemoteFile, advance: Callable[[int], None]) -> None:
        """Receive until the part has the file's size; a connection that breaks off is opened again."""
        num_stalled = 0
        while part.size_bytes < (file.size_bytes or 0):
            before_bytes = part.size_bytes
            reason: Exception | None = None
            try:
                self._client.patiently(lambda: self._receive(part, file, advance))
            except BROKEN_OFF as error:
                reason = error
            except HfHubHTTPError as error:
                if error.response.status_code != 416:
                    raise
                raise self._damaged(part, file) from error  # what the server has is shorter than published
            num_stalled = num_stalled + 1 if part.size_bytes <= before_bytes else 0
            if num_stalled > MAX_STALLED_ATTEMPTS:
                raise SourceUnreachable(
                    f"The connection for {file.name} broke off {num_stalled} times in a row. Repeat the "
                    "command: it goes on where this one stopped."
                ) from reason
            if reason is not None:
                time.sleep(ATTEMPT_INTERVAL_S)

    def _receive(self, part: PartFile, file: RemoteFile, advance: Callable[[int], None]) -> None:
        """One request for what is missing."""
        with self._client.stream(self._model, file.name, part.size_bytes) as response:
            if not starts_at(response, part.size_bytes):
                advance(-part.size_bytes)
                part.clear()
            for chunk in response.iter_bytes(CHUNK_BYTES):
                if self._stopped.is_set():
                    raise InterruptedError("another file of this pull failed")
                if part.size_bytes + len(chunk) > (file.size_bytes or 0):
                    raise self._damaged(part, file)
                part.append(chunk)
                advance(len(chunk))

    def _damaged(self, part: PartFile, file: RemoteFile) -> ModelRefused:
        part.path.unlink()
        return damaged(file.name)

    def _present_bytes(self, file: RemoteFile) -> int:
        if file.digest is None:
            return 0
        if (self._blobs / file.digest).is_file():
            return file.size_bytes or 0
        part = self._part_path(file)
        return min(part.stat().st_size, file.size_bytes or 0) if part.is_file() else 0

    def _part_path(self, file: RemoteFile) -> Path:
        # Not the library's name: its older versions leave parts with holes under that.
        return self._blobs / f"{file.digest}.ondol.incomplete"


def link(blob: Path, path: Path) -> None:
    """Make the blob a file of a snapshot, as the library does: by a relative symbolic link."""
    path.parent.mkdir(parents=True, exist_ok=True)
    target = os.path.relpath(blob, path.parent)
    try:
        path.symlink_to(target)
    except FileExistsError:  # another pull was faster
        return
    except OSError:  # a file system without links: the snapshot holds the file itself
        blob.replace(path)


def damaged(name: str) -> ModelRefused:
    """The error for a file whose content is not what the Hub publishes; it was removed by then."""
    return ModelRefused(f"The Hub delivered a damaged {name}; it was removed. Repeat the command.")
