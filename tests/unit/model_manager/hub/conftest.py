import io

import pytest
from huggingface_hub import constants

from ondol.model_manager.hub.cache import Hub
from ondol.model_manager.progress import Progress


@pytest.fixture(autouse=True)
def token_store(monkeypatch, tmp_path):
    """A token store of the test's own, empty; whoever runs the tests may be logged in."""
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_OIDC_RESOURCE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "hf" / "token"))
    monkeypatch.setattr(constants, "HF_STORED_TOKENS_PATH", str(tmp_path / "hf" / "stored_tokens"))
    return tmp_path / "hf"


@pytest.fixture
def stream():
    return io.StringIO()


@pytest.fixture
def hub(fake_hub, tmp_path, stream):
    return Hub(Progress(stream), endpoint=fake_hub.base_url, cache=tmp_path / "hub-cache", max_wait_s=1.0)
