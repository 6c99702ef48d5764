"""The `ondol` command, also as `python -m ondol`; knows nothing but where it is.

Invariant: Ctrl-C ends it without a traceback from its first import on.
"""

import signal
import sys

INTERRUPTED_EXIT_CODE = 128 + signal.SIGINT


def main() -> None:
    """Entry point of the `ondol` command."""
    try:
        # It takes a moment, in which somebody may change their mind.
        from ondol.cli.main import main as run_command_line  # noqa: PLC0415

        run_command_line()
    except KeyboardInterrupt:
        sys.stderr.write("\nondol: interrupted\n")
        sys.exit(INTERRUPTED_EXIT_CODE)


if __name__ == "__main__":
    main()
