"""`ondol serve` of a model that is not here yet: the daemon answers while the model is on its way."""

import signal
import socket

import httpx
import pytest
from support.daemon import Daemon, has_ended, poll
from support.fake_hub import REPO, FakeHub
from support.served_models import save_served_model

WEIGHTS = "model.safetensors"
LEAVE_TIMEOUT_S = 5


@pytest.fixture
def hub(tmp_path, monkeypatch):
    folder = save_served_model(tmp_path / "published")
    with FakeHub({file.name: file.read_bytes() for file in folder.iterdir()}).serve() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.base_url)
        monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
        monkeypatch.delenv("HF_HUB_CACHE", raising=False)
        monkeypatch.delenv("HF_TOKEN", raising=False)
        yield hub


@pytest.fixture
def daemon(hub, tmp_path):
    """Serves the Hub's model, whose weights the Hub holds back."""
    hub.holds[WEIGHTS] = 1000
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with Daemon(REPO, "--home", str(tmp_path / "home"), "--port", str(port)) as daemon:
        daemon.url = f"http://127.0.0.1:{port}"
        poll(lambda: status_of(daemon), lambda status: status == "downloading", timeout_s=90)
        yield daemon


def status_of(daemon):
    try:
        entries = daemon.get("models").json()["data"]
    except httpx.TransportError:
        return None
    return next((entry["status"]["value"] for entry in entries if entry["id"] == REPO), None)


def test_probes_answer_while_the_model_comes_and_then_it_is_served(daemon, hub):
    assert daemon.get("health").status_code == 200
    ready = daemon.get("ready")
    assert (ready.status_code, ready.json()["status"]) == (503, "loading")
    hub.holds.clear()
    hub.release.set()
    daemon.wait_until_serving()
    assert [card["id"] for card in daemon.get("v1/models").json()["data"]] == [REPO]


@pytest.mark.parametrize(("which", "expected_code"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)])
def test_a_signal_while_the_model_comes_ends_everything_at_once(daemon, which, expected_code):
    (fetching,) = daemon.engine_ids()
    daemon.send_signal(which)
    assert daemon.end(LEAVE_TIMEOUT_S) == (expected_code, "")
    assert has_ended(fetching)
    assert not any("Traceback" in line for line in daemon.seen), "\n".join(daemon.seen)
