"""A front door around a fake model with a real byte-level tokenizer."""

from pathlib import Path

import pytest
from support.fake_model import FakeModel, fake_model
from support.front_door import FrontDoor, open_front_door
from support.tokenizers import save_byte_level_tokenizer


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def tokenizer_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    save_byte_level_tokenizer(folder)
    return folder


@pytest.fixture
async def model(tokenizer_folder: Path) -> FakeModel:
    return fake_model(tokenizer_folder)


@pytest.fixture
async def door(model: FakeModel) -> FrontDoor:
    return open_front_door(model)
