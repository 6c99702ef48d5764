"""The engine's end of the socketpair.

A reader thread turns bytes into messages. Knows nothing about torch, so that it stands before torch is
imported. Invariant: when the other end is gone, for whatever reason, this process ends at once, also in
the middle of an import or a load.
"""

import os
import queue
import socket
import threading
from contextlib import suppress

import msgspec

from ondol.engine.messages import LENGTH_PREFIX, FromEngine, ToEngine, encode


class Channel:
    """This end of the socketpair: blocking sends, a queue of received messages.

    Args:
        connection: connected stream socket; the reader thread owns its receiving side.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self.received: queue.SimpleQueue[ToEngine] = queue.SimpleQueue()

    def start_reading(self) -> None:
        """Receive in the background; ends the process when the peer is gone."""
        threading.Thread(target=self._read, name="reader", daemon=True).start()

    def send(self, message: FromEngine) -> None:
        """Send one message; a vanished peer ends the process."""
        try:
            self._connection.sendall(encode(message))
        except (BrokenPipeError, ConnectionResetError):
            _leave()

    def _read(self) -> None:
        decoder = msgspec.msgpack.Decoder(ToEngine)
        # A peer that dies with messages unread resets the connection; any other just ends it.
        with suppress(ConnectionResetError), self._connection.makefile("rb") as stream:
            while len(prefix := stream.read(LENGTH_PREFIX.size)) == LENGTH_PREFIX.size:
                (length,) = LENGTH_PREFIX.unpack(prefix)
                body = stream.read(length)
                if len(body) < length:
                    break
                self.received.put(decoder.decode(body))
        _leave()


def _leave() -> None:
    # Not sys.exit: the main thread may be deep in a kernel or a load, and there is nothing to save.
    os._exit(0)
