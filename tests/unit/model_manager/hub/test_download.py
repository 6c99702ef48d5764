import errno
import io
import logging
import os
import re
import signal
import subprocess
import sys
import threading
import time

import pytest
from huggingface_hub import scan_cache_dir, try_to_load_from_cache
from support.fake_hub import COMMIT, REPO, Visitor

from ondol.errors import DoesNotFit, ModelRefused, SourceUnreachable
from ondol.model_manager.catalog import HubSource
from ondol.model_manager.hub import download as download_module
from ondol.model_manager.hub.cache import Hub
from ondol.model_manager.hub.part import PartFile
from ondol.model_manager.progress import Progress

SOURCE = HubSource(repo=REPO)
WEIGHTS = "model.safetensors"
DEADLINE_S = 30.0
PULL_SCRIPT = """
import sys
from pathlib import Path
from ondol.model_manager.catalog import HubSource
from ondol.model_manager.hub.cache import Hub
from ondol.model_manager.hub.part import PartFile
from ondol.model_manager.progress import Progress
print(Hub(Progress(), endpoint=sys.argv[1], cache=Path(sys.argv[2])).pull(HubSource(repo=sys.argv[3])))
"""


@pytest.fixture(autouse=True)
def no_pause(monkeypatch):
    monkeypatch.setattr(download_module, "ATTEMPT_INTERVAL_S", 0.0)


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "hub-cache"


@pytest.fixture
def large_hub(fake_hub):
    """Weights of several chunks, so that a beginning of them is on the disk before the end arrives."""
    content = os.urandom(3 * download_module.CHUNK_BYTES)
    fake_hub.files[WEIGHTS] = fake_hub.delivered[WEIGHTS] = content
    return fake_hub


def parts(cache):
    """Of the weights alone: other files are on their way beside them, and stop when these fail."""
    return [path for path in cache.rglob("*.incomplete") if len(path.name.partition(".")[0]) == 64]


def test_a_connection_that_breaks_off_is_opened_again_where_it_ended(hub, large_hub):
    large_hub.cuts[WEIGHTS] = [2 * download_module.CHUNK_BYTES, 5]
    folder = hub.pull(SOURCE)
    assert (folder / WEIGHTS).read_bytes() == large_hub.files[WEIGHTS]
    first, second, *_ = large_hub.ranges(WEIGHTS)
    assert first is None
    assert re.fullmatch(r"bytes=[1-9]\d*-", second)


def test_a_connection_that_breaks_off_without_a_byte_again_and_again_is_given_up(hub, large_hub, cache):
    large_hub.cuts[WEIGHTS] = [2 * download_module.CHUNK_BYTES] + [0] * 20
    with pytest.raises(SourceUnreachable, match=r"broke off 6 times in a row. Repeat the command"):
        hub.pull(SOURCE)
    large_hub.cuts.clear()
    large_hub.received.clear()
    assert (hub.pull(SOURCE) / WEIGHTS).read_bytes() == large_hub.files[WEIGHTS]
    assert large_hub.ranges(WEIGHTS)[0].startswith("bytes=")
    assert parts(cache) == []


