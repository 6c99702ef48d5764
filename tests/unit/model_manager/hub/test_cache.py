import io
import time

import pytest
from support.fake_hub import COMMIT, REPO, Busy

from ondol.errors import AccessDenied, DoesNotFit, ModelNotFound, ModelRefused, SourceUnreachable
from ondol.model_manager.catalog import HubSource
from ondol.model_manager.hub import cache as hub_module
from ondol.model_manager.hub.cache import Hub
from ondol.model_manager.progress import Progress

SOURCE = HubSource(repo=REPO)


def test_a_pull_brings_the_model_files_and_nothing_else(hub, fake_hub):
    folder = hub.pull(SOURCE)
    assert folder.name == COMMIT
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    assert names == ["config.json", "model.safetensors", "tokenizer.json"]
    assert (folder / "model.safetensors").read_bytes() == fake_hub.files["model.safetensors"]


def test_a_second_pull_downloads_no_file_again(hub, fake_hub):
    hub.pull(SOURCE)
    num_downloads = len(fake_hub.downloaded())
    hub.pull(SOURCE)
    assert len(fake_hub.downloaded()) == num_downloads


def test_a_cached_model_is_found_without_any_request(hub, fake_hub):
    assert hub.cached(SOURCE) is None
    folder = hub.pull(SOURCE)
    num_requests = len(fake_hub.requests)
    assert hub.cached(SOURCE) == folder
    assert len(fake_hub.requests) == num_requests


def test_an_incomplete_snapshot_is_not_taken_for_a_model(hub):
    folder = hub.pull(SOURCE)
    (folder / "tokenizer.json").unlink()
    assert hub.cached(SOURCE) is None


def test_an_unreachable_hub_is_no_error_while_the_cache_is_complete(hub, fake_hub):
    folder = hub.pull(SOURCE)
    fake_hub.failure = (503, "")
    assert hub.pull(SOURCE) == folder


def test_a_hub_that_never_answers_is_given_up_in_time(fake_hub, tmp_path):
    fake_hub.failure = "silent"
    hub = Hub(Progress(io.StringIO()), endpoint=fake_hub.base_url, cache=tmp_path, timeout_s=0.5)
    start_s = time.monotonic()
    with pytest.raises(SourceUnreachable, match="HF_ENDPOINT"):
        hub.pull(SOURCE)
    assert time.monotonic() - start_s < 5


def test_a_hub_that_refuses_connections_is_unreachable(tmp_path):
    hub = Hub(Progress(io.StringIO()), endpoint="http://127.0.0.1:9", cache=tmp_path)
    with pytest.raises(SourceUnreachable, match=r"127\.0\.0\.1:9"):
        hub.pull(SOURCE)


@pytest.mark.parametrize(
    ("failure", "error", "words"),
    [
        ((401, "RepoNotFound"), AccessDenied, "ondol login"),
        ((401, ""), AccessDenied, "ondol login"),
        ((403, ""), AccessDenied, "ondol login"),
        ((404, "RepoNotFound"), ModelNotFound, REPO),
        ((404, "RevisionNotFound"), ModelNotFound, f"{REPO}@main"),
        ((429, ""), SourceUnreachable, "429"),
        ((500, ""), SourceUnreachable, "500"),
        ("html", SourceUnreachable, "login page"),
    ],
)
def test_each_refusal_of_the_hub_becomes_its_own_error_of_one_line(hub, fake_hub, failure, error, words):
    fake_hub.failure = failure
    with pytest.raises(error, match=words) as caught:
        hub.pull(SOURCE)
    assert "\n" not in str(caught.value)


def test_an_unknown_revision_is_named(hub):
    with pytest.raises(ModelNotFound, match="no-such-branch"):
        hub.pull(HubSource(repo=REPO, revision="no-such-branch"))


def test_a_repository_with_only_pickled_weights_is_refused_before_any_download(hub, fake_hub):
    del fake_hub.files["model.safetensors"], fake_hub.files["consolidated.safetensors"]
    with pytest.raises(ModelRefused, match="pickled"):
        hub.pull(SOURCE)
    assert fake_hub.downloaded() == []


def test_weights_with_a_wrong_hash_are_refused_and_fetched_anew_next_time(hub, fake_hub):
    right = fake_hub.delivered["model.safetensors"]
    fake_hub.delivered["model.safetensors"] = b"\0" * len(right)
    with pytest.raises(ModelRefused, match=r"damaged model\.safetensors"):
        hub.pull(SOURCE)
    assert hub.cached(SOURCE) is None
    fake_hub.delivered["model.safetensors"] = right
    assert (hub.pull(SOURCE) / "model.safetensors").read_bytes() == right


def test_a_page_in_place_of_a_small_file_is_refused(hub, fake_hub):
    page = b"<html>please</html>"
    fake_hub.delivered["tokenizer.json"] = page
    fake_hub.files["tokenizer.json"] = b"{" + b" " * (len(page) - 2) + b"}"
    with pytest.raises(ModelRefused, match=r"tokenizer\.json"):
        hub.pull(SOURCE)


