import json

from ondol.cli.main import run
from ondol.config import Settings


def test_show_prints_every_setting_and_where_it_comes_from(monkeypatch, capsys):
    monkeypatch.setenv("ONDOL_MAX_MODEL_LEN", "2048")
    assert run(["config", "show", "--origin", "--port", "9"]) == 0
    rows = dict(line.split(None, 1) for line in capsys.readouterr().out.splitlines())
    assert list(rows) == list(Settings.model_fields)
    assert rows["port"].split(None, 1) == ["9", "flag --port"]
    assert rows["max_model_len"].split(None, 1) == ["2048", "env ONDOL_MAX_MODEL_LEN"]
    assert rows["threads"].split(None, 1) == ["auto", "default"]


def test_show_leaves_the_origin_out_unless_asked(capsys):
    run(["config", "show"])
    assert "default" not in capsys.readouterr().out


def test_show_as_json_is_one_object_with_typed_values(capsys):
    assert run(["config", "show", "--json", "--kv-cache-memory", "1KiB"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["kv_cache_memory"] == {"value": 1024, "origin": "flag --kv-cache-memory"}
    assert shown["max_model_len"] == {"value": None, "origin": "default"}
    assert shown["enable_prefix_caching"]["value"] is True


def test_an_api_key_is_never_printed(capsys):
    for form in ("--origin", "--json"):
        assert run(["config", "show", form, "--api-key", "sk-hidden"]) == 0
        assert "sk-hidden" not in capsys.readouterr().out
