"""`ondol config show`: every setting, its value and where that came from.

Knows nothing about what a setting does. Invariant: an API key is never printed.
"""

import json

import click

from ondol.cli.flags import settings_options
from ondol.config import resolve_settings, setting_text


@click.group("config")
def config_command() -> None:
    """Show settings and where they come from.

    \b
    Example:
      ondol config show --origin
    """


@config_command.command("show")
@click.option("--origin", "with_origin", is_flag=True, help="Also print where each value comes from.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@settings_options()
def show_command(with_origin: bool, as_json: bool, **flags: object) -> None:
    """Print every setting and its value; takes the flags of `ondol serve`.

    \b
    Example:
      ondol config show --origin
    """
    settings, origins = resolve_settings(flags)
    if as_json:
        values = settings.model_dump(mode="json")
        shown = {key: {"value": values[key], "origin": origins[key].label} for key in origins}
        click.echo(json.dumps(shown, ensure_ascii=False))
        return
    texts = {key: setting_text(key, getattr(settings, key)) for key in origins}
    key_width = max(map(len, texts))
    text_width = max(map(len, texts.values()))
    for key, text in texts.items():
        line = f"{key:{key_width}}  {text:{text_width}}  {origins[key].label if with_origin else ''}"
        click.echo(line.rstrip())
