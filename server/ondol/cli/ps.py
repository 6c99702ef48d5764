"""`ondol ps`: what the running daemon has loaded, or is loading.

Knows nothing about what loads and unloads them. Invariant: stdout is the list and nothing else.
"""

import json
import time

import click

from ondol.cli.daemon_client import DaemonClient, JsonObject, daemon_options
from ondol.cli.language import tr
from ondol.cli.sizes import memory_size
from ondol.cli.tables import table
from ondol.config import load_settings
from ondol.config.durations import duration_text

RIGHT_ALIGNED = (2, 4, 5)
NOTHING = "-"


@click.command("ps")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array.")
@daemon_options()
def ps_command(as_json: bool, url: str | None, **flags: object) -> None:
    """List the models that the daemon has loaded or is loading, and those that failed to load.

    UNTIL tells when a model that nobody uses will be unloaded; NOTES, what else is not as usual: the KV
    cache's dtype, deterministic mode, weights in host memory.

    \b
    Example:
      ondol ps
    """
    with DaemonClient.of(load_settings(flags), url) as daemon:
        entries = [entry for entry in daemon.get_json("/models")["data"] if is_busy(entry["status"])]
    if as_json:
        print(json.dumps(entries, indent=2, ensure_ascii=False))
        return
    now_s = time.time()
    headers = ("NAME", "STATUS", "MEMORY", "QUANTIZATION", "CONTEXT", "STREAMS", "UNTIL", "NOTES")
    rows = [row(entry, now_s) for entry in entries]
    print(table([tr(header) for header in headers], rows, right=RIGHT_ALIGNED))
    for entry in entries:
        if error := entry["status"].get("error"):
            click.echo(f"{entry['id']}: {error['message']}", err=True)


def is_busy(status: JsonObject) -> bool:
    """Whether a model is more than a folder on the disk."""
    return bool(status["value"] != "unloaded" or status.get("failed"))


def row(entry: JsonObject, now_s: float) -> tuple[str, ...]:
    """The cells of one model; `now_s` is in Unix seconds."""
    memory, context = entry["memory"], entry["max_model_len"]
    return (
        entry["id"],
        status_text(entry["status"]),
        memory_size(memory["total_bytes"]) if memory else NOTHING,
        entry["quantization"] or NOTHING,
        str(context) if context else NOTHING,
        str(entry["num_streams"]),
        until_text(entry, now_s),
        ", ".join(notes(entry)) or NOTHING,
    )


def notes(entry: JsonObject) -> list[str]:
    """In what a loaded model differs from one that is loaded plainly; `quantization` stands by itself."""
    found: list[str] = []
    kv_cache_dtype = entry.get("kv_cache_dtype")
    if kv_cache_dtype != entry.get("dtype"):
        found.append(tr("KV cache {dtype}", dtype=kv_cache_dtype))
    if entry.get("deterministic"):
        found.append(tr("deterministic"))
    if host_bytes := (entry["memory"] or {}).get("host_weights_bytes"):
        found.append(tr("{size} of weights in host memory", size=memory_size(host_bytes)))
    return found


def status_text(status: JsonObject) -> str:
    """loaded, loading, downloading, unloading or failed; with a percentage where there is one."""
    if status.get("failed"):
        return tr("failed")
    share = progress_share(status.get("progress"))
    value = tr(str(status["value"]))
    return value if share is None else f"{value} {100 * share:.0f} %"


def progress_share(progress: JsonObject | None) -> float | None:
    """0 to 1, of a load's weights or of all bytes of a download; None where nobody knows."""
    if not progress:
        return None
    if "stages" in progress:
        return progress["value"] if progress["current"] == progress["stages"][-1] else None
    counts = progress.values()
    if not all(count["total"] for count in counts):
        return None
    done = sum(count["done"] for count in counts)
    return float(done) / float(sum(count["total"] for count in counts))


def until_text(entry: JsonObject, now_s: float) -> str:
    """The time that an idle model is still kept."""
    if entry["status"]["value"] != "loaded":
        return NOTHING
    if entry["num_streams"]:
        return tr("in use")
    if entry["pinned"]:
        return tr("pinned")
    if entry["expires_at"] is None:
        return tr("for ever")
    return duration_text(max(0, round(entry["expires_at"] - now_s)))
