import ast
import sys
from pathlib import Path

import pytest

import ondol.cli.repl
from ondol.cli.language import places
from ondol.cli.repl.korean import KOREAN
from ondol.cli.repl.language import language_of
from ondol.cli.repl.loop import HELP

FOLDER = Path(ondol.cli.repl.__file__).parent
STANDALONE = Path(__file__).parents[4] / "clients" / "terminal" / "chat.py"


def said():
    """The first arguments of `ChatError(...)`, `self._tr(...)` and `speech(...)`."""
    for path in (*FOLDER.glob("*.py"), STANDALONE):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or not node.args or not isinstance(node.args[0], ast.Constant):
                continue
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if name in ("ChatError", "_tr", "speech"):
                yield node.args[0].value


def test_every_sentence_is_said_in_korean_and_no_other_is_kept():
    assert set(KOREAN) == {*said(), *HELP} - {"{message}"}


@pytest.mark.parametrize("english", KOREAN)
def test_a_translation_has_the_places_of_its_sentence(english):
    assert places(KOREAN[english]) == places(english)


@pytest.mark.parametrize(
    ("locale", "language"),
    [("ko_KR.UTF-8", "ko"), ("ko", "ko"), ("kok_IN", "en"), ("C.UTF-8", "en"), ("", "en")],
)
def test_the_language_follows_the_locale(locale, language):
    assert language_of(locale) == language


def test_the_conversation_stands_alone():
    imported = set()
    for path in (*FOLDER.glob("*.py"), STANDALONE):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                imported.add(node.module.partition(".")[0])
    assert imported - sys.stdlib_module_names == {"openai", "prompt_toolkit", "wcwidth", "repl"}
