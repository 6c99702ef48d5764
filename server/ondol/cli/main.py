"""The `ondol` command: its subcommands, and how each ending becomes a line and an exit code.

Knows nothing about what the subcommands do. Invariant: an expected failure is one line on stderr and
its documented exit code, never a traceback; stdout carries data only.
"""

import signal
import sys

import click

from ondol import __version__
from ondol.cli.lazy import CommandAddress, LazyGroup
from ondol.errors import OndolError

INTERRUPTED_EXIT_CODE = 128 + signal.SIGINT

# `tests/unit/cli/test_main.py` holds this text to the tree of errors.
EXIT_CODES = """\b
Exit codes:
  0    success; for serve, a clean shutdown
  1    an unexpected failure
  2    wrong usage, an unknown setting or a bad value
  3    there is no such model
  4    the Hub refuses access: gated repository or wrong token
  5    does not fit into memory or onto the disk
  6    no daemon answers
  7    the device cannot be used
  8    the model is refused: corrupt, unsafe or unsupported
  9    the address is in use
  10   the Hub or the package index cannot be reached
  70   the engine failed
  130  interrupted

Settings: flag > ONDOL_* variable > TOML file > default. `ondol config show --origin` tells which won.
"""


@click.group(
    cls=LazyGroup,
    addresses={
        "serve": CommandAddress("ondol.cli.serve:serve_command", "Serve a model over HTTP."),
        "pull": CommandAddress("ondol.cli.pull:pull_command", "Fetch a model into the local store."),
        "list": CommandAddress("ondol.cli.list:list_command", "List the models."),
        "quantize": CommandAddress(
            "ondol.cli.quantize:quantize_command", "Write a smaller copy of a model, and measure its error."
        ),
        "bench": CommandAddress("ondol.cli.bench:bench_command", "Measure an OpenAI-compatible server."),
        "config": CommandAddress(
            "ondol.cli.config:config_command", "Show settings and where they come from."
        ),
    },
    epilog=EXIT_CODES,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.version_option(__version__, prog_name="ondol")
def ondol() -> None:
    """Ondol keeps a language model warm on your own machine and serves it through OpenAI's API."""


def run(arguments: list[str] | None = None) -> int:
    """Run one command line (default: this process's) and return its exit code."""
    try:
        code = ondol.main(args=arguments, prog_name="ondol", standalone_mode=False)
    except OndolError as error:
        click.echo(f"ondol: error: {error}", err=True)
        return error.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("ondol: interrupted", err=True)
        return INTERRUPTED_EXIT_CODE
    return code if isinstance(code, int) else 0


def main() -> None:
    """Entry point of the `ondol` command."""
    sys.exit(run())
