import json
import pickle

import pytest
import torch
from safetensors.torch import save_file

from ondol.errors import ModelRefused
from ondol.modeling.checkpoint import Checkpoint

FIRST = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.ones(2)}
SECOND = {"b.weight": torch.full((4,), 7.0)}


def write_index(folder, weight_map):
    text = weight_map if isinstance(weight_map, str) else json.dumps({"weight_map": weight_map})
    (folder / "model.safetensors.index.json").write_text(text)


def write_shards(folder):
    save_file(FIRST, folder / "model-00001-of-00002.safetensors")
    save_file(SECOND, folder / "model-00002-of-00002.safetensors")
    files = dict.fromkeys(FIRST, "model-00001-of-00002.safetensors")
    write_index(folder, files | {"b.weight": "model-00002-of-00002.safetensors"})


def test_a_single_file_gives_its_tensors(tmp_path):
    save_file(FIRST, tmp_path / "model.safetensors")
    checkpoint = Checkpoint(tmp_path)
    assert checkpoint.names == FIRST.keys()
    assert checkpoint.shape_of("a.weight") == (2, 3)
    assert checkpoint.size_bytes == (tmp_path / "model.safetensors").stat().st_size
    for name, tensor in FIRST.items():
        torch.testing.assert_close(checkpoint.tensor(name), tensor)
    assert checkpoint.dtype_of("a.weight") == "F32"


def test_shards_give_all_their_tensors_and_know_whose_is_whose(tmp_path):
    write_shards(tmp_path)
    checkpoint = Checkpoint(tmp_path)
    assert checkpoint.names == {"a.weight", "a.bias", "b.weight"}
    torch.testing.assert_close(checkpoint.tensor("b.weight"), SECOND["b.weight"])
    assert checkpoint.file_of("b.weight").name == "model-00002-of-00002.safetensors"


def test_an_index_goes_before_a_single_file(tmp_path):
    write_shards(tmp_path)
    save_file({"old": torch.ones(1)}, tmp_path / "model.safetensors")
    assert "old" not in Checkpoint(tmp_path).names


@pytest.mark.parametrize("name", ["../evil.safetensors", "/etc/passwd", "sub/file.safetensors", 7])
def test_an_index_that_leaves_the_folder_is_refused(tmp_path, name):
    save_file(FIRST, tmp_path.parent / "evil.safetensors")
    write_index(tmp_path, {"a.weight": name})
    with pytest.raises(ModelRefused, match="outside the model's folder"):
        Checkpoint(tmp_path)


@pytest.mark.parametrize("name", ["..", ".", ""])
def test_an_index_that_names_a_folder_is_refused(tmp_path, name):
    write_index(tmp_path, {"a.weight": name})
    with pytest.raises(ModelRefused, match=r"outside the model's folder|is missing"):
        Checkpoint(tmp_path)


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"weight_map": []}', '{"weight_map": {"a": ["b"]}}'])
def test_an_index_that_is_none_is_refused(tmp_path, text):
    write_index(tmp_path, text)
    with pytest.raises(ModelRefused, match=r"index\.json is not a valid safetensors index"):
        Checkpoint(tmp_path)


def test_a_missing_shard_is_named(tmp_path):
    write_shards(tmp_path)
    (tmp_path / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(ModelRefused, match=r"model-00002-of-00002\.safetensors is missing"):
        Checkpoint(tmp_path)


@pytest.mark.parametrize("num_bytes", [0, 4, 20, -4])
def test_a_truncated_file_is_named(tmp_path, num_bytes):
    file = tmp_path / "model.safetensors"
    save_file(FIRST, file)
    file.write_bytes(file.read_bytes()[:num_bytes])
    with pytest.raises(ModelRefused, match=r"model\.safetensors is corrupt or truncated"):
        Checkpoint(tmp_path)


def test_a_header_that_claims_more_than_the_file_holds_is_refused(tmp_path):
    (tmp_path / "model.safetensors").write_bytes((2**62).to_bytes(8, "little") + b"{}")
    with pytest.raises(ModelRefused, match="corrupt or truncated"):
        Checkpoint(tmp_path)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "consolidated.00.pth", "model.pt", "model.ckpt"])
def test_a_folder_with_pickle_only_is_refused_without_opening_it(tmp_path, name):
    (tmp_path / name).write_bytes(pickle.dumps(Explosive()))
    with pytest.raises(ModelRefused, match=f"pickle.*{name}.*safetensors"):
        Checkpoint(tmp_path)


def test_pickle_beside_safetensors_is_not_looked_at(tmp_path):
    save_file(FIRST, tmp_path / "model.safetensors")
    (tmp_path / "pytorch_model.bin").write_bytes(pickle.dumps(Explosive()))
    assert Checkpoint(tmp_path).names == FIRST.keys()


def test_a_folder_without_weights_is_refused(tmp_path):
    with pytest.raises(ModelRefused, match=r"has no model\.safetensors"):
        Checkpoint(tmp_path)


class Explosive:
    def __reduce__(self):
        return (exit, ("a pickle was opened",))
