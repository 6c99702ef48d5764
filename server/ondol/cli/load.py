"""`ondol load`: have the running daemon load a model, and see how far it is.

Knows nothing about how a model is loaded. Invariant: it ends when the model answers requests, or with
the error that kept it from doing so.
"""

import json
from typing import get_args

import click

from ondol.cli.daemon_client import DaemonClient, daemon_options
from ondol.cli.language import tr
from ondol.cli.load_progress import shown_progress
from ondol.cli.sizes import memory_size
from ondol.config import Settings, load_settings
from ondol.config.quantization import Method

QUANTIZATIONS = get_args(Method)
DTYPES = get_args(Settings.model_fields["dtype"].annotation)
KV_DTYPES = get_args(Settings.model_fields["kv_cache_dtype"].annotation)


@click.command("load")
@click.argument("model")
@click.option("--quantization", type=click.Choice(QUANTIZATIONS), help="Quantize the weights on load.")
@click.option("--dtype", type=click.Choice(DTYPES), help="Precision of the weights.")
@click.option(
    "--max-model-len", "--context", type=click.IntRange(min=1), help="Longest prompt plus answer, in tokens."
)
@click.option("--kv-cache-memory", metavar="SIZE", help="Memory for the KV cache, as 2GiB, 500MB or bytes.")
@click.option("--kv-cache-dtype", type=click.Choice(KV_DTYPES), help="Precision of the KV cache.")
@click.option(
    "--cpu-offload-gb", type=click.FloatRange(min=0), help="Host memory in GiB for layers that do not fit."
)
@click.option(
    "--deterministic/--no-deterministic",
    default=None,
    help="No bit of an answer depends on what is computed beside it.",
)
@click.option("--keep-alive", metavar="TIME", help="How long it stays unused: 5m, 1h30m, 0, or -1 for ever.")
@click.option("--pin", is_flag=True, help="Never unload it for being idle, nor for the sake of a request.")
@click.option(
    "--download/--no-download", default=True, show_default=True, help="Fetch it if the daemon lacks it."
)
@click.option("--json", "as_json", is_flag=True, help="Print the loaded model as a JSON object.")
@daemon_options()
def load_command(model: str, as_json: bool, url: str | None, **options: object) -> None:
    """Load MODEL (a name that `ondol list` shows, or a Hub id) into the running daemon.

    What is not given is as the daemon's settings say.

    \b
    Example:
      ondol load qwen2-7b-instruct --quantization nf4 --keep-alive 1h
    """
    flags = {name: options.pop(name) for name in ("config", "api_key", "api_key_file")}
    order = {name: value for name, value in options.items() if value is not None}
    with DaemonClient.of(load_settings(flags), url) as daemon, shown_progress(daemon):
        loaded = daemon.post_json("/models/load", {"model": model, **order, "wait": True})
    entry = loaded["data"]
    if as_json:
        print(json.dumps(entry, indent=2, ensure_ascii=False))
        return
    memory = memory_size(entry["memory"]["total_bytes"]) if entry["memory"] else "-"
    click.echo(tr("Loaded {name}: {memory}.", name=entry["id"], memory=memory), err=True)
