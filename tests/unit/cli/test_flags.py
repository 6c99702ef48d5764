from typing import Literal, get_args, get_origin

import click
import pytest
from click.testing import CliRunner

from ondol.cli.flags import flag_text, settings_options
from ondol.config import Settings, flag_name, load_settings


@pytest.fixture
def invoke():
    """Run a command with every flag and return the settings that it loaded."""

    def run(*arguments):
        loaded = []

        @click.command()
        @settings_options()
        def command(**flags):
            loaded.append(load_settings(flags))

        result = CliRunner().invoke(command, arguments, catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return loaded[0]

    return run


def help_text(*keys):
    @click.command()
    @settings_options(*keys)
    def command(**flags):
        pass

    return " ".join(CliRunner().invoke(command, ["--help"]).output.split())


def test_every_setting_but_the_model_has_a_flag_with_its_description():
    text = help_text()
    for key, field in Settings.model_fields.items():
        if key != "model":
            assert f"{flag_name(key)} " in text
            assert " ".join(field.description.split()) in text


def test_choices_are_those_of_the_setting():
    text = help_text()
    for key, field in Settings.model_fields.items():
        if get_origin(field.annotation) is Literal:
            assert f"{flag_name(key)} [{'|'.join(get_args(field.annotation))}]" in text


def test_a_command_may_take_only_the_flags_that_it_names():
    text = help_text("home", "log_level")
    assert "--home" in text
    assert "--log-level" in text
    assert "--port" not in text


def test_without_flags_the_settings_are_the_defaults(invoke):
    assert invoke() == Settings()


def test_flags_reach_the_settings(invoke):
    settings = invoke(
        "--port", "0", "--kv-cache-memory", "1GiB", "--no-enable-prefix-caching", "--threads", "2"
    )
    assert settings == Settings(port=0, kv_cache_memory="1GiB", enable_prefix_caching=False, threads=2)


def test_the_api_key_may_repeat(invoke):
    assert invoke("--api-key", "first", "--api-key", "second").api().api_keys == ("first", "second")


def test_an_empty_flag_is_not_taken_for_an_absent_one():
    @click.command()
    @settings_options()
    def command(**flags):
        load_settings(flags)

    result = CliRunner().invoke(command, ["--api-key", ""])
    assert "an API key must not be empty" in str(result.exception)


@pytest.mark.parametrize(
    ("key", "value"),
    [("deterministic", True), ("deterministic", False), ("port", 9000), ("dtype", "bfloat16")],
)
def test_a_setting_can_be_handed_on_as_a_flag(invoke, key, value):
    assert getattr(invoke(flag_text(key, value)), key) == value
