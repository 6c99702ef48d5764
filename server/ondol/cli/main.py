"""The `ondol` command: its subcommands, and how each ending becomes a line and an exit code.

Knows nothing about what the subcommands do. Invariant: an expected failure is one line on stderr and
its documented exit code, never a traceback; stdout carries data only.
"""

import io
import signal
import sys
from contextvars import copy_context

import click

from ondol import __version__
from ondol.cli.help_pages import show_click_error
from ondol.cli.language import tr, translator
from ondol.cli.language_option import language_option
from ondol.cli.lazy import CommandAddress, LazyGroup
from ondol.errors import OndolError
from ondol.model_manager.disk_errors import disk_errors_told

INTERRUPTED_EXIT_CODE = 128 + signal.SIGINT

# `tests/unit/cli/test_main.py` holds this text to the tree of errors.
EXIT_CODES = """\b
Exit codes:
  0    success; for serve, a clean shutdown
  1    another failure: a broken installation, a failed request of a benchmark, a bug
  2    wrong usage, an unknown setting or a bad value
  3    there is no such model
  4    access is refused: a gated repository, a wrong Hub token or API key
  5    does not fit into memory or onto the disk
  6    no daemon answers
  7    the device cannot be used
  8    the model is refused: corrupt, unsafe or unsupported
  9    the address is in use
  10   the Hub or the package index cannot be reached
  11   not now: the daemon or the model is busy, loading or ending
  70   the engine failed
  130  interrupted

Settings: flag > ONDOL_* variable > TOML file > default. `ondol config show --origin` tells which won.
"""


@click.group(
    cls=LazyGroup,
    addresses={
        "serve": CommandAddress("ondol.cli.serve:serve_command", "Serve a model over HTTP."),
        "run": CommandAddress("ondol.cli.run:run_command", "Answer one prompt, or open a chat."),
        "chat": CommandAddress("ondol.cli.chat:chat_command", "Chat with a model in the terminal."),
        "ps": CommandAddress("ondol.cli.ps:ps_command", "List the models that the daemon has loaded."),
        "load": CommandAddress("ondol.cli.load:load_command", "Load a model into the running daemon."),
        "stop": CommandAddress("ondol.cli.stop:stop_command", "Unload a model from the running daemon."),
        "pull": CommandAddress("ondol.cli.pull:pull_command", "Fetch a model into the local store."),
        "import": CommandAddress(
            "ondol.cli.import_model:import_command", "Register a model folder or a GGUF file."
        ),
        "list": CommandAddress("ondol.cli.list:list_command", "List the models."),
        "show": CommandAddress("ondol.cli.show:show_command", "Describe one model and where it comes from."),
        "rm": CommandAddress("ondol.cli.rm:rm_command", "Remove a model from this machine."),
        "fit": CommandAddress("ondol.cli.fit:fit_command", "Tell whether a model fits, before any download."),
        "inspect": CommandAddress("ondol.cli.inspect:inspect_command", "Show what a model is made of."),
        "compare": CommandAddress("ondol.cli.compare:compare_command", "Show two models side by side."),
        "tokenize": CommandAddress("ondol.cli.tokenize:tokenize_command", "Show the tokens of a text."),
        "template": CommandAddress(
            "ondol.cli.template:template_command", "Render a conversation as the model will read it."
        ),
        "quantize": CommandAddress(
            "ondol.cli.quantize:quantize_command", "Write a smaller copy of a model, and measure its error."
        ),
        "login": CommandAddress("ondol.cli.login:login_command", "Store a Hugging Face Hub token."),
        "logout": CommandAddress("ondol.cli.logout:logout_command", "Forget the Hub token."),
        "whoami": CommandAddress("ondol.cli.whoami:whoami_command", "Tell whose Hub token is in use."),
        "key": CommandAddress("ondol.cli.key:key_command", "Make, list and revoke API keys."),
        "bench": CommandAddress("ondol.cli.bench:bench_command", "Measure an OpenAI-compatible server."),
        "config": CommandAddress(
            "ondol.cli.config:config_command", "Show settings and where they come from."
        ),
        "doctor": CommandAddress(
            "ondol.cli.doctor:doctor_command", "Check this machine and say what to do about it."
        ),
    },
    epilog=EXIT_CODES,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.version_option(__version__, prog_name="ondol")
@language_option
def ondol() -> None:
    """Ondol keeps a language model warm on your own machine and serves it through OpenAI's API."""


def run(arguments: list[str] | None = None) -> int:
    """Run one command line (default: this process's) and return its exit code."""
    return copy_context().run(_run, arguments)  # the language chosen by one command line ends with it


def _run(arguments: list[str] | None) -> int:
    try:
        with disk_errors_told():
            code = ondol.main(args=arguments, prog_name="ondol", standalone_mode=False)
    except OndolError as error:
        click.echo(tr("ondol: error: {message}", message=translator().composed(str(error))), err=True)
        return error.exit_code
    except click.ClickException as error:
        show_click_error(error)
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo(tr("ondol: interrupted"), err=True)
        return INTERRUPTED_EXIT_CODE
    return code if isinstance(code, int) else 0


def main() -> None:
    """Entry point of the `ondol` command."""
    for stream in (sys.stdout, sys.stderr):
        # Under a locale without Hangul a name is shown as escapes; the command goes on.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    sys.exit(run())
