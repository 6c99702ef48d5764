"""`ondol import DIR|FILE.gguf`: register a model that is on this machine already.

Knows nothing about formats. Invariant: stdout carries the registered folder and nothing else.
"""

from pathlib import Path

import click

from ondol.cli.flags import settings_options
from ondol.cli.signals import terminated_like_interrupted
from ondol.cli.terminal_progress import TerminalProgress
from ondol.config import load_settings
from ondol.model_manager.imported_model import Placement, import_model
from ondol.model_manager.store import ModelStore


@click.command("import")
@click.argument("source", metavar="DIR|FILE.gguf", type=click.Path(path_type=Path))
@click.option("--name", help="Name to register it under. [default: the folder's or the file's]")
@click.option(
    "--link/--copy",
    "is_linked",
    default=None,
    help="Hard-link a folder's weights, or copy them. [default: link where the file system can]",
)
@settings_options("home")
def import_command(source: Path, name: str | None, is_linked: bool | None, **flags: object) -> None:
    """Register a model folder in Hugging Face layout, or a GGUF file, and print its folder.

    Needs no network. The original is only read; linked weights stay the same file on the disk, so do not
    change them afterwards. A GGUF file (llama or qwen2) is converted: its weights become float32, unless
    they are float16 or bfloat16 already.

    \b
    Example:
      ondol import ./Llama-3.2-1B-Instruct --name llama-3.2-1b-instruct
      ondol import qwen2-7b-instruct-q4_k_m.gguf
    """
    placement: Placement = "auto" if is_linked is None else "link" if is_linked else "copy"
    store = ModelStore(load_settings(flags).home)
    with terminated_like_interrupted():
        print(import_model(source, store, name, placement, TerminalProgress()))
