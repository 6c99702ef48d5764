"""An engine process and the API process's end of its socketpair.

Lives in one asyncio event loop. Knows nothing about what the messages mean. Invariant: after `close` the
process is gone, whatever it was doing.
"""

import asyncio
import signal
import socket
import sys

import msgspec

from ondol.engine.messages import LENGTH_PREFIX, FromEngine, ToEngine, encode
from ondol.errors import EngineFailed

STOP_TIMEOUT_S = 2.0


class EngineConnection:
    """One engine process; use `spawn`."""

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self._process = process
        self._reader = reader
        self._writer = writer
        self._decoder = msgspec.msgpack.Decoder(FromEngine)

    @classmethod
    async def spawn(cls) -> "EngineConnection":
        """Start an engine process; it waits for its configuration."""
        ours, theirs = socket.socketpair()
        with theirs:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "ondol.engine.process",
                str(theirs.fileno()),
                pass_fds=(theirs.fileno(),),
                stdin=asyncio.subprocess.DEVNULL,
                # A session of its own: a terminal's Ctrl-C goes to the API process alone, which drains.
                start_new_session=True,
            )
        reader, writer = await asyncio.open_connection(sock=ours)
        return cls(process, reader, writer)

    @property
    def process_id(self) -> int:
        """The process's id."""
        return self._process.pid

    def send(self, message: ToEngine) -> None:
        """Send one message; a process that is gone does not hear it."""
        # Not awaited: the engine's reader thread always reads, so the buffer stays short.
        self._writer.write(encode(message))

    async def read(self) -> FromEngine:
        """The next message.

        Raises:
            EngineFailed: the process died; says how.
        """
        try:
            prefix = await self._reader.readexactly(LENGTH_PREFIX.size)
            (length,) = LENGTH_PREFIX.unpack(prefix)
            body = await self._reader.readexactly(length)
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            raise EngineFailed(await self._describe_death()) from error
        return self._decoder.decode(body)  # type: ignore[no-any-return]

    async def close(self) -> None:
        """End the process: it leaves when its socket closes, else it is killed."""
        self._writer.close()
        try:
            await asyncio.wait_for(self._process.wait(), STOP_TIMEOUT_S)
        except TimeoutError:
            self._process.kill()
            await self._process.wait()

    async def _describe_death(self) -> str:
        returncode = await self._process.wait()
        if returncode < 0:
            return f"the engine process was killed by {signal.Signals(-returncode).name}"
        return f"the engine process ended with exit code {returncode}"
