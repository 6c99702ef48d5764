"""`ondol serve` as a process of its own: what it prints and how it ends."""

import json
import signal
import urllib.request

import pytest
from support.daemon import Daemon, has_ended
from support.served_models import save_served_model


@pytest.fixture
def serve():
    daemons = []

    def start(*arguments):
        daemons.append(Daemon(*arguments))
        return daemons[-1]

    yield start
    for daemon in daemons:
        daemon.close()


@pytest.fixture
def model_folder(tmp_path):
    return save_served_model(tmp_path / "tiny-llama")


@pytest.mark.parametrize(
    ("name_flag", "name", "sent"),
    [
        (["--served-model-name", "my-model"], "my-model", signal.SIGTERM),
        pytest.param([], "tiny-llama", signal.SIGINT, marks=pytest.mark.slow),
    ],
)
def test_it_serves_under_the_folders_or_a_chosen_name_until_a_signal_ends_it(
    serve, model_folder, name_flag, name, sent
):
    daemon = serve(str(model_folder), *name_flag)
    url = daemon.wait_for_line(rf"serving {name} on (http://127\.0\.0\.1:\d+)").group(1)
    with urllib.request.urlopen(f"{url}/v1/models", timeout=10) as response:
        assert [card["id"] for card in json.load(response)["data"]] == [name]
    engines = daemon.engine_ids()
    assert engines
    daemon.process.send_signal(sent)
    assert daemon.end() == (0, "")
    assert all(has_ended(process_id) for process_id in engines)
    assert not any("Traceback" in line for line in daemon.seen)


def test_a_corrupt_checkpoint_ends_it_with_one_reason_and_the_documented_code(serve, model_folder):
    (weights,) = model_folder.glob("*.safetensors")
    weights.write_bytes(weights.read_bytes()[:1000])
    daemon = serve(str(model_folder))
    code, _ = daemon.end()
    assert code == 8
    assert daemon.seen[-1].startswith("ondol: error: ")
    assert not any("Traceback" in line for line in daemon.seen)
