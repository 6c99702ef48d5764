import errno
import os

import pytest
from filelock import FileLock

from ondol.errors import DoesNotFit, ModelNotFound, ModelRefused
from ondol.model_manager.store import ModelStore, check_space, read_record


def register_and_interrupt(store):
    with store.staging("tiny") as folder:
        (folder / "config.json").write_text("{}")
        raise KeyboardInterrupt


@pytest.fixture
def store(tmp_path):
    return ModelStore(tmp_path)


def register(store, name):
    with store.staging(name) as folder:
        (folder / "config.json").write_text("{}")


def test_a_staged_folder_becomes_a_registered_model(store, tmp_path):
    register(store, "tiny")
    assert store.names() == ("tiny",)
    assert store.find("tiny") == tmp_path / "models" / "tiny"
    assert list((tmp_path / "tmp").iterdir()) == []


def test_a_store_that_nobody_has_used_is_empty(store):
    assert store.names() == ()
    assert store.find("tiny") is None


def test_an_error_while_staging_registers_nothing_and_leaves_nothing(store, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        register_and_interrupt(store)
    assert store.names() == ()
    assert list((tmp_path / "tmp").iterdir()) == []


def test_a_full_disk_is_one_sentence_and_registers_nothing(store, tmp_path):
    with pytest.raises(DoesNotFit, match="ran full"), store.staging("tiny"), open("/dev/full", "wb") as full:
        full.write(b"x" * 100_000)
    assert store.names() == ()
    assert list((tmp_path / "tmp").iterdir()) == []


def test_other_errors_of_the_disk_stay_what_they_are(store):
    with pytest.raises(PermissionError), store.staging("tiny"):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


def test_leftovers_of_dead_pulls_are_removed_and_those_of_live_ones_kept(store, tmp_path):
    for leftover in ("tiny.abc", "dead.abc", "alive.v1.abc", "not ours"):
        (tmp_path / "tmp" / leftover).mkdir(parents=True)
    (tmp_path / "locks").mkdir()
    with FileLock(tmp_path / "locks" / "alive.v1.lock"):
        register(store, "tiny")
    assert sorted(path.name for path in (tmp_path / "tmp").iterdir()) == ["alive.v1.abc", "not ours"]


def test_a_foreign_folder_in_the_way_is_named_and_kept(store, tmp_path):
    (tmp_path / "models" / "tiny").mkdir(parents=True)
    with pytest.raises(ModelRefused, match="in the way"):
        register(store, "tiny")
    assert (tmp_path / "models" / "tiny").is_dir()


def test_names_that_leave_the_store_are_not_looked_up(store):
    with pytest.raises(ModelNotFound):
        store.find("../tiny")


def test_a_free_lock_is_taken_without_waiting(store):
    waits = []
    with store.lock("tiny", lambda: waits.append(1)):
        pass
    with store.lock("tiny", lambda: waits.append(1)):
        pass
    assert waits == []


def test_too_little_space_is_refused_with_both_numbers(tmp_path):
    with pytest.raises(DoesNotFit, match=r"1000000\.00 GB.*GB left"):
        check_space(tmp_path, 10**15)


def test_a_folder_from_elsewhere_has_no_record(tmp_path):
    assert read_record(tmp_path) == {}
