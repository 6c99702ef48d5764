import re
import tomllib
from pathlib import Path

import pytest
from pydantic import ValidationError

from ondol.config import (
    EngineSettings,
    ManagerSettings,
    QuantizationSettings,
    Settings,
    load_settings,
    setting_text,
)
from ondol.errors import ConfigError

DEFAULT_TOML = Path(__file__).parents[3] / "configs" / "default.toml"


def test_default_toml_documents_every_setting_and_no_other():
    text = DEFAULT_TOML.read_text(encoding="utf-8")
    keys = re.findall(r"^(?:# )?([a-z0-9_]+) = ", text, flags=re.MULTILINE)
    assert sorted(keys) == sorted(Settings.model_fields)


def test_default_toml_holds_the_defaults():
    settings = load_settings({"config": str(DEFAULT_TOML)})
    assert settings == Settings()


def test_the_lines_that_default_toml_leaves_out_are_valid_too(tmp_path):
    text = DEFAULT_TOML.read_text(encoding="utf-8")
    given = tmp_path / "all.toml"
    given.write_text(re.sub(r"^# ([a-z0-9_]+ = )", r"\1", text, flags=re.MULTILINE), encoding="utf-8")
    assert set(tomllib.loads(given.read_text(encoding="utf-8"))) == set(Settings.model_fields)
    assert load_settings({"config": str(given)}).api_key_file == Path("/etc/ondol/keys")


def test_every_setting_has_a_description():
    assert all(field.description for field in Settings.model_fields.values())


def test_settings_are_frozen():
    with pytest.raises(ValidationError, match="frozen"):
        Settings().port = 1


def test_settings_built_from_keywords_do_not_read_the_environment(monkeypatch):
    monkeypatch.setenv("ONDOL_PORT", "9000")
    assert Settings().port == 8000


def test_the_api_group_holds_all_keys_in_the_clear(tmp_path):
    key_file = tmp_path / "keys"
    key_file.write_text("# team\n\nthird\n  fourth \n", encoding="utf-8")
    settings = load_settings({"api_key": ("first", "second"), "api_key_file": str(key_file)})
    assert settings.api().api_keys == ("first", "second", "third", "fourth")


@pytest.mark.parametrize("content", [None, "", "# only a comment\n"])
def test_a_key_file_without_a_key_is_an_error_and_never_an_open_door(tmp_path, content):
    key_file = tmp_path / "keys"
    if content is not None:
        key_file.write_text(content, encoding="utf-8")
    with pytest.raises(ConfigError, match=re.escape(str(key_file))):
        load_settings({"api_key_file": str(key_file)}).api()


def test_the_engine_group_translates_sizes_and_auto():
    settings = load_settings({"kv_cache_memory": "2GiB", "max_model_len": "auto", "threads": "3"})
    assert settings.engine() == EngineSettings(
        device="auto",
        dtype="auto",
        quantization=QuantizationSettings("none", "auto", False, "uint8", (), False),
        max_model_len=None,
        max_num_seqs=64,
        max_num_batched_tokens=None,
        kv_cache_bytes=2 * 2**30,
        block_size=16,
        enable_prefix_caching=True,
        num_threads=3,
    )


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [("2GiB", 2**31), ("500MB", 500_000_000), ("4096", 4096), ("1.5 GiB", 3 * 2**29), ("auto", None)],
)
def test_the_cache_size_is_read_in_the_usual_units(text, size_bytes):
    assert load_settings({"kv_cache_memory": text}).engine().kv_cache_bytes == size_bytes


@pytest.mark.parametrize("text", ["2GiB", "8MiB", "3KiB", "500000001"])
def test_a_size_is_shown_exactly(text):
    assert setting_text("kv_cache_memory", load_settings({"kv_cache_memory": text}).kv_cache_memory) == text


def test_the_home_folder_may_begin_with_a_tilde():
    assert load_settings({"home": "~/models"}).home == Path.home() / "models"


def test_the_managers_group_holds_times_in_seconds_and_sizes_in_bytes(tmp_path):
    settings = Settings(keep_alive="1h30m", memory_budget="2GiB", max_loaded_models=3, home=tmp_path)
    assert settings.manager() == ManagerSettings(
        home=tmp_path,
        max_loaded_models=3,
        keep_alive_s=5400,
        memory_budget_bytes=2 * 2**30,
        load_on_request=True,
        max_queue_size=256,
    )
    assert setting_text("keep_alive", settings.keep_alive) == "1h30m"


def test_a_keep_alive_that_is_no_time_is_refused_with_what_is_accepted():
    with pytest.raises(ConfigError, match=r"flag --keep-alive: 'soon' is not a valid value.*give seconds"):
        load_settings({"keep_alive": "soon"})
