"""Every English sentence that the terminal may have to say, read from the commands and their source.

Knows nothing about translations.
"""

import ast
import inspect
from collections.abc import Iterator
from pathlib import Path

import click

import ondol.cli
from ondol import errors
from ondol.cli.language import EXTRAS, LINE, PLACE, UNWRAPPED
from ondol.cli.main import ondol as group
from ondol.config import Settings

# Examples are commands to type, and stay as they are.
COMMAND_LINE_STARTS = (
    "ondol ",
    "cat ",
    "git ",
    "echo ",
    "export ",
    "HF_",
    "ONDOL_",
    "curl ",
    "#",
    "|",
    "<",
    "-",
)


def said_sentences() -> set[str]:
    """The templates in `tr("...")`, over the whole room."""
    folder = Path(ondol.cli.__file__).parent
    return {sentence for path in folder.rglob("*.py") for sentence in _templates(path)}


def _templates(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "tr":
            argument = node.args[0]
            if isinstance(argument, ast.Constant):
                yield argument.value


def error_sentences(*paths: str) -> set[str]:
    """What the modules at these paths of the package give OndolErrors to say, their places nameless."""
    folder = Path(errors.__file__).parent
    return {sentence for path in paths for sentence in _messages(folder / path)}


def _messages(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name) or not node.args:
            continue
        error_class = getattr(errors, node.func.id, None)
        if not (isinstance(error_class, type) and issubclass(error_class, errors.OndolError)):
            continue
        message = node.args[0]
        if isinstance(message, ast.Constant):
            yield str(message.value)
        elif isinstance(message, ast.JoinedStr):
            yield "".join(
                str(part.value) if isinstance(part, ast.Constant) else "{}" for part in message.values
            )


def without_names(template: str) -> str:
    """The template with nameless places, since those of errors are expressions."""
    return PLACE.sub("{}", template)


def help_sentences() -> set[str]:
    """Paragraphs of help pages and what stands beside options, without click's additions."""
    context = click.Context(group)
    sentences = {address.help for address in group._addresses.values()}
    commands: list[click.Command] = [group]
    commands += [group.get_command(context, name) for name in group.list_commands(context)]
    while commands:
        command = commands.pop()
        if isinstance(command, click.Group) and command is not group:
            commands += command.commands.values()
        sentences |= set(_paragraphs(command.help or "")) | set(_paragraphs(command.epilog or ""))
        for parameter in command.params:
            help_text = getattr(parameter, "help", None)
            if help_text:
                found = EXTRAS.fullmatch(help_text)
                sentences.add(found["body"] if found else help_text)
    return sentences


def _paragraphs(text: str) -> Iterator[str]:
    for paragraph in inspect.cleandoc(text).partition("\f")[0].split("\n\n"):
        if not paragraph.startswith(UNWRAPPED):
            if paragraph:
                yield " ".join(paragraph.split())
            continue
        for line in paragraph.removeprefix(UNWRAPPED).split("\n"):
            words = LINE.fullmatch(line)["words"]
            if words and not words.startswith(COMMAND_LINE_STARTS):
                yield words


def setting_sentences() -> set[str]:
    """The settings' descriptions."""
    return {str(field.description) for field in Settings.model_fields.values()}
