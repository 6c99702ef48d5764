"""A Hub and a token store of the test's own, where a test asks for them."""

import pytest
from huggingface_hub import constants, hf_api
from support.fake_hub import FakeHub


@pytest.fixture
def fake_hub(monkeypatch, tmp_path):
    """A Hub with one model, which knows no token yet; nobody is logged in."""
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_OIDC_RESOURCE", "HTTP_PROXY", "http_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "hf" / "token"))
    monkeypatch.setattr(constants, "HF_STORED_TOKENS_PATH", str(tmp_path / "hf" / "stored_tokens"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf" / "cache"))
    with FakeHub({"config.json": b"{}", "model.safetensors": b""}).serve() as hub:
        # The library made these of HF_ENDPOINT when it was imported.
        monkeypatch.setattr(constants, "ENDPOINT", hub.base_url)
        file_urls = f"{hub.base_url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", file_urls)
        monkeypatch.setattr(hf_api.api, "endpoint", hub.base_url)
        yield hub
