import errno
import io
import json
import os

import pytest
import torch
from safetensors.torch import load_file, save_file
from support import gguf_files
from support.checkpoints import reference_model, save_checkpoint
from support.tokenizers import save_byte_level_tokenizer

from ondol.errors import ConfigError, DoesNotFit, ModelRefused
from ondol.model_manager import imported_model as module
from ondol.model_manager.imported_model import import_model
from ondol.model_manager.progress import Progress
from ondol.model_manager.resolve import resolve
from ondol.model_manager.store import ModelStore
from ondol.text.tokenizer import TextTokenizer


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    folder = tmp_path_factory.mktemp("original") / "나의-모델"
    save_checkpoint(folder, "qwen2", max_shard_size="100KB")
    save_byte_level_tokenizer(folder)
    (folder / "README.md").write_text("# mine")
    (folder / "pytorch_model.bin").write_bytes(b"pickle")
    return folder


@pytest.fixture
def home(tmp_path):
    return tmp_path / "home"


@pytest.fixture
def run(home):
    def run(source, *, name=None, placement="auto", stream=None):
        return import_model(source, ModelStore(home), name, placement, Progress(stream or io.StringIO()))

    return run


def nothing_is_registered(home):
    return ModelStore(home).names() == () and not any((home / "tmp").iterdir())


def damaged_copy(original, tmp_path, damage):
    folder = tmp_path / "damaged"
    folder.mkdir()
    for file in original.iterdir():
        os.link(file, folder / file.name)
    damage(folder)
    return folder


def test_a_folder_is_registered_under_its_own_name_with_what_a_model_needs(original, home, run):
    stream = io.StringIO()
    folder = run(original, stream=stream)
    assert folder == home / "models" / "나의-모델"
    taken = {file.name for file in original.iterdir()} - {"README.md", "pytorch_model.bin"}
    assert {file.name for file in folder.iterdir()} == taken | {"ondol.json"}
    record = json.loads((folder / "ondol.json").read_text())
    assert (record["kind"], record["path"]) == ("import", str(original))
    assert "registered" in stream.getvalue()
    assert resolve("나의-모델", home).source == record


def inodes(folder):
    return {file.stat().st_ino for file in folder.glob("*.safetensors")}


def test_weights_are_linked_where_the_file_system_can_and_the_rest_is_copied(original, run):
    folder = run(original, name="linked")
    assert inodes(folder) == inodes(original)
    assert (folder / "config.json").stat().st_ino != (original / "config.json").stat().st_ino


def test_weights_are_copied_when_asked(original, run):
    folder = run(original, name="copied", placement="copy")
    assert not inodes(folder) & inodes(original)
    for file in original.glob("*.safetensors"):
        assert (folder / file.name).read_bytes() == file.read_bytes()


@pytest.fixture
def no_links(monkeypatch):
    def link(source, target):
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(module.os, "link", link)


def test_weights_are_copied_where_the_file_system_cannot_link(original, run, no_links):
    assert not inodes(run(original, name="copied")) & inodes(original)


def test_links_that_cannot_be_made_are_an_error_only_when_asked_for(original, home, run, no_links):
    with pytest.raises(ConfigError, match="--link"):
        run(original, name="linked", placement="link")
    assert nothing_is_registered(home)


def test_a_snapshot_of_links_is_registered_by_its_contents(original, tmp_path, run):
    snapshot = tmp_path / "snapshot"
    snapshot.mkdir()
    for file in original.iterdir():
        (snapshot / file.name).symlink_to(file)
    folder = run(snapshot)
    assert not any(file.is_symlink() for file in folder.iterdir())
    assert inodes(folder) == inodes(original)


def remove(name):
    return lambda folder: (folder / name).unlink()


def cut_a_shard(folder):
    shard = sorted(folder.glob("*.safetensors"))[0]
    content = shard.read_bytes()
    shard.unlink()
    shard.write_bytes(content[:-100])


