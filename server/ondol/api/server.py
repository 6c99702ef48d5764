"""Runs the HTTP server from bind to exit: loading, serving, draining.

Knows nothing about routes. Invariant: the first signal only stops what is new; open requests end by
themselves, or are cut with a word of explanation when the grace period is over, and the process
ends with exit code 0.
"""

import asyncio
import errno
import logging
import signal
import socket
import time
from collections.abc import Awaitable, Callable
from types import FrameType

import uvicorn
from starlette.types import ASGIApp

from ondol.api.lifecycle import Lifecycle
from ondol.config import ApiConfig
from ondol.errors import AddressInUse, ConfigError

logger = logging.getLogger(__name__)

LISTEN_BACKLOG = 2048
# Longer than the 60 s for which common proxies and SDK pools keep an idle connection.
KEEP_ALIVE_TIMEOUT_S = 75
# After the cut: enough to write the last event to a client that still reads.
CONNECTION_CLOSE_TIMEOUT_S = 5


def bind_socket(host: str, port: int) -> socket.socket:
    """A listening TCP socket; port 0 takes a free one.

    Listens at once, so that a second daemon fails here and not after it loaded its model.
    Raises AddressInUse, or ConfigError when the host is not an address of this machine.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except socket.gaierror as error:
        raise ConfigError(f"host {host} cannot be resolved: {error.strerror}") from error
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(LISTEN_BACKLOG)
    except OSError as error:
        listener.close()
        raise _bind_failure(error, host, port) from error
    return listener


class OndolServer(uvicorn.Server):
    """uvicorn with a drain of its own: the listener stays open meanwhile and answers 503.

    A second signal ends everything at once. Neither is raised again after a clean end, as uvicorn
    would do, so the exit code is 0.
    """

    def __init__(self, app: ASGIApp, lifecycle: Lifecycle, shutdown_grace_s: float) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                lifespan="off",
                ws="none",
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_keep_alive=KEEP_ALIVE_TIMEOUT_S,
                timeout_graceful_shutdown=CONNECTION_CLOSE_TIMEOUT_S,
            )
        )
        self._lifecycle = lifecycle
        self._shutdown_grace_s = shutdown_grace_s
        self._deadline_s = 0.0
        self._signals: list[int] = []

    @property
    def first_signal(self) -> int | None:
        """The signal that began the drain."""
        return self._signals[0] if self._signals else None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Only note the signal: this runs between any two instructions of the event loop."""
        self._signals.append(sig)
        if len(self._signals) > 1:
            self.force_exit = True

    async def on_tick(self, counter: int) -> bool:
        """uvicorn's ten ticks a second also drive the drain."""
        if self._signals:
            self._advance_drain()
        return await super().on_tick(counter)

    def _advance_drain(self) -> None:
        lifecycle = self._lifecycle
        if lifecycle.phase != "draining":
            lifecycle.begin_drain()
            self._deadline_s = time.monotonic() + self._shutdown_grace_s
            logger.info(
                "shutting down: open requests (%d) have %g s to finish; signal again to end at once",
                lifecycle.num_open,
                self._shutdown_grace_s,
            )
        # Without open requests only watchers are left, who would stay for ever.
        if self.force_exit or time.monotonic() >= self._deadline_s or lifecycle.num_open == 0:
            lifecycle.cut()
            self.should_exit = True


def run_server(
    app: ASGIApp,
    listener: socket.socket,
    *,
    config: ApiConfig,
    lifecycle: Lifecycle,
    load: Callable[[], Awaitable[None]],
    close: Callable[[], Awaitable[None]],
) -> None:
    """Serve until a signal ends it; returns after a clean shutdown.

    `load` runs beside the server, which answers /health and /ready meanwhile; `lifecycle` becomes
    ready when it returns, and its error stops the server and is raised here. `close` always runs.
    Raises KeyboardInterrupt when Ctrl-C came before the model was loaded.
    """
    server = OndolServer(app, lifecycle, config.shutdown_grace_s)
    asyncio.run(_serve(server, listener, lifecycle, load, close))


async def _serve(
    server: OndolServer,
    listener: socket.socket,
    lifecycle: Lifecycle,
    load: Callable[[], Awaitable[None]],
    close: Callable[[], Awaitable[None]],
) -> None:
    async def load_and_open() -> None:
        try:
            await load()
        except BaseException:
            server.should_exit = True
            raise
        lifecycle.mark_ready()

    loading = asyncio.create_task(load_and_open(), name="load model")
    try:
        await server.serve(sockets=[listener])
    finally:
        loading.cancel()
        await asyncio.gather(loading, return_exceptions=True)
        await close()
    if not loading.cancelled():
        loading.result()
    elif server.first_signal == signal.SIGINT:
        raise KeyboardInterrupt


def _bind_failure(error: OSError, host: str, port: int) -> AddressInUse | ConfigError:
    if isinstance(error, PermissionError):
        return ConfigError(f"port {port} needs more rights than this user has; choose another with --port")
    if error.errno == errno.EADDRINUSE:
        return AddressInUse(f"port {port} on {host} is in use; choose another with --port")
    return ConfigError(f"cannot listen on {host} port {port}: {error.strerror}")
