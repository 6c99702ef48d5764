import json

import pytest

from ondol.cli.main import run
from ondol.model_manager.store import ModelStore


@pytest.fixture(autouse=True)
def empty_hub_cache(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub-cache"))


def test_list_is_a_table_with_a_line_for_each_model(tmp_path, capsys):
    assert run(["list", "--home", str(tmp_path)]) == 0
    captured = capsys.readouterr()
    lines = captured.out.splitlines()
    assert lines[0].split() == ["NAME", "STATUS", "SIZE", "QUANTIZATION", "GATED", "SOURCE"]
    assert any(line.split()[:5] == ["starter", "available", "-", "-", "-"] for line in lines)
    assert any(line.split()[:5] == ["llama-2-7b", "available", "-", "-", "yes"] for line in lines)
    assert captured.err == ""


def test_list_as_json_says_the_same_for_programs(tmp_path, capsys):
    with ModelStore(tmp_path).staging("mine") as folder:
        (folder / "config.json").write_text("{}")
    assert run(["list", "--json", "--home", str(tmp_path)]) == 0
    listings = {listing["name"]: listing for listing in json.loads(capsys.readouterr().out)}
    assert listings["mine"]["status"] == "ready"
    assert listings["mine"]["size_bytes"] == 2
    assert listings["starter"]["path"] is None
    assert listings["llama-2-7b"]["is_gated"] is True
