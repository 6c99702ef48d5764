"""A file of which not all bytes have arrived: it outlives the process that was fetching it.

Knows nothing about the network. The invariant: the running digest covers exactly the bytes on disk.
"""

import os
from pathlib import Path
from types import TracebackType

from ondol.model_manager.hub.client import RemoteFile

READ_BYTES = 1 << 20


class PartFile:
    """The beginning of a remote file on this disk; a context manager."""

    def __init__(self, path: Path, remote: RemoteFile) -> None:
        """Open the file, and read what an earlier pull left in it."""
        self.path = path
        self._remote = remote
        self._digest = remote.new_digest()
        self.size_bytes = 0
        self._stream = path.open("a+b")
        self._stream.seek(0)
        while chunk := self._stream.read(READ_BYTES):
            self._count(chunk)

    def __enter__(self) -> "PartFile":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stream.close()

    def append(self, chunk: bytes) -> None:
        """Add bytes at the end."""
        self._stream.write(chunk)
        self._count(chunk)

    def clear(self) -> None:
        """Begin again."""
        self._stream.truncate(0)
        self._digest = self._remote.new_digest()
        self.size_bytes = 0

    def is_intact(self) -> bool:
        """Whether the file is the one that the Hub publishes."""
        return self.size_bytes == self._remote.size_bytes and self._digest.hexdigest() == self._remote.digest

    def sync(self) -> None:
        """Bring the bytes to the disk."""
        self._stream.flush()
        os.fsync(self._stream.fileno())

    def _count(self, chunk: bytes) -> None:
        self._digest.update(chunk)
        self.size_bytes += len(chunk)
