import pytest
from support.chat_server import ChatServer


@pytest.fixture
def server():
    with ChatServer().serve() as running:
        yield running
