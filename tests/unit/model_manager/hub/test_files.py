import json

import pytest

from ondol.errors import ModelRefused
from ondol.model_manager.hub.files import check_folder, missing_files, model_files, refuse_original_llama


@pytest.fixture
def folder(tmp_path):
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        (tmp_path / name).write_text("{}")
    return tmp_path


def test_a_publishers_second_layout_is_left_out():
    paths = [
        "config.json",
        "model.safetensors",
        "consolidated.safetensors",
        "params.json",
        "onnx/config.json",
    ]
    assert model_files("a/b", paths) == ["config.json", "model.safetensors"]


def test_the_hugging_face_edition_of_llama_2_is_named():
    with pytest.raises(ModelRefused, match="Use meta-llama/Llama-2-7b-hf instead"):
        model_files("meta-llama/Llama-2-7b", ["consolidated.00.pth", "params.json"])


def test_a_repository_without_a_config_is_refused():
    with pytest.raises(ModelRefused, match=r"config\.json"):
        model_files("a/b", ["model.safetensors"])


def test_a_complete_folder_passes(folder):
    check_folder(folder)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json"])
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(ModelRefused, match=name):
        check_folder(folder)


def test_a_folder_of_pickles_is_refused(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ModelRefused, match="pickled"):
        check_folder(folder)


def test_an_empty_folder_is_told_what_it_lacks(tmp_path):
    with pytest.raises(ModelRefused, match=r"config\.json is missing"):
        check_folder(tmp_path)


def test_a_missing_shard_is_named(folder):
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    assert missing_files(folder) == ["model-00002-of-00002.safetensors"]


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"weight_map": 1}', '{"weight_map": {"a": {}}}', "{nonsense"]
)
def test_a_broken_index_of_shards_is_refused(folder, text):
    (folder / "model.safetensors.index.json").write_text(text)
    with pytest.raises(ModelRefused, match="index"):
        check_folder(folder)


@pytest.mark.parametrize("size", ["7b", "13b", "70b"])
@pytest.mark.parametrize("kind", ["", "-chat"])
def test_metas_own_editions_of_llama_2_are_refused_by_name(size, kind):
    repo = f"meta-llama/Llama-2-{size}{kind}"
    with pytest.raises(ModelRefused, match=f"Use {repo}-hf instead"):
        refuse_original_llama(repo)
    refuse_original_llama(f"{repo}-hf")
