"""`ondol tokenize MODEL [TEXT]`: the tokens of a text, and what its Hangul costs.

Knows nothing about models beyond their tokenizers. Invariant: the ids are those that /v1/completions
would give the model.
"""

import json
from typing import Any

import click

from ondol.cli.flags import settings_options
from ondol.cli.language import tr
from ondol.cli.tables import table
from ondol.cli.terminal_progress import TerminalProgress
from ondol.cli.typed_text import stdin_text, valid_text
from ondol.config import load_settings
from ondol.model_manager.tokenizer_files import tokenizer_files
from ondol.text.hangul import HangulTokens, hangul_tokens
from ondol.text.tokenizer import TextTokenizer

SYLLABLES_PER_LINE = 12


@click.command("tokenize")
@click.argument("model")
@click.argument("text", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@settings_options("home")
def tokenize_command(model: str, text: str | None, as_json: bool, **flags: object) -> None:
    """Show the tokens of TEXT, or of what comes through a pipe, as MODEL reads it.

    Only the tokenizer is fetched, not the weights. Tokens that the model puts around a text, and
    special tokens inside it, are marked.

    \b
    Example:
      ondol tokenize starter "안녕하세요"
      ondol tokenize Qwen/Qwen2-7B-Instruct --json < notes.txt
    """
    given = valid_text(text) if text is not None else stdin_text()
    files = tokenizer_files(model, load_settings(flags).home, TerminalProgress())
    tokenizer = TextTokenizer.load(files.folder)
    tokens = [token_row(tokenizer, token_id) for token_id in tokenizer.encode_text(given)]
    hangul = hangul_tokens([tokenizer.token_bytes[token["id"]] for token in tokens])
    if as_json:
        print(json.dumps(report(files.name, given, tokens, hangul), ensure_ascii=False))
    else:
        print("\n".join(lines(given, tokens, hangul)))


def token_row(tokenizer: TextTokenizer, token_id: int) -> dict[str, Any]:
    """One token; `text` is None where its bytes are no whole characters."""
    data = tokenizer.token_bytes[token_id]
    try:
        text: str | None = data.decode("utf-8")
    except UnicodeDecodeError:
        text = None
    return {
        "id": token_id,
        "piece": tokenizer.piece(token_id),
        "bytes": data.hex(" "),
        "text": text,
        "is_special": tokenizer.is_special(token_id),
    }


def report(model: str, text: str, tokens: list[dict[str, Any]], hangul: HangulTokens) -> dict[str, Any]:
    """Everything, ready for JSON."""
    return {
        "model": model,
        "num_tokens": len(tokens),
        "num_characters": len(text),
        "tokens": tokens,
        "hangul": {
            "num_syllables": len(hangul.syllables),
            "num_tokens": hangul.num_tokens,
            "tokens_per_syllable": hangul.tokens_per_syllable,
            "syllables": [
                {"syllable": cost.syllable, "num_tokens": cost.num_tokens} for cost in hangul.syllables
            ],
        },
    }


def lines(text: str, tokens: list[dict[str, Any]], hangul: HangulTokens) -> list[str]:
    """Everything, for people."""
    rows = [
        (str(token["id"]), token["piece"], token["bytes"], _visible(token["text"]), _mark(token))
        for token in tokens
    ]
    headers = (tr("ID"), tr("PIECE"), tr("BYTES"), tr("TEXT"), "")
    shown = [table(headers, rows, right=(0,)), ""]
    shown.append(tr("{tokens} tokens, {characters} characters", tokens=len(tokens), characters=len(text)))
    if hangul.tokens_per_syllable is not None:
        shown.append(
            tr(
                "{syllables} Hangul syllables in {tokens} tokens: {mean} tokens per syllable",
                syllables=len(hangul.syllables),
                tokens=hangul.num_tokens,
                mean=f"{hangul.tokens_per_syllable:.2f}",
            )
        )
        shown += _syllable_lines(hangul)
    return shown


def _syllable_lines(hangul: HangulTokens) -> list[str]:
    cells = [f"{cost.syllable} {cost.num_tokens}" for cost in hangul.syllables]
    return [
        "  " + "   ".join(cells[start : start + SYLLABLES_PER_LINE])
        for start in range(0, len(cells), SYLLABLES_PER_LINE)
    ]


def _visible(text: str | None) -> str:
    """Quoted, so that spaces and line breaks show; nothing for part of a character."""
    return "" if text is None else json.dumps(text, ensure_ascii=False)


def _mark(token: dict[str, Any]) -> str:
    return tr("special") if token["is_special"] else ""
