"""The engine process: a socket on one side, `EngineCore` on the other.

Started as `python -m ondol.engine.process FD`, with one end of a socketpair. Only the way in: it
watches the socket, then hands over to `worker.py`. Invariant: nothing slow happens before the socket
is watched, so that the process follows its parent also while it imports torch.
"""

import os
import signal
import socket
import sys

from ondol.engine.channel import Channel


def main() -> None:
    """Entry point of the process."""
    # A terminal or a service manager signals every process of the daemon; only the API process decides
    # when to end: it drains first, and this process follows its socket.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    channel = Channel(socket.socket(fileno=int(sys.argv[1])))
    channel.start_reading()
    # Threads that wait for each other must not spin: on a machine that does anything else beside, they
    # keep the one they wait for from running. Read by OpenMP when torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from ondol.engine import worker  # noqa: PLC0415 - importing torch takes seconds

    worker.run(channel)


if __name__ == "__main__":
    main()
