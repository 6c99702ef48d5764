"""`ondol show MODEL`: one model, where it comes from and what its files say.

Knows nothing about where models are kept. Invariant: stdout is the description and nothing else.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict

import click

from ondol.cli.flags import settings_options
from ondol.cli.language import tr
from ondol.cli.tables import table
from ondol.config import load_settings
from ondol.model_manager.description import ModelDescription, describe
from ondol.model_manager.published_config import PublishedConfig
from ondol.model_manager.store import gigabytes


@click.command("show")
@click.argument("model")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@settings_options("home")
def show_command(model: str, as_json: bool, **flags: object) -> None:
    """Describe MODEL: a folder, a Hub id or a name.

    Asks no network: of a model that is not on this machine it tells what the catalog knows.

    \b
    Example:
      ondol show starter
      ondol show llama-2-7b-chat --json
    """
    description = describe(model, load_settings(flags).home)
    if as_json:
        print(json.dumps(as_object(description), indent=2, ensure_ascii=False))
        return
    lines = [(tr(label), value) for label, value in facts(description) if value]
    print(table(("", ""), lines).lstrip())
    if description.files:
        files = [(name, f"{size_bytes:,}") for name, size_bytes in description.files]
        print(f"\n{table((tr('FILE'), tr('BYTES')), files, right=(1,))}")


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
