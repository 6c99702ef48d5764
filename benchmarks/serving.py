"""`ondol bench` by another name: measure any OpenAI-compatible server over HTTP."""

import sys

from ondol.cli.main import run

if __name__ == "__main__":
    sys.exit(run(["bench", *sys.argv[1:]]))
