"""One real daemon with three tiny models: listed, loaded, watched, unloaded and removed by its clients."""

import json
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from support.daemon import IDLE, Daemon, poll
from support.served_models import ENDLESS, save_served_model

from ondol.cli.main import run

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """A store with two models, and a folder outside of it."""
    home = tmp_path_factory.mktemp("home")
    for name in ("alpha", "beta"):
        save_served_model(home / "models" / name)
    save_served_model(home / "elsewhere" / "own", max_position_embeddings=ENDLESS + 1000)
    return home


@pytest.fixture(scope="module")
def daemon(home) -> Iterator[Daemon]:
    arguments = (str(home / "elsewhere" / "own"), "--home", str(home), "--max-loaded-models", "2")
    with Daemon(*arguments, "--kv-cache-memory", "64MiB") as daemon:
        yield daemon.wait_until_serving()


@pytest.fixture
def ondol(daemon) -> Callable[..., int]:
    """Runs a command of the terminal against the daemon; returns its exit code."""
    return lambda *words: run([*words, "--url", daemon.url])


def statuses(daemon: Daemon) -> dict[str, str]:
    answer = daemon.get("models")
    assert answer.status_code == 200
    here = [entry for entry in answer.json()["data"] if entry["in_cache"]]
    return {entry["id"]: entry["status"]["value"] for entry in here}


def post(daemon: Daemon, path: str, **body: object) -> httpx.Response:
    return httpx.post(f"{daemon.url}/{path}", json=body, timeout=120)


def test_what_is_on_this_machine_is_listed_and_openais_client_may_name_it(daemon):
    assert statuses(daemon) == {"own": "loaded", "alpha": "unloaded", "beta": "unloaded"}
    with daemon.openai() as client:
        assert {model.id for model in client.models.list()} == {"own", "alpha", "beta"}


def test_a_load_is_watched_and_its_engine_ends_with_the_unload(daemon):
    events: list[dict] = []
    is_watching = threading.Event()

    def watch() -> None:
        with httpx.stream("GET", f"{daemon.url}/models/sse", timeout=120) as stream:
            is_watching.set()
            for line in stream.iter_lines():
                if line.startswith("data: "):
                    events.append(json.loads(line.removeprefix("data: ")))
                    if events[-1]["data"]["status"] == "unloaded":
                        return

    watcher = threading.Thread(target=watch)
    watcher.start()
    assert is_watching.wait(30)
    num_engines = len(daemon.engine_ids())

    assert post(daemon, "models/load", model="alpha").json() == {"model": "alpha", "success": True}
    poll(lambda: statuses(daemon)["alpha"], lambda status: status == "loaded", timeout_s=120)
    assert len(daemon.engine_ids()) == num_engines + 1
    with daemon.openai() as client:
        assert client.completions.create(model="alpha", prompt="온돌", max_tokens=3).model == "alpha"
    assert post(daemon, "models/unload", model="alpha").status_code == 200
    assert len(daemon.engine_ids()) == num_engines

    watcher.join(30)
    assert {event["model"] for event in events} == {"alpha"}
    told = [event["data"]["status"] for event in events]
    assert list(dict.fromkeys(told)) == ["loading", "loaded", "unloading", "unloaded"]
    stages = [event["data"]["progress"]["current"] for event in events if "progress" in event["data"]]
    assert (stages[0], stages[-1]) == ("starting", "weights")


def test_the_terminal_loads_lists_and_stops(daemon, ondol, capsys):
    assert ondol("load", "beta", "--context", "64", "--keep-alive", "1h", "--json") == 0
    printed = capsys.readouterr()
    entry = json.loads(printed.out)
    assert (entry["max_model_len"], entry["pinned"]) == (64, False)
    assert "beta: loading" in printed.err
    assert ondol("ps", "--json") == 0
    listed = {entry["id"]: entry for entry in json.loads(capsys.readouterr().out)}
    assert listed.keys() == {"own", "beta"}
    assert listed["own"]["pinned"] is True
    assert listed["beta"]["memory"]["total_bytes"] > listed["beta"]["memory"]["kv_cache_bytes"] > 0
    assert ondol("stop", "beta") == 0
    assert statuses(daemon)["beta"] == "unloaded"
    assert ondol("load", "nobody") == 3


def test_a_model_that_answers_is_not_unloaded(daemon):
    with daemon.openai() as client:
        stream = client.completions.create(
            model="own", prompt="온돌", max_tokens=ENDLESS, extra_body={"ignore_eos": True}, stream=True
        )
        next(iter(stream))
        assert post(daemon, "models/unload", model="own").status_code == 409
        stream.close()
    daemon.wait_for_metrics(IDLE)


def test_a_served_folder_goes_by_its_name_and_is_not_ours_to_remove(daemon):
    """It is loaded already, so an order for it changes nothing, and one after an unload brings it back."""
    engines = daemon.engine_ids()
    assert httpx.delete(f"{daemon.url}/models", params={"model": "own"}).status_code == 400
    assert post(daemon, "models/load", model="own", wait=True).status_code == 200
    assert daemon.engine_ids() == engines
    assert post(daemon, "models/unload", model="own", wait=True).status_code == 200
    assert post(daemon, "models/load", model="own", wait=True).json()["data"]["status"] == {"value": "loaded"}


@pytest.mark.slow  # a process that imports torch, and what it says is held by tests of its own
def test_what_would_fit_is_told_before_a_load(daemon):
    answer = httpx.get(f"{daemon.url}/models/fit", params={"model": "alpha", "context": 64}, timeout=120)
    assert answer.status_code == 200, answer.text
    assert answer.json()["forms"]


def test_a_removed_model_is_gone(daemon, home):
    assert httpx.delete(f"{daemon.url}/models", params={"model": "beta"}).status_code == 200
    assert not (home / "models" / "beta").exists()
    assert "beta" not in statuses(daemon)
    assert httpx.delete(f"{daemon.url}/models", params={"model": "beta"}).status_code == 404


def test_an_open_watch_does_not_hold_up_the_end(daemon):
    """Comes last: it ends the daemon of this module."""
    with httpx.stream("GET", f"{daemon.url}/models/sse", timeout=60) as stream:
        daemon.send_signal(signal.SIGTERM)
        text = "".join(stream.iter_text())
    assert "shutting_down" in text
    assert daemon.process.wait(timeout=20) == 0