def pull_until(num_bytes, large_hub, cache, home):
    """A process that pulls, once so many bytes of the weights are on the disk."""
    pull = subprocess.Popen(
        [sys.executable, "-c", PULL_SCRIPT, large_hub.base_url, str(cache), REPO],
        env={**os.environ, "HF_HOME": str(home / "hf")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    deadline_s = time.monotonic() + DEADLINE_S
    try:
        while not any(path.stat().st_size >= num_bytes for path in parts(cache)):
            assert time.monotonic() < deadline_s
            assert pull.poll() is None
            time.sleep(0.01)
    except BaseException:
        pull.kill()
        pull.communicate()
        raise
    return pull


def test_an_interrupt_ends_a_pull_whose_connection_stands_still(large_hub, cache, tmp_path):
    large_hub.holds[WEIGHTS] = 2 * download_module.CHUNK_BYTES
    pull = pull_until(download_module.CHUNK_BYTES, large_hub, cache, tmp_path)
    pull.send_signal(signal.SIGINT)
    _, errors = pull.communicate(timeout=10)  # far less than the connection's own timeout
    assert pull.returncode == -signal.SIGINT
    assert b"KeyboardInterrupt" in errors


def test_a_killed_pull_is_continued_by_the_next_one(large_hub, cache, hub, tmp_path):
    """A real process, ended by SIGKILL while the server holds back the second half of a file."""
    kept_bytes = 2 * download_module.CHUNK_BYTES
    large_hub.holds[WEIGHTS] = kept_bytes
    pull = pull_until(kept_bytes // 2, large_hub, cache, tmp_path)
    pull.send_signal(signal.SIGKILL)
    pull.communicate()
    assert hub.cached(SOURCE) is None
    large_hub.holds.clear()
    large_hub.received.clear()
    assert (hub.pull(SOURCE) / WEIGHTS).read_bytes() == large_hub.files[WEIGHTS]
    (asked,) = large_hub.ranges(WEIGHTS)
    assert int(asked.removeprefix("bytes=").removesuffix("-")) >= kept_bytes // 2


def test_a_server_without_ranges_sends_everything_again(hub, large_hub):
    large_hub.has_ranges = False
    large_hub.cuts[WEIGHTS] = [2 * download_module.CHUNK_BYTES]
    folder = hub.pull(SOURCE)
    assert (folder / WEIGHTS).read_bytes() == large_hub.files[WEIGHTS]


def test_a_login_page_in_the_middle_of_a_pull_leaves_what_has_arrived(hub, large_hub, cache):
    large_hub.cuts[WEIGHTS] = [2 * download_module.CHUNK_BYTES] + [0] * 20
    with pytest.raises(SourceUnreachable):
        hub.pull(SOURCE)
    (part,) = parts(cache)
    arrived = part.read_bytes()
    large_hub.cuts.clear()
    large_hub.pages.add(WEIGHTS)
    with pytest.raises(SourceUnreachable, match="login page"):
        hub.pull(SOURCE)
    assert part.read_bytes() == arrived
    assert hub.cached(SOURCE) is None


@pytest.mark.parametrize("num_bytes", [100, 4 * download_module.CHUNK_BYTES])
def test_a_file_of_another_size_is_refused_and_removed(hub, large_hub, cache, num_bytes):
    large_hub.delivered[WEIGHTS] = bytes(num_bytes)
    with pytest.raises(ModelRefused, match=rf"damaged {WEIGHTS}"):
        hub.pull(SOURCE)
    assert hub.cached(SOURCE) is None
    assert parts(cache) == []


def test_a_part_that_was_damaged_on_the_disk_is_removed_and_not_served(hub, large_hub, cache):
    large_hub.cuts[WEIGHTS] = [2 * download_module.CHUNK_BYTES] + [0] * 20
    with pytest.raises(SourceUnreachable):
        hub.pull(SOURCE)
    large_hub.cuts.clear()
    (part,) = parts(cache)
    part.write_bytes(bytes(part.stat().st_size))
    with pytest.raises(ModelRefused, match="damaged"):
        hub.pull(SOURCE)
    assert hub.pull(SOURCE).joinpath(WEIGHTS).read_bytes() == large_hub.files[WEIGHTS]


def test_only_what_is_still_missing_has_to_fit_onto_the_disk(hub, large_hub, monkeypatch):
    large_hub.cuts[WEIGHTS] = [2 * download_module.CHUNK_BYTES] + [0] * 20
    with pytest.raises(SourceUnreachable):
        hub.pull(SOURCE)
    large_hub.cuts.clear()
    required = []
    monkeypatch.setattr(
        "ondol.model_manager.hub.cache.check_space", lambda folder, num_bytes: required.append(num_bytes)
    )
    hub.pull(SOURCE)
    assert required[0] <= 2 * download_module.CHUNK_BYTES


def test_a_redirect_to_another_host_carries_no_token(hub, large_hub, token_store, caplog):
    large_hub.visitors["hf_secret"] = Visitor()
    large_hub.is_gated = True
    large_hub.has_cdn = True
    token_store.mkdir()
    (token_store / "token").write_text("hf_secret\n")
    caplog.set_level(logging.DEBUG)
    folder = hub.pull(SOURCE)
    assert (folder / WEIGHTS).read_bytes() == large_hub.files[WEIGHTS]
    by_host = {host: [r for r in large_hub.received if r.host == host] for host in ("hub", "cdn")}
    assert by_host["cdn"]
    assert all(request.headers["authorization"] == "Bearer hf_secret" for request in by_host["hub"])
    assert not any("authorization" in request.headers for request in by_host["cdn"])
    assert not any("hf_secret" in str(request) for request in by_host["cdn"])
    assert "hf_secret" not in caplog.text


def test_a_download_from_another_host_is_continued_there(hub, large_hub):
    large_hub.has_cdn = True
    large_hub.cuts[WEIGHTS] = [2 * download_module.CHUNK_BYTES]
    folder = hub.pull(SOURCE)
    assert (folder / WEIGHTS).read_bytes() == large_hub.files[WEIGHTS]
    asked = [request.headers.get("range") for request in large_hub.received if request.host == "cdn"]
    assert len(asked) == 2
    assert asked[1].startswith("bytes=")


def test_the_numbers_of_a_pull_reach_who_asked_for_them(large_hub, cache):
    heard = []
    progress = Progress(io.StringIO(), on_bytes=lambda done, total: heard.append((done, total)))
    Hub(progress, endpoint=large_hub.base_url, cache=cache).pull(SOURCE)
    total_bytes = sum(len(large_hub.files[name]) for name in ("config.json", "tokenizer.json", WEIGHTS))
    assert heard[0] == (0, total_bytes)
    assert heard[-1] == (total_bytes, total_bytes)
    assert [done for done, _ in heard] == sorted(done for done, _ in heard)


def test_who_hears_the_numbers_can_end_the_pull(large_hub, cache):
    class Cancelled(Exception):
        pass

    def cancel(done_bytes, total_bytes):
        if done_bytes > download_module.CHUNK_BYTES:
            raise Cancelled

    with pytest.raises(Cancelled):
        Hub(Progress(io.StringIO(), on_bytes=cancel), endpoint=large_hub.base_url, cache=cache).pull(SOURCE)


def test_a_log_file_gets_a_line_for_each_file_and_for_all(hub, large_hub, stream):
    hub.pull(SOURCE)
    lines = stream.getvalue().splitlines()
    assert lines[0] == f"Downloading {REPO}: 3 files, 0.00 GB."
    assert lines[1].startswith(f"{REPO}:   0%")
    assert any(re.fullmatch(rf"{re.escape(WEIGHTS)}: 3\.15MB, .*B/s", line) for line in lines)


def test_two_pulls_at_the_same_time_fetch_each_file_once(large_hub, cache):
    hubs = [Hub(Progress(io.StringIO()), endpoint=large_hub.base_url, cache=cache) for _ in range(2)]
    threads = [threading.Thread(target=hub.pull, args=(SOURCE,)) for hub in hubs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert large_hub.downloaded().count(WEIGHTS) == 1
    assert hubs[0].cached(SOURCE).name == COMMIT


def test_a_file_too_large_for_plain_http_is_left_to_the_library_and_compared(hub, large_hub, monkeypatch):
    monkeypatch.setattr(download_module, "MAX_HTTP_FILE_BYTES", 1000)
    folder = hub.pull(SOURCE)
    assert (folder / WEIGHTS).read_bytes() == large_hub.files[WEIGHTS]
    large_hub.delivered[WEIGHTS] = bytes(len(large_hub.files[WEIGHTS]))
    (folder / WEIGHTS).resolve().unlink()
    (folder / WEIGHTS).unlink()
    with pytest.raises(ModelRefused, match="damaged"):
        hub.pull(SOURCE)


def test_a_disk_that_runs_full_is_named_and_what_has_arrived_is_kept(hub, large_hub, cache, monkeypatch):
    append = PartFile.append

    def append_until_full(part, chunk):
        if part.size_bytes >= 2 * download_module.CHUNK_BYTES:
            raise OSError(errno.ENOSPC, "No space left on device")
        append(part, chunk)

    with monkeypatch.context() as patch:
        patch.setattr(PartFile, "append", append_until_full)
        with pytest.raises(DoesNotFit, match="ran full"):
            hub.pull(SOURCE)
    assert hub.cached(SOURCE) is None
    assert hub.pull(SOURCE).joinpath(WEIGHTS).read_bytes() == large_hub.files[WEIGHTS]
    assert large_hub.ranges(WEIGHTS)[-1].startswith("bytes=")


def test_a_file_system_without_links_gets_the_file_itself(hub, large_hub, monkeypatch):
    monkeypatch.setattr("pathlib.Path.symlink_to", no_links)
    folder = hub.pull(SOURCE)
    assert not (folder / WEIGHTS).is_symlink()
    assert hub.cached(SOURCE) == folder


def no_links(path, target):
    raise PermissionError(1, "Operation not permitted")


def test_the_cache_is_laid_out_as_the_library_does(hub, large_hub):
    folder = hub.pull(SOURCE)
    cache = folder.parents[2]
    report = scan_cache_dir(cache)
    assert report.warnings == []
    (repository,) = report.repos
    assert {reference for revision in repository.revisions for reference in revision.refs} == {"main"}
    assert try_to_load_from_cache(REPO, WEIGHTS, cache_dir=cache) == str(folder / WEIGHTS)
