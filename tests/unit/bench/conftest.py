"""What several tests of the bench room use."""

import socket

import pytest


@pytest.fixture
def unused_port():
    """A port on loopback on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
