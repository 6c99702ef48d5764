"""`ondol fit --json` as the child of the daemon: how it failed is told to a program.

Run as `python -m ondol.cli.fit_child FLAGS -- MODEL`. Knows nothing about fitting. Invariant: the report is
on stdout as `ondol fit` prints it; an expected failure is the last line of stderr, a `SentError` in JSON.
"""

import sys

import msgspec

from ondol.cli.fit import fit_command
from ondol.errors import OndolError
from ondol.model_manager.disk_errors import disk_errors_told
from ondol.model_manager.sent_error import SentError


def main(arguments: list[str]) -> int:
    """Run one command line; its exit code."""
    try:
        with disk_errors_told():
            fit_command.main(["--json", *arguments], standalone_mode=False)
    except OndolError as error:
        sys.stderr.write(msgspec.json.encode(SentError.of(error)).decode() + "\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