def test_a_model_larger_than_the_disk_is_refused_before_any_download(hub, fake_hub, monkeypatch):
    monkeypatch.setattr(hub_module, "check_space", full_disk)
    with pytest.raises(DoesNotFit):
        hub.pull(SOURCE)
    assert fake_hub.downloaded() == []


def full_disk(folder, required_bytes):
    raise DoesNotFit(f"{required_bytes} bytes")


def test_only_what_a_model_needs_is_fetched(hub, fake_hub):
    needed = {
        "config.json",
        "generation_config.json",
        "model-00001-of-00001.safetensors",
        "model.safetensors.index.json",
        "tokenizer.model",
        "tokenizer_config.json",
        "vocab.json",
        "merges.txt",
        "chat_template.jinja",
    }
    surplus = {"pytorch_model.bin.index.json", "LICENSE.txt", "README.md", "eval_results.json", "rng.pt"}
    fake_hub.files = dict.fromkeys(needed | surplus, b'{"weight_map": {}}')
    fake_hub.delivered = dict(fake_hub.files)
    folder = hub.pull(SOURCE)
    assert {path.name for path in folder.iterdir()} == needed


def test_metas_own_edition_of_llama_2_is_refused_before_anything_is_asked(hub, fake_hub):
    with pytest.raises(ModelRefused, match="Use meta-llama/Llama-2-13b-chat-hf instead"):
        hub.pull(HubSource(repo="meta-llama/Llama-2-13b-chat"))
    assert fake_hub.requests == []


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_hub_is_asked_again_as_late_as_it_wishes(hub, fake_hub, stream, status):
    fake_hub.busy = [Busy(status, {"Retry-After": "0"}), Busy(status, {"Retry-After": "0"})]
    hub.pull(SOURCE)
    assert stream.getvalue().count(f"The Hub is busy (HTTP status {status}); asking again in 0 s.") == 2


def test_a_hub_that_is_busy_for_an_hour_is_reported_at_once(hub, fake_hub):
    fake_hub.busy = [Busy(429, {"Retry-After": "3600"})]
    with pytest.raises(SourceUnreachable, match="429 and asks to wait 3600 s"):
        hub.pull(SOURCE)


def test_a_hub_that_turns_busy_at_the_end_of_a_pull_is_not_waited_for_any_longer(hub, fake_hub, monkeypatch):
    fake_hub.busy = [Busy(429, {"Retry-After": "3600"}, "/tree/")]
    with monkeypatch.context() as patch:
        patch.setattr(hub_module, "FINISH_TIMEOUT_S", 0.3)
        with pytest.raises(SourceUnreachable, match="did not list"):
            hub.pull(SOURCE)
    num_downloads = len(fake_hub.downloaded())
    hub.pull(SOURCE)
    assert len(fake_hub.downloaded()) == num_downloads


def test_a_busy_hub_is_no_reason_to_wait_while_the_cache_is_complete(hub, fake_hub, stream):
    folder = hub.pull(SOURCE)
    fake_hub.busy = [Busy(429, {"Retry-After": "1"})]
    assert hub.pull(SOURCE) == folder
    assert "asking again" not in stream.getvalue()


def test_a_revision_names_the_old_snapshot_until_the_new_one_is_whole(hub, fake_hub, tmp_path, monkeypatch):
    old = hub.pull(SOURCE)
    monkeypatch.setattr("support.fake_hub.COMMIT", "b" * 40)
    fake_hub.files["tokenizer.json"] = b'{"new": true}'
    fake_hub.delivered["tokenizer.json"] = b'{"bad": true}'
    with pytest.raises(ModelRefused, match=r"tokenizer\.json"):
        hub.pull(SOURCE)
    assert hub.cached(SOURCE) == old
    fake_hub.delivered["tokenizer.json"] = fake_hub.files["tokenizer.json"]
    assert hub.pull(SOURCE).name == "b" * 40
    assert fake_hub.downloaded().count("model.safetensors") == 1  # the same blob, linked twice


def test_what_the_hub_tells_no_digest_of_is_fetched_by_the_library_and_compared_with_its_etag(
    hub, fake_hub, monkeypatch
):
    info = fake_hub.model_info
    monkeypatch.setattr(fake_hub, "model_info", lambda: without_digests(info()))
    folder = hub.pull(SOURCE)
    assert (folder / "model.safetensors").read_bytes() == fake_hub.files["model.safetensors"]


def test_a_wrong_file_that_the_library_fetched_is_refused_as_well(hub, fake_hub, monkeypatch):
    info = fake_hub.model_info
    monkeypatch.setattr(fake_hub, "model_info", lambda: without_digests(info()))
    fake_hub.delivered["model.safetensors"] = b"\0" * len(fake_hub.files["model.safetensors"])
    with pytest.raises(ModelRefused, match=r"damaged model\.safetensors"):
        hub.pull(SOURCE)
    assert hub.cached(SOURCE) is None


def without_digests(info):
    """As the Hub shows a gated repository's listing to somebody without access."""
    for sibling in info["siblings"]:
        sibling["blobId"] = "*" * 40
        if "lfs" in sibling:
            sibling["lfs"]["sha256"] = "*" * 64
    return info
