from pathlib import Path

import pytest
from support.fake_model import FakeModel, fake_model
from support.tokenizers import save_byte_level_tokenizer

from ondol.metrics import Metrics


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def model(tmp_path: Path) -> FakeModel:
    save_byte_level_tokenizer(tmp_path)
    return fake_model(tmp_path)


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(lambda: ())
