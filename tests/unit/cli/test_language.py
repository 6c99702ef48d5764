import contextvars
import re
import subprocess
import sys

import click
import pytest
from support.daemon import clean_environment
from support.sentences import (
    error_sentences,
    help_sentences,
    said_sentences,
    setting_sentences,
    without_names,
)
from wcwidth import wcswidth

from ondol.cli import main as cli_main
from ondol.cli.language import Translator, language_of, load_messages, merged, places, spoken, tr
from ondol.errors import (
    KeyLimitReached,
    KeyNotFound,
    LoadStopped,
    ModelInUse,
    ModelNotFound,
    NoChatTemplate,
    NoRoomYet,
    PromptTooLong,
    QueueFull,
    Unloading,
)

# Where the errors come from that somebody meets on the first day.
ERRORS_OF_THE_FIRST_DAY = (
    "api/access.py",
    "api/body.py",
    "api/browsers.py",
    "api/fit_runs.py",
    "api/generate.py",
    "api/model_name.py",
    "api/server.py",
    "bench/ceiling.py",
    "bench/roofline.py",
    "bench/serving_target.py",
    "cli/asked_model.py",
    "cli/daemon_client.py",
    "cli/temporary_daemon.py",
    "config/settings.py",
    "engine/load_plan.py",
    "engine/worker.py",
    "keys/key_store.py",
    "model_manager/disk_errors.py",
    "model_manager/fetching.py",
    "model_manager/hub/cache.py",
    "model_manager/hub/account.py",
    "model_manager/hub/errors.py",
    "model_manager/hub/files.py",
    "model_manager/hub/headers.py",
    "model_manager/package_index.py",
    "model_manager/removal.py",
    "model_manager/store.py",
    "model_manager/wheel_model.py",
)


@pytest.fixture(scope="module")
def korean():
    return merged(load_messages("ko"))


def run(capsys, *arguments):
    code = cli_main.run(list(arguments))
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.fixture
def in_locale(monkeypatch):
    def set_locale(**variables):
        for name in ("LC_ALL", "LC_MESSAGES", "LANG"):
            monkeypatch.delenv(name, raising=False)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    set_locale()
    return set_locale


def test_every_sentence_of_the_commands_is_translated(korean):
    assert sorted(said_sentences() - set(korean)) == []


def test_every_help_text_is_translated(korean):
    assert sorted(help_sentences() - set(korean)) == []


def test_every_setting_is_described_in_korean(korean):
    assert sorted(setting_sentences() - set(korean)) == []


def test_the_errors_of_the_first_day_are_translated(korean):
    known = {without_names(english) for english in korean}
    # A Hub repository that is not found is named, not described.
    assert sorted(error_sentences(*ERRORS_OF_THE_FIRST_DAY) - known - {"{}@{}"}) == []


def test_the_errors_that_describe_themselves_are_translated():
    translator = Translator.load("ko")
    for error in (
        ModelNotFound("x", ("starter",)),
        ModelNotFound("startr", ("starter",)),
        NoChatTemplate(),
        PromptTooLong(9, 8),
        PromptTooLong(5, 8, 4),
        QueueFull(2),
        ModelInUse("x", 3),
        NoRoomYet("x", 5),
        KeyNotFound("x", ("laptop",)),
        KeyNotFound("x", ()),
        KeyLimitReached("tokens", 100, 3),
        KeyLimitReached("concurrent requests", 2, 1),
        LoadStopped("x"),
        Unloading("x"),
    ):
        assert not re.search("[a-z]{2,} [a-z]{2,}", translator.composed(str(error))), error


def test_a_translation_has_the_places_of_its_original(korean):
    assert {english: places(english) for english in korean} == {
        english: places(text) for english, text in korean.items()
    }


def test_no_sentence_is_translated_twice():
    parts = load_messages("ko")
    keys = [english for part in parts.values() for section in part.values() for english in section]
    assert sorted(keys) == sorted(set(keys))


@pytest.mark.parametrize(
    ("locale", "language"),
    [
        ("ko_KR.UTF-8", "ko"),
        ("ko", "ko"),
        ("ko.UTF-8", "ko"),
        ("KO-kr", "ko"),
        ("C", "en"),
        ("en_US", "en"),
        ("kok_IN", "en"),
        ("", "en"),
    ],
)
def test_a_locale_names_a_language(locale, language):
    assert language_of(locale) == language


@pytest.mark.parametrize(
    ("variables", "is_korean"),
    [
        ({}, False),
        ({"LANG": "ko_KR.UTF-8"}, True),
        ({"LANG": "ko_KR.UTF-8", "LC_MESSAGES": "en_US.UTF-8"}, False),
        ({"LC_MESSAGES": "ko_KR.UTF-8", "LC_ALL": "C"}, False),
        ({"LC_ALL": "ko_KR.UTF-8", "LANG": "C"}, True),
        ({"LC_ALL": "", "LANG": "ko_KR.UTF-8"}, True),
    ],
)
def test_the_locale_decides_as_posix_orders_it(in_locale, capsys, variables, is_korean):
    in_locale(**variables)
    _, page, _ = run(capsys, "--help")
    assert page.startswith("사용법:" if is_korean else "Usage:")


@pytest.mark.parametrize("group", ["key", "config"])
def test_commands_under_a_command_are_listed_in_korean(capsys, group):
    _, page, _ = run(capsys, "--lang", "ko", group, "--help")
    lines = page.partition("명령:")[2].split("\n")
    assert all(re.search("[가-힣]", line) for line in lines if line.strip()), lines


