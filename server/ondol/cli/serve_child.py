"""`ondol` as the child of another `ondol`: it ends when its parent does.

Run as `python -m ondol.cli.serve_child ARGUMENTS`, with a pipe for standard input that the parent
holds open. Knows nothing about what is served. Invariant: no way of ending the parent leaves the
child behind, for the system closes the pipe.
"""

import os
import signal
import threading

from ondol.cli.main import main

STDIN = 0


def end_with_parent() -> None:
    """Wait for the pipe's end, then ask this process to end as SIGTERM would."""
    # Not sys.stdin, whose lock would be held when the interpreter shuts down.
    while os.read(STDIN, 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    threading.Thread(target=end_with_parent, name="parent watch", daemon=True).start()
    main()
