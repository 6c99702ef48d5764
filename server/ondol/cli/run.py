"""`ondol run MODEL ["prompt"]`: one prompt, one answer, as a pipeline would give it.

Knows nothing about where the model runs. Invariant: stdout carries the answer and nothing else.
"""

import json
import sys
from contextlib import closing

import click

from ondol.cli.asked_model import AskedModel, Message, Sampling
from ondol.cli.chat import HISTORY_FILE, converse
from ondol.cli.language import tr
from ondol.cli.serving_model import note, serving_model, serving_options
from ondol.cli.typed_text import stdin_text, valid_text
from ondol.config import load_settings


@click.command("run")
@click.argument("model")
@click.argument("prompt", required=False)
@click.option("--system", metavar="TEXT", help="System prompt.")
@click.option("--max-tokens", type=click.IntRange(1), metavar="N", help="Longest answer, in tokens.")
@click.option("--temperature", type=click.FloatRange(0), metavar="T", help="0 takes the likeliest token.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object when the answer is whole.")
@serving_options
def run_command(
    model: str,
    prompt: str | None,
    system: str | None,
    max_tokens: int | None,
    temperature: float | None,
    as_json: bool,
    url: str | None,
    **flags: object,
) -> None:
    """Answer PROMPT with MODEL; without PROMPT, what comes through a pipe, or open a chat.

    The running daemon answers if it offers MODEL; else a temporary one is started and ended. So it is,
    too, where a flag says how the model is to be loaded. A base model continues the text.

    \b
    Example:
      ondol run starter "Why is the sky blue?"
      git diff | ondol run starter --system "Summarize this change."
    """
    is_chat = prompt is None and sys.stdin.isatty()
    if is_chat and as_json:
        raise click.UsageError(tr("--json needs a prompt."))
    text = "" if is_chat else valid_text(prompt) if prompt is not None else stdin_text()
    if not is_chat and not text.strip():
        raise click.UsageError(tr("The prompt is empty."))
    system = valid_text(system) if system else None
    sampling = Sampling(max_tokens, temperature)
    with serving_model(model, sampling, url=url, flags=flags) as asked:
        if is_chat:
            converse(asked, system, load_settings(flags).home / HISTORY_FILE)
        else:
            system_messages: list[Message] = [{"role": "system", "content": system}] if system else []
            answer(asked, [*system_messages, {"role": "user", "content": text}], as_json=as_json)


def answer(asked: AskedModel, messages: list[Message], *, as_json: bool) -> None:
    """Print the answer as it comes, or as one JSON object at its end."""
    written: list[str] = []
    finish_reason, usage = None, None
    with closing(asked.answer(messages)) as parts:  # type: ignore[type-var]  # a generator
        for part in parts:
            written.append(part.text)
            finish_reason = part.finish_reason or finish_reason
            usage = part.usage or usage
            if not as_json:
                sys.stdout.write(part.text)
                sys.stdout.flush()
    if as_json:
        whole = {
            "model": asked.name,
            "text": "".join(written),
            "finish_reason": finish_reason,
            "usage": usage,
        }
        print(json.dumps(whole, ensure_ascii=False))
        return
    print()
    if finish_reason == "length":
        note(tr("The answer was cut: it reached the limit of tokens."))
