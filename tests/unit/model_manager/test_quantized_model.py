import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
from support.checkpoints import save_checkpoint
from support.daemon import clean_environment
from support.tokenizers import save_byte_level_tokenizer

from ondol.errors import ConfigError, DoesNotFit, ModelRefused
from ondol.model_manager.progress import Progress
from ondol.model_manager.quantized_model import quantize_model
from ondol.model_manager.resolve import from_folder
from ondol.modeling.checkpoint_writer import CheckpointWriter
from ondol.modeling.quantization_plan import SaveSettings


@pytest.fixture
def source(tmp_path):
    folder = save_checkpoint(tmp_path / "source", "llama")
    save_byte_level_tokenizer(folder)
    return folder


def quantize(source, output, method="nf4"):
    return quantize_model(from_folder(source), output, SaveSettings(method), Progress())


def names_in(folder):
    return sorted(entry.name for entry in folder.iterdir())


def test_the_copy_holds_weights_and_everything_else_that_makes_a_model(source, tmp_path):
    (source / "pytorch_model.bin").write_bytes(b"pickle")
    (source / "notes.txt").write_text("kept")
    (source / "README.md").write_text("not a model's file")
    copy = quantize(source, tmp_path / "deep" / "target")
    assert names_in(copy.path) == [
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "notes.txt",
        "ondol.json",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    assert names_in(copy.path.parent) == ["target"]
    assert copy.size_bytes == (copy.path / "model.safetensors").stat().st_size
    assert copy.size_bytes < copy.source_bytes
    record = json.loads((copy.path / "ondol.json").read_text())
    assert (record["kind"], record["method"]) == ("quantized", "nf4")
    assert record["source"] == {"kind": "folder", "path": str(source)}
    assert copy.path.stat().st_mode & 0o777 == 0o755
    assert from_folder(copy.path).name == "target"


def test_an_empty_folder_may_be_the_output_and_no_other(source, tmp_path):
    (tmp_path / "empty").mkdir()
    quantize(source, tmp_path / "empty", "int8")
    with pytest.raises(ConfigError, match="not an empty folder"):
        quantize(source, tmp_path / "empty", "int8")
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ConfigError, match="not an empty folder"):
        quantize(source, tmp_path / "file")
    with pytest.raises(ConfigError, match="--output"):
        quantize(source, tmp_path / "file" / "below")


def test_a_disk_without_room_is_noticed_before_anything_is_written(source, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage._replace(free=10_000))
    with pytest.raises(DoesNotFit, match=r"of disk, but .* 0\.00 GB left"):
        quantize(source, tmp_path / "target")
    assert names_in(tmp_path) == ["source"]


def test_a_disk_that_runs_full_leaves_nothing(source, tmp_path, monkeypatch):
    def write(self, name, tensor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(CheckpointWriter, "write", write)
    with pytest.raises(DoesNotFit, match="ran full"):
        quantize(source, tmp_path / "target")
    assert names_in(tmp_path) == ["source"]


def test_a_refused_model_leaves_nothing(source, tmp_path):
    (source / "model.safetensors").write_bytes((source / "model.safetensors").read_bytes()[:-100])
    with pytest.raises(ModelRefused, match=r"model\.safetensors is corrupt or truncated"):
        quantize(source, tmp_path / "target")
    assert names_in(tmp_path) == ["source"]


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_an_interrupted_run_leaves_nothing(number, tmp_path):
    source = save_checkpoint(tmp_path / "source", "llama", num_hidden_layers=60, hidden_size=256)
    save_byte_level_tokenizer(source)
    command = [sys.executable, "-m", "ondol", "quantize", str(source), "--method", "nf4", "--no-measure"]
    command += ["--output", str(tmp_path / "target"), "--home", str(tmp_path / "home")]
    with subprocess.Popen(command, env=clean_environment(), stderr=subprocess.PIPE) as process:
        deadline = time.monotonic() + 60
        while not list(tmp_path.glob(".target.*/model.safetensors")):
            assert process.poll() is None, process.stderr.read()
            assert time.monotonic() < deadline
            time.sleep(0.001)
        process.send_signal(number)
        assert process.wait(30) == 130
    assert names_in(tmp_path) == ["source"]
