"""What cannot be found out is None, and what is said is true."""

import subprocess

from ondol.bench.provenance import commit_of, load_average, model_record, provenance


def git(folder, *arguments):
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.com", "-c", "commit.gpgsign=false"]
    return subprocess.run(
        ["git", *identity, *arguments], cwd=folder, check=True, capture_output=True, text=True
    ).stdout.strip()


def test_versions_and_machine_are_told():
    found = provenance(("httpx", "no-such-package-anywhere"))
    assert found["versions"]["httpx"]
    assert found["versions"]["no-such-package-anywhere"] is None
    assert found["machine"]["num_cores"] >= 1
    assert found["machine"]["memory_bytes"] > 0
    assert load_average() is None or len(load_average()) == 3


def test_the_commit_of_a_tracked_file_and_whether_the_tree_differs(tmp_path):
    source = tmp_path / "source.py"
    source.write_text("one = 1\n")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", "source.py")
    git(tmp_path, "commit", "-q", "-m", "one")
    assert commit_of(source) == {"id": git(tmp_path, "rev-parse", "HEAD"), "is_dirty": False}
    source.write_text("one = 2\n")
    assert commit_of(source)["is_dirty"]


def test_a_file_inside_somebody_elses_repository_has_no_commit(tmp_path):
    git(tmp_path, "init", "-q")
    installed = tmp_path / "site-packages.py"
    installed.write_text("")
    assert commit_of(installed) is None


def test_the_models_record_is_read_if_there_is_one(tmp_path):
    assert model_record(tmp_path) is None
    (tmp_path / "ondol.json").write_text('{"sha256": "abc"}')
    assert model_record(tmp_path) == {"sha256": "abc"}
    (tmp_path / "ondol.json").write_text("[1]")
    assert model_record(tmp_path) is None
