import pytest
from hypothesis import given
from hypothesis import strategies as st

from ondol.config import Settings, flag_name, load_settings, resolve_settings
from ondol.errors import ConfigError


@pytest.fixture
def toml_file(tmp_path):
    def write(text: str) -> str:
        path = tmp_path / "ondol.toml"
        path.write_text(text, encoding="utf-8")
        return str(path)

    return write


def test_a_flag_wins_over_the_environment_over_the_file_over_the_default(monkeypatch, toml_file):
    config = toml_file("port = 1\nmax_num_seqs = 1\nhost = '::1'\n")
    monkeypatch.setenv("ONDOL_PORT", "2")
    monkeypatch.setenv("ONDOL_MAX_NUM_SEQS", "2")
    settings, origins = resolve_settings({"port": "3", "config": config})
    assert (settings.port, settings.max_num_seqs, settings.host, settings.block_size) == (3, 2, "::1", 16)
    assert origins["port"].label == "flag --port"
    assert origins["max_num_seqs"].label == "env ONDOL_MAX_NUM_SEQS"
    assert origins["host"].label == f"file {config} key host"
    assert origins["block_size"].label == "default"


def test_every_setting_has_an_origin():
    assert list(resolve_settings({})[1]) == list(Settings.model_fields)


def test_flags_that_were_not_given_count_as_absent():
    settings, origins = resolve_settings({"port": None, "api_key": (), "config": None})
    assert settings == Settings()
    assert {origin.kind for origin in origins.values()} == {"default"}


def test_a_flag_can_switch_off_what_the_environment_switches_on(monkeypatch):
    monkeypatch.setenv("ONDOL_ALLOW_UNAUTHENTICATED", "true")
    assert load_settings({"allow_unauthenticated": False}).allow_unauthenticated is False


def test_an_empty_variable_counts_as_absent(monkeypatch):
    monkeypatch.setenv("ONDOL_PORT", "")
    assert load_settings({}).port == 8000


def test_a_key_variable_may_hold_several_keys(monkeypatch):
    monkeypatch.setenv("ONDOL_API_KEY", "first, second")
    assert load_settings({}).api().api_keys == ("first", "second")


def test_the_users_own_file_is_read_where_it_exists(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    (tmp_path / "ondol").mkdir()
    (tmp_path / "ondol" / "config.toml").write_text("port = 4242\n", encoding="utf-8")
    assert load_settings({}).port == 4242


def test_a_named_file_takes_the_place_of_the_users_own(monkeypatch, tmp_path, toml_file):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    (tmp_path / "ondol").mkdir()
    (tmp_path / "ondol" / "config.toml").write_text("port = 4242\n", encoding="utf-8")
    monkeypatch.setenv("ONDOL_CONFIG", toml_file("host = '::1'\n"))
    assert (load_settings({}).host, load_settings({}).port) == ("::1", 8000)


@pytest.mark.parametrize("source", ["flag", "env"])
def test_a_named_file_must_exist(monkeypatch, tmp_path, source):
    missing = str(tmp_path / "missing.toml")
    if source == "env":
        monkeypatch.setenv("ONDOL_CONFIG", missing)
    label = "flag --config" if source == "flag" else "env ONDOL_CONFIG"
    with pytest.raises(ConfigError, match=f"{label}: there is no file .*missing.toml"):
        load_settings({"config": missing} if source == "flag" else {})


def test_an_unknown_variable_is_named_with_the_nearest_valid_one(monkeypatch):
    monkeypatch.setenv("ONDOL_MAX_MODEL_LENGTH", "1")
    with pytest.raises(
        ConfigError, match=r"env ONDOL_MAX_MODEL_LENGTH: .* did you mean ONDOL_MAX_MODEL_LEN\?"
    ):
        load_settings({})


def test_an_unknown_key_is_named_with_its_file_and_the_nearest_valid_one(toml_file):
    config = toml_file("max-model-len = 1\n")
    with pytest.raises(ConfigError) as caught:
        load_settings({"config": config})
    assert str(caught.value) == (
        f"file {config} key max-model-len: unknown setting; did you mean max_model_len?"
    )


def test_a_table_in_the_file_is_an_unknown_key(toml_file):
    with pytest.raises(ConfigError, match="key engine: unknown setting"):
        load_settings({"config": toml_file("[engine]\nport = 1\n")})


def test_an_unknown_flag_is_an_error():
    with pytest.raises(ConfigError, match="flag --prot: unknown setting; did you mean --port"):
        load_settings({"prot": "1"})


def test_a_name_that_resembles_nothing_points_to_the_list_of_settings(monkeypatch):
    monkeypatch.setenv("ONDOL_XYZZY", "1")
    with pytest.raises(ConfigError, match="ondol config show"):
        load_settings({})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("port", "http"),
        ("port", "65536"),
        ("device", "gpu"),
        ("quantization", "gptq"),
        ("max_model_len", "0"),
        ("kv_cache_memory", "2 bananas"),
        ("kv_cache_memory", "0"),
        ("enable_prefix_caching", "perhaps"),
        ("shutdown_grace_s", "-1"),
        ("shutdown_grace_s", "nan"),
    ],
)
def test_a_bad_value_is_named_with_its_source(monkeypatch, key, value):
    with pytest.raises(ConfigError, match=f"^flag {flag_name(key)}: '{value}' is not a valid value: "):
        load_settings({key: value})
    monkeypatch.setenv(f"ONDOL_{key.upper()}", value)
    with pytest.raises(ConfigError, match=f"^env ONDOL_{key.upper()}: '{value}' is not a valid value: "):
        load_settings({})


def test_a_bad_value_that_a_better_source_replaces_does_no_harm(monkeypatch):
    monkeypatch.setenv("ONDOL_PORT", "http")
    assert load_settings({"port": "8001"}).port == 8001


@pytest.mark.parametrize("text", ["port = true\n", "kv_cache_memory = false\n"])
def test_a_truth_value_is_no_number(toml_file, text):
    with pytest.raises(ConfigError, match=r"(true|false) is not a valid value"):
        load_settings({"config": toml_file(text)})


@pytest.mark.parametrize("content", [b"port = \n", b"\xff\xfe", b"port = 1\nport = 2\n"])
def test_a_file_that_is_no_toml_is_named(tmp_path, content):
    path = tmp_path / "broken.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"file .*broken\.toml: cannot be read as TOML"):
        load_settings({"config": str(path)})


@pytest.mark.parametrize("value", ["sk-hidden,,", ["sk-hidden", ""], ["sk-hidden", 7], 7])
def test_a_bad_key_is_reported_without_showing_any_key(value):
    with pytest.raises(ConfigError, match="flag --api-key") as caught:
        load_settings({"api_key": value})
    assert "sk-hidden" not in str(caught.value)
    assert "sk-hidden" not in str(caught.value.__cause__)


@given(key=st.sampled_from(sorted(set(Settings.model_fields) - {"api_key"})), value=st.text(max_size=20))
def test_any_text_in_any_flag_gives_settings_or_a_one_line_config_error(key, value):
    message = ""
    try:
        load_settings({key: value})
    except ConfigError as error:
        message = str(error)
    assert "\n" not in message
