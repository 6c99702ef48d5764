import pytest


@pytest.fixture(autouse=True)
def own_compiler_cache(monkeypatch, tmp_path):
    """Triton compiles anew for every test, and leaves nothing behind."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
