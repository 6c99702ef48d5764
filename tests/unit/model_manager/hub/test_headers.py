import json

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save
from support.fake_hub import COMMIT, REPO, Busy

from ondol.errors import AccessDenied, ModelRefused, SourceUnreachable
from ondol.model_manager.catalog import HubSource
from ondol.model_manager.hub import headers as headers_module
from ondol.model_manager.hub.headers import fetch_outline

SOURCE = HubSource(repo=REPO)
WEIGHTS = {"a": np.zeros((512, 512), np.float32), "b": np.ones(7, np.float16)}


@pytest.fixture
def weights_hub(fake_hub):
    publish(fake_hub, "model.safetensors", save(WEIGHTS))
    publish(fake_hub, "quantize_config.json", b'{"bits": 4}')
    publish(fake_hub, "tokenizer_config.json", b"{}")
    return fake_hub


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "outline"
    path.mkdir()
    return path


def publish(fake_hub, name, content):
    fake_hub.files[name] = fake_hub.delivered[name] = content


def with_header(header, num_data_bytes=0):
    encoded = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(encoded).to_bytes(8, "little") + encoded + b"\0" * num_data_bytes


def test_an_outline_has_the_headers_and_configurations_and_takes_no_disk_for_weights(
    weights_hub, hub, folder
):
    outline = fetch_outline(SOURCE, folder, hub=hub)
    size_bytes = len(weights_hub.files["model.safetensors"])
    assert (outline.folder, outline.repo, outline.commit) == (folder, REPO, COMMIT)
    assert outline.weight_bytes == size_bytes
    assert sorted(path.name for path in folder.iterdir()) == [
        "config.json",
        "model.safetensors",
        "quantize_config.json",
    ]
    status = (folder / "model.safetensors").stat()
    assert status.st_size == size_bytes
    assert status.st_blocks * 512 < size_bytes / 2
    with safe_open(folder / "model.safetensors", framework="numpy") as file:
        shapes = {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118
    assert shapes == {"a": [512, 512], "b": [7]}
    assert weights_hub.ranges("model.safetensors") == ["bytes=0-131071"]


def test_a_header_longer_than_the_first_read_is_read_by_a_second_range(weights_hub, hub, folder, monkeypatch):
    monkeypatch.setattr(headers_module, "FIRST_READ_BYTES", 32)
    fetch_outline(SOURCE, folder, hub=hub)
    assert [text.partition("-")[0] for text in weights_hub.ranges("model.safetensors")] == [
        "bytes=0",
        "bytes=32",
    ]
    with safe_open(folder / "model.safetensors", framework="numpy") as file:
        assert len(file.keys()) == 2


def test_a_server_without_ranges_is_left_after_the_header(weights_hub, hub, folder, monkeypatch):
    monkeypatch.setattr(headers_module, "FIRST_READ_BYTES", 32)
    weights_hub.has_ranges = False
    weights_hub.holds["model.safetensors"] = 70_000  # it never sends the rest
    fetch_outline(SOURCE, folder, hub=hub)
    with safe_open(folder / "model.safetensors", framework="numpy") as file:
        assert len(file.keys()) == 2


def test_a_cached_model_is_outlined_without_any_request(weights_hub, hub, folder):
    snapshot = hub.pull(SOURCE)
    num_requests = len(weights_hub.requests)
    outline = fetch_outline(SOURCE, folder, hub=hub)
    assert (outline.folder, outline.commit) == (snapshot, COMMIT)
    assert outline.weight_bytes == len(weights_hub.files["model.safetensors"])
    assert len(weights_hub.requests) == num_requests


@pytest.mark.parametrize(
    "content",
    [
        (1 << 60).to_bytes(8, "little") + b"{}",
        (100_000_001).to_bytes(8, "little") + b"{}",
        bytes(8),
        b"{}",
        with_header(b"no json"),
        with_header({"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}, 15),
        with_header({"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 12]}}, 12),
        with_header({"a": {"dtype": "F32", "shape": [4], "data_offsets": [8, 24]}}, 24),
    ],
)
def test_a_wrong_header_is_refused_by_the_files_name(weights_hub, hub, folder, content):
    publish(weights_hub, "model.safetensors", content)
    with pytest.raises(ModelRefused, match=rf"model\.safetensors of {REPO} has no valid safetensors header"):
        fetch_outline(SOURCE, folder, hub=hub)


def test_a_gated_model_is_refused_with_the_page_to_open(weights_hub, hub, folder):
    weights_hub.is_gated = True
    with pytest.raises(AccessDenied) as caught:
        fetch_outline(SOURCE, folder, hub=hub)
    assert caught.value.page == f"{weights_hub.base_url}/{REPO}"


def test_a_damaged_configuration_is_refused(weights_hub, hub, folder):
    weights_hub.delivered["config.json"] = b'{"model_type": "lLama"}'
    with pytest.raises(ModelRefused, match=r"damaged config\.json"):
        fetch_outline(SOURCE, folder, hub=hub)
    assert list(folder.iterdir()) == []


def test_a_login_page_is_not_taken_for_a_header(weights_hub, hub, folder):
    weights_hub.pages.add("model.safetensors")
    with pytest.raises(SourceUnreachable, match="login page"):
        fetch_outline(SOURCE, folder, hub=hub)


def test_a_busy_hub_is_asked_again(weights_hub, hub, folder, stream):
    weights_hub.busy.append(Busy(429, {"Retry-After": "0"}, "model.safetensors"))
    fetch_outline(SOURCE, folder, hub=hub)
    assert "The Hub is busy (HTTP status 429)" in stream.getvalue()
