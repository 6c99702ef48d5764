import json

import pytest
from support.header_files import published_folder

from ondol.cli.main import run


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("compare")
    names = ("qwen2-1.5b-instruct", "llama-3-8b-instruct", "mistral-7b-v0.1")
    return {name: str(published_folder(folder / name, name)) for name in names}


@pytest.fixture
def compare(models, tmp_path):
    return lambda first, second, *flags: run(
        ["compare", models[first], models[second], "--home", str(tmp_path), *flags]
    )


def test_people_read_two_columns_and_a_warning_where_sizes_differ(compare, capsys):
    assert compare("qwen2-1.5b-instruct", "llama-3-8b-instruct") == 0
    captured = capsys.readouterr()
    cells = {line[:30].strip(): line[30:].split() for line in captured.out.splitlines()}
    assert cells["parameters"] == ["1,543,714,304", "8,030,261,248"]
    assert cells["kv heads"] == ["2", "8"]
    assert cells["head tied to embeddings"] == ["yes", "no"]
    assert "routed experts" not in cells
    assert "5.2 times the parameters" in captured.err


def test_even_models_come_without_a_warning(compare, capsys):
    assert compare("mistral-7b-v0.1", "llama-3-8b-instruct") == 0
    captured = capsys.readouterr()
    assert "sliding window" in captured.out
    assert captured.err == ""


def test_markdown_is_a_table(compare, capsys):
    assert compare("qwen2-1.5b-instruct", "llama-3-8b-instruct", "--md") == 0
    header, ruler, *rows = capsys.readouterr().out.splitlines()
    assert header == "|  | qwen2-1.5b-instruct | llama-3-8b-instruct |"
    assert ruler == "| --- | ---: | ---: |"
    assert "| layers | 28 | 32 |" in rows


def test_programs_read_both_models(compare, capsys):
    assert compare("qwen2-1.5b-instruct", "llama-3-8b-instruct", "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert [model["vocab_size"] for model in report["models"]] == [151936, 128256]


def test_two_formats_at_once_are_wrong_usage(compare):
    assert compare("qwen2-1.5b-instruct", "llama-3-8b-instruct", "--json", "--md") == 2


def test_help_has_an_example(capsys):
    assert run(["compare", "--help"]) == 0
    assert "ondol compare qwen2-1.5b-instruct" in capsys.readouterr().out