def test_a_part_that_has_become_the_end_of_a_sentence_is_translated_too():
    translator = Translator("ko", {}, {"Wrong: {reason}": "틀림: {reason}", "it is red": "빨강"})
    assert translator.composed("Wrong: it is red.") == "틀림: 빨강."
    assert translator.composed("Wrong: it is blue.") == "틀림: it is blue."


def test_the_flag_wins_over_the_locale(in_locale, capsys):
    in_locale(LC_ALL="ko_KR.UTF-8")
    assert run(capsys, "--lang", "en", "--help")[1].startswith("Usage:")
    in_locale(LC_ALL="C")
    assert run(capsys, "--lang", "ko", "list", "--help")[1].startswith("사용법:")


def test_an_unknown_language_is_wrong_usage(in_locale, capsys):
    assert run(capsys, "--lang", "fr", "list")[0] == 2


def test_one_command_line_leaves_no_language_behind(in_locale, capsys):
    run(capsys, "--lang", "ko", "--help")
    assert tr("Usage:") == "Usage:"


def test_pages_of_commands_and_of_commands_under_them_are_korean(in_locale, capsys):
    in_locale(LANG="ko_KR.UTF-8")
    for arguments in (["serve"], ["config"], ["config", "show"]):
        page = run(capsys, *arguments, "--help")[1]
        assert page.startswith("사용법:")
        assert "옵션:" in page
        assert "Options" not in page


def test_no_line_of_a_korean_page_is_wider_than_the_page(in_locale, capsys, monkeypatch):
    in_locale(LANG="ko_KR.UTF-8")
    monkeypatch.setenv("COLUMNS", "80")
    page = run(capsys, "serve", "--help")[1]
    assert max(wcswidth(line) for line in page.splitlines()) <= 80


def test_defaults_beside_options_are_kept(in_locale, capsys):
    in_locale(LANG="ko_KR.UTF-8")
    page = " ".join(run(capsys, "serve", "--help")[1].split())
    assert "[기본값: 8000]" in page


def test_an_error_from_deep_inside_is_korean(in_locale, capsys):
    in_locale(LANG="ko_KR.UTF-8")
    code, _, error = run(capsys, "tokenize", "no-such-model", "x")
    assert code == 3
    assert error.startswith("ondol: 오류: 'no-such-model'")


def test_wrong_usage_is_told_in_korean_and_keeps_its_code(in_locale, capsys):
    in_locale(LANG="ko_KR.UTF-8")
    for arguments, words in ((["--bogus"], "--bogus"), (["srve"], "srve"), (["tokenize"], "MODEL")):
        code, _, error = run(capsys, *arguments)
        assert code == 2
        assert error.startswith("사용법: ondol")
        assert "오류: " in error
        assert words in error
        assert "No such" not in error
        assert "Missing" not in error


def test_a_message_without_a_translation_stays_english_and_whole():
    translator = Translator(
        "ko", {"{name} happened": "{name} 일어남"}, {"Loaded {name}.": "{name}을 읽었습니다."}
    )
    assert translator.composed("Something odd happened") == "Something odd happened"
    assert translator.composed("Something odd happened: x.") == "Something odd happened: x."
    assert translator.sentence("Unloaded {name}.") == "Unloaded {name}."


def test_a_message_inside_a_message_is_translated_too():
    templates = {
        "The model '{name}' does not exist.{hint}": "'{name}' 모델이 없습니다.{hint}",
        "Did you mean {names}?": "혹시 {names}입니까?",
        "{url} does not answer: {reason}": "{url}이 응답하지 않습니다: {reason}",
    }
    translator = Translator("ko", {}, templates)
    error = str(ModelNotFound("startr", ("starter",)))
    assert translator.composed(error) == "'startr' 모델이 없습니다. 혹시 starter입니까?"
    assert translator.composed("u does not answer: u does not answer: x") == (
        "u이 응답하지 않습니다: u이 응답하지 않습니다: x"
    )


def test_the_template_with_most_words_of_its_own_is_chosen():
    templates = {"{a} was ended": "{a} 끝", "{a} was ended by {b}": "{b}이 {a}을 끝냄"}
    assert Translator("ko", {}, templates).composed("it was ended by you") == "you이 it을 끝냄"


def test_braces_and_formats_of_a_template_are_no_places():
    assert places("{{x}} {name} {rate:.1f} {other!r}") == ["name", "other", "rate"]
    translator = Translator("ko", {}, {'Give {{"a": 1}} to {name}': '{name}에 {{"a": 1}}'})
    assert translator.composed('Give {"a": 1} to it') == 'it에 {"a": 1}'


def test_a_context_of_its_own_speaks_its_own_language():
    with spoken("ko"):
        assert tr("Usage:") == "사용법:"
        assert contextvars.Context().run(tr, "Usage:") == "Usage:"
    assert tr("Usage:") == "Usage:"


def test_commands_are_not_changed_by_being_shown(in_locale):
    context = click.Context(cli_main.ondol)
    first = cli_main.ondol.get_command(context, "list")
    assert first is not cli_main.ondol.get_command(context, "list")


def test_a_terminal_without_hangul_shows_escapes_and_does_not_crash():
    done = subprocess.run(
        [sys.executable, "-m", "ondol", "--lang", "ko", "list", "--help"],
        env=clean_environment() | {"PYTHONIOENCODING": "latin-1"},
        capture_output=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.startswith(rb"\uc0ac\uc6a9\ubc95")


def test_the_c_locale_does_not_crash():
    done = subprocess.run(
        [sys.executable, "-m", "ondol", "--lang", "ko", "--help"],
        env=clean_environment() | {"LC_ALL": "C"},
        capture_output=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.decode("utf-8").startswith("사용법:")
