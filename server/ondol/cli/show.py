"""`ondol show MODEL`: one model, where it comes from, what its files say, and how it is loaded.

Knows nothing about where models are kept. Invariants: stdout is the description and nothing else; a daemon
that does not tell takes nothing from it.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict

import click

from ondol.cli.daemon_client import DaemonClient, JsonObject, daemon_options
from ondol.cli.language import tr, translator
from ondol.cli.ps import NOTHING, notes
from ondol.cli.sizes import memory_size
from ondol.cli.tables import table
from ondol.config import Settings, load_settings
from ondol.errors import OndolError
from ondol.model_manager.description import ModelDescription, describe
from ondol.model_manager.published_config import PublishedConfig
from ondol.model_manager.store import gigabytes


@click.command("show")
@click.argument("model")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@daemon_options("home")
def show_command(model: str, as_json: bool, url: str | None, **flags: object) -> None:
    """Describe MODEL: a folder, a Hub id or a name; and how the running daemon has loaded it.

    Does not ask the Hub: of a model that is not on this machine it tells what the catalog knows.

    \b
    Example:
      ondol show starter
      ondol show llama-2-7b-chat --json
    """
    settings = load_settings(flags)
    description = describe(model, settings.home)
    entry = loaded_entry(description.name, settings, url)
    if as_json:
        print(json.dumps({**as_object(description), "loaded": entry}, indent=2, ensure_ascii=False))
        return
    known = [*facts(description), ("loaded", "" if entry is None else loaded_text(entry))]
    print(table(("", ""), [(tr(label), value) for label, value in known if value]).lstrip())
    if description.files:
        files = [(name, f"{size_bytes:,}") for name, size_bytes in description.files]
        print(f"\n{table((tr('FILE'), tr('BYTES')), files, right=(1,))}")


def loaded_entry(name: str, settings: Settings, url: str | None) -> JsonObject | None:
    """What the daemon tells of a model that it has loaded; None where no daemon runs, or not with this model.

    A daemon that was not named with `--url` may refuse to answer: that is noted.
    """
    try:
        with DaemonClient.of(settings, url) as daemon:
            entries = daemon.get_json("/models")["data"] if url or daemon.is_running() else []
    except OndolError as error:
        if url is not None:
            raise
        reason = translator().composed(str(error))
        click.echo(tr("Whether it is loaded is not known: {reason}", reason=reason), err=True)
        return None
    return next((entry for entry in entries if entry["id"] == name and entry["memory"]), None)


def loaded_text(entry: JsonObject) -> str:
    """Memory, device and form of a loaded model, and what else is not as usual."""
    size = memory_size(entry["memory"]["total_bytes"])
    form = entry["quantization"] or entry.get("dtype") or NOTHING
    return ", ".join([f"{size} ({entry['device']}, {form})", *notes(entry)])


def as_object(description: ModelDescription) -> dict[str, object]:
    """Ready for JSON."""
    files = [{"name": name, "size_bytes": size_bytes} for name, size_bytes in description.files]
    return {**asdict(description), "files": files}


def facts(description: ModelDescription) -> Iterator[tuple[str, str]]:
    """Labels and values of what is known; an empty value is not known."""
    yield "name", description.name
    yield "description", description.description
    yield "status", tr(description.status)
    yield "source", description.source
    yield "revision", description.revision or ""
    yield "commit", description.commit or ""
    yield "folder", description.path or ""
    yield "size", "" if description.size_bytes is None else gigabytes(description.size_bytes)
    yield "page", description.page or ""
    yield "licence", description.licence
    if description.is_gated is not None:
        yield (
            "gated",
            tr("yes: accept its licence on its page, then run `ondol login`")
            if description.is_gated
            else tr("no"),
        )
    yield "aliases", ", ".join(description.aliases)
    if description.config is not None:
        yield from config_facts(description.config)
    yield "generation", assignments(description.generation)
    yield "recommended", assignments(description.recommended)


def config_facts(config: PublishedConfig) -> Iterator[tuple[str, str]]:
    """What the model's own files say."""
    yield "architecture", config.model_type or ""
    yield "dtype", config.dtype or ""
    yield "quantization", config.quantization or tr("none")
    yield "context", tr("{count} tokens", count=f"{config.context_length:,}") if config.context_length else ""
    yield "chat template", tr("yes") if config.has_chat_template else tr("no: completions only")


def assignments(values: dict[str, object]) -> str:
    """temperature=0.2, top_p=0.9."""
    return ", ".join(f"{key}={value}" for key, value in values.items())