def lose_a_tensor(folder):
    shard = sorted(folder.glob("*.safetensors"))[-1]
    tensors = load_file(shard)
    tensors.popitem()
    shard.unlink()
    save_file(tensors, shard)


def unknown_model_type(folder):
    (folder / "config.json").unlink()
    (folder / "config.json").write_text('{"model_type": "mystery"}')


def only_pickle(folder):
    for file in (*folder.glob("*.safetensors"), folder / "model.safetensors.index.json"):
        file.unlink()


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (remove("config.json"), r"config\.json is missing"),
        (remove("tokenizer.json"), r"tokenizer\.json or tokenizer\.model is missing"),
        (lambda folder: sorted(folder.glob("*.safetensors"))[1].unlink(), r"00002-of-.* is missing"),
        (cut_a_shard, "corrupt or truncated"),
        (lose_a_tensor, "lacks the tensor"),
        (unknown_model_type, "'mystery'"),
        (only_pickle, "only pickled weights"),
    ],
)
def test_what_could_not_be_served_is_refused_and_not_registered(
    original, tmp_path, home, run, damage, reason
):
    with pytest.raises(ModelRefused, match=reason):
        run(damaged_copy(original, tmp_path, damage))
    assert ModelStore(home).names() == ()


def test_a_name_that_is_taken_is_refused_with_the_ways_out(original, run):
    run(original, name="mine")
    with pytest.raises(ConfigError, match=r"--name, or run `ondol rm mine`"):
        run(original, name="mine")


@pytest.mark.parametrize("name", ["../mine", "a/b", ".hidden", "my model", ""])
def test_a_name_that_is_none_is_refused(original, home, run, name):
    with pytest.raises(ConfigError, match="--name"):
        run(original, name=name)


@pytest.mark.parametrize("source", ["missing", "missing.gguf", "notes.txt"])
def test_what_is_neither_a_folder_nor_a_gguf_file_is_refused(tmp_path, run, source):
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(ConfigError, match=f"{source} is neither a model folder nor a .gguf file"):
        run(tmp_path / source)


def test_space_is_checked_before_anything_is_written(original, home, run, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda folder: type("Usage", (), {"free": 1000}))
    with pytest.raises(DoesNotFit):
        run(original, placement="copy")
    assert nothing_is_registered(home)


def test_an_interrupted_import_registers_nothing(original, home, run, monkeypatch):
    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "_copy", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(original, placement="copy")
    assert nothing_is_registered(home)


@pytest.fixture
def gguf(tmp_path):
    vocab_size = len(gguf_files.vocabulary())
    checkpoint = save_checkpoint(tmp_path / "checkpoint", "qwen2", vocab_size=vocab_size)
    return gguf_files.checkpoint_to_gguf(checkpoint, tmp_path / "tiny-qwen2.gguf")


def test_a_gguf_file_becomes_a_registered_folder_that_computes_the_same(gguf, tmp_path, home, run):
    folder = run(gguf)
    assert folder == home / "models" / "tiny-qwen2"
    record = json.loads((folder / "ondol.json").read_text())
    assert (record["kind"], record["file"]) == ("gguf", str(gguf))
    ids = torch.arange(3, 40)[None]
    with torch.no_grad():
        expected = reference_model(tmp_path / "checkpoint")(ids).logits
        assert torch.equal(reference_model(folder)(ids).logits, expected)
    assert TextTokenizer.load(folder).chat_template is not None


def test_a_gguf_file_without_all_weights_is_not_registered(gguf, tmp_path, home, run):
    weights = gguf_files.random_weights()
    del weights["blk.1.ffn_up.weight"]
    with pytest.raises(ModelRefused, match=r"lacks the tensor model\.layers\.1\.mlp\.up_proj\.weight"):
        run(gguf_files.write_gguf(tmp_path / "partial.gguf", weights))
    assert nothing_is_registered(home)


def test_space_for_the_unpacked_weights_is_checked_first(gguf, home, run, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda folder: type("Usage", (), {"free": 60_000_000}))
    with pytest.raises(DoesNotFit):
        run(gguf)
    assert nothing_is_registered(home)
