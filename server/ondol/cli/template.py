"""`ondol template MODEL`: a conversation as the model will read it.

Knows nothing about chat templates. Invariant: text and tokens are those that /v1/chat/completions
would give the model.
"""

import json
from typing import Any, TextIO

import click

from ondol.cli.flags import settings_options
from ondol.cli.language import tr
from ondol.cli.template_file import read_template
from ondol.cli.terminal_progress import TerminalProgress
from ondol.cli.typed_text import valid_text
from ondol.config import load_settings
from ondol.model_manager.tokenizer_files import tokenizer_files
from ondol.text.tokenizer import TextTokenizer

Messages = list[dict[str, Any]]


@click.command("template")
@click.argument("model")
@click.option(
    "--messages",
    "messages_file",
    type=click.File(encoding="utf-8"),
    metavar="FILE",
    help="JSON file with the messages of a conversation, or - for a pipe.",
)
@click.option("--user", metavar="TEXT", help="What the user says.")
@click.option("--system", metavar="TEXT", help="System prompt.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@settings_options("home", "chat_template", "merge_system_prompt")
def template_command(
    model: str,
    messages_file: TextIO | None,
    user: str | None,
    system: str | None,
    as_json: bool,
    **flags: object,
) -> None:
    """Render a conversation as MODEL will read it, and count its tokens.

    The prompt goes to stdout, the counts to stderr. Only the tokenizer is fetched, not the weights.

    \b
    Example:
      ondol template starter --system "Be brief." --user "안녕?"
      ondol template starter --messages conversation.json --json
    """
    messages = conversation(messages_file, user, system)
    settings = load_settings(flags)
    files = tokenizer_files(model, settings.home, TerminalProgress())
    tokenizer = TextTokenizer.load(
        files.folder,
        chat_template=read_template(settings.chat_template) or files.chat_template,
        merges_system_prompt=settings.merge_system_prompt,
    )
    if tokenizer.chat_template is None:
        raise click.UsageError(
            tr(
                "{model} has no chat template: a base model reads plain text. "
                'Use `ondol run {model} "TEXT"` or /v1/completions.',
                model=model,
            )
        )
    text = tokenizer.render_chat(messages)
    token_ids = tokenizer.encode_rendered(text)
    begins = tokenizer.piece(token_ids[0]) if token_ids and tokenizer.is_special(token_ids[0]) else None
    if as_json:
        counts = {"num_tokens": len(token_ids), "token_ids": token_ids, "first_special_token": begins}
        print(json.dumps({"model": files.name, "prompt": text, **counts}, ensure_ascii=False))
        return
    print(text)
    click.echo(tr("{tokens} tokens", tokens=len(token_ids)), err=True)
    if begins is None:
        click.echo(tr("It begins without a special token."), err=True)
    else:
        click.echo(tr("It begins with the special token {token}.", token=begins), err=True)


def conversation(messages_file: TextIO | None, user: str | None, system: str | None) -> Messages:
    """The messages that the flags name; raises UsageError where they name none or too many."""
    if messages_file is not None:
        if user is not None or system is not None:
            raise click.UsageError(tr("--messages has all messages; leave out --user and --system."))
        return _read(messages_file)
    if user is None:
        raise click.UsageError(tr('Name a conversation: --user "TEXT" or --messages FILE.'))
    said: Messages = [{"role": "system", "content": valid_text(system)}] if system else []
    return [*said, {"role": "user", "content": valid_text(user)}]


def _read(messages_file: TextIO) -> Messages:
    try:
        content = json.load(messages_file)
    except ValueError as error:  # no JSON, or no UTF-8
        raise click.UsageError(tr("--messages is not JSON: {reason}", reason=error)) from error
    # A whole request body will do as well.
    messages = content.get("messages") if isinstance(content, dict) else content
    is_conversation = isinstance(messages, list) and all(
        isinstance(message, dict) and "role" in message for message in messages
    )
    if not is_conversation or not messages:
        raise click.UsageError(
            tr('--messages is no list of messages such as {{"role": "user", "content": "…"}}.')
        )
    return list(messages)
