import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ondol.config.quantization import Method
from ondol.errors import ModelNotFound
from ondol.model_manager.catalog import (
    HubSource,
    WheelSource,
    catalog_name,
    check_name,
    is_name,
    load_catalog,
    parse_hub_id,
)

ROOT = Path(__file__).parents[3]


def test_the_catalog_knows_the_starter_by_hash_and_the_hub_original():
    catalog = load_catalog()
    starter = catalog["starter"]
    assert isinstance(starter, WheelSource)
    assert len(bytes.fromhex(starter.sha256)) == 32
    original = catalog["smollm2-135m-instruct"]
    assert isinstance(original, HubSource)
    assert (original.repo, original.revision) == ("HuggingFaceTB/SmolLM2-135M-Instruct", "main")


MODELS_OF_THE_MISSION = {
    "llama-2-7b": "meta-llama/Llama-2-7b-hf",
    "llama-2-7b-chat": "meta-llama/Llama-2-7b-chat-hf",
    "llama-2-13b-chat": "meta-llama/Llama-2-13b-chat-hf",
    "llama-2-70b-chat": "meta-llama/Llama-2-70b-chat-hf",
    "llama-3-8b-instruct": "meta-llama/Meta-Llama-3-8B-Instruct",
    "llama-3-korean-bllossom-8b": "MLP-KTLim/llama-3-Korean-Bllossom-8B",
    "mistral-7b": "mistralai/Mistral-7B-v0.1",
    "mistral-7b-instruct": "mistralai/Mistral-7B-Instruct-v0.3",
    "qwen1.5-7b-chat": "Qwen/Qwen1.5-7B-Chat",
    "qwen1.5-moe-a2.7b-chat": "Qwen/Qwen1.5-MoE-A2.7B-Chat",
    "qwen1.5-moe-a2.7b-chat-gptq-int4": "Qwen/Qwen1.5-MoE-A2.7B-Chat-GPTQ-Int4",
    "qwen2-1.5b-instruct": "Qwen/Qwen2-1.5B-Instruct",
    "qwen2-1.5b-instruct-gptq-int8": "Qwen/Qwen2-1.5B-Instruct-GPTQ-Int8",
    "qwen2-7b-instruct": "Qwen/Qwen2-7B-Instruct",
}


@pytest.mark.parametrize(("name", "repo"), MODELS_OF_THE_MISSION.items())
def test_the_models_of_the_mission_have_names(name, repo):
    source = load_catalog()[name]
    assert isinstance(source, HubSource)
    assert source.repo == repo
    assert source.is_gated == repo.startswith(("meta-llama/", "mistralai/"))


def test_every_entry_says_what_the_model_is_and_under_which_licence():
    catalog = load_catalog()
    assert list(catalog) == sorted(catalog)
    assert all(source.description and source.licence for source in catalog.values())


def test_published_quantized_weights_are_not_quantized_again():
    quantized = [source for name, source in load_catalog().items() if "gptq" in name]
    assert len(quantized) == 2
    assert [source.quantization for source in quantized] == [None, None]


def test_a_recommended_quantization_is_one_that_the_setting_takes():
    values = {source.quantization for source in load_catalog().values()} - {None}
    assert values <= set(get_args(Method))


def test_no_name_or_alias_means_two_entries():
    catalog = load_catalog()
    aliases = [alias for source in catalog.values() for alias in source.aliases]
    assert len({*catalog, *aliases}) == len(catalog) + len(aliases)
    assert all(is_name(alias) and alias == alias.casefold() for alias in aliases)
    assert {catalog_name(name, catalog) for name in (*catalog, *aliases)} == set(catalog)


@pytest.mark.slow
def test_the_catalog_travels_inside_the_wheel(tmp_path):
    """Slow: builds a wheel of the source tree's copy."""
    source = tmp_path / "source"
    shutil.copytree(
        ROOT / "server", source / "server", symlinks=True, ignore=shutil.ignore_patterns("*.egg-info")
    )
    shutil.copytree(ROOT / "configs", source / "configs")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    command = [sys.executable, "-m", "pip", "wheel", "--no-build-isolation", "--no-deps", "--quiet"]
    subprocess.run([*command, "--wheel-dir", str(tmp_path), str(source)], check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "installed")
    script = "from ondol.model_manager import catalog; print(catalog.__file__, *catalog.load_catalog())"
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": str(tmp_path / "installed")},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    module, *names = done.stdout.split()
    assert module.startswith(str(tmp_path / "installed"))
    assert names == list(load_catalog())


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../x", "a/b", "a\\b", "a\0", ".hidden", "a..b", "x" * 97, "a\n", "~"]
)
def test_a_name_that_could_leave_its_folder_is_no_name(name):
    assert not is_name(name)
    with pytest.raises(ModelNotFound):
        check_name(name)


@given(name=st.text(max_size=20))
def test_a_name_is_always_one_path_component(tmp_path_factory, name):
    root = tmp_path_factory.getbasetemp()
    if is_name(name):
        assert (root / name).resolve().parent == root.resolve()


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("owner/name", HubSource(repo="owner/name")),
        ("Qwen/Qwen2-1.5B-Instruct", HubSource(repo="Qwen/Qwen2-1.5B-Instruct")),
        ("owner/name@v1.0", HubSource(repo="owner/name", revision="v1.0")),
        ("owner/name@refs/pr/1", HubSource(repo="owner/name", revision="refs/pr/1")),
    ],
)
def test_a_hub_id_is_owner_and_name_and_perhaps_a_revision(text, source):
    assert parse_hub_id(text) == source


@pytest.mark.parametrize(
    "text",
    ["name", "a/b/c", "../name", "owner/..", "owner/name@", "owner/name@../../x", "owner/name@/x", "/x"],
)
def test_what_is_no_hub_id_is_not_taken_for_one(text):
    assert parse_hub_id(text) is None
