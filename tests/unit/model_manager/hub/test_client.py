import threading

import httpx2
import pytest
from huggingface_hub.hf_api import BlobLfsInfo, RepoSibling
from support.fake_hub import COMMIT, REPO

from ondol.errors import SourceUnreachable
from ondol.model_manager.catalog import HubSource
from ondol.model_manager.hub.client import HUB_TIMEOUT_S, RemoteFile, remote_file, starts_at, within


def test_a_model_is_known_by_its_commit_and_files(hub, fake_hub):
    model = hub.client.model(HubSource(repo=REPO))
    assert (model.repo, model.commit) == (REPO, COMMIT)
    assert model.files.keys() == fake_hub.files.keys()
    weights = model.files["model.safetensors"]
    assert weights.size_bytes == len(fake_hub.files["model.safetensors"])
    assert len(weights.digest) == 64
    assert len(model.files["config.json"].digest) == 40


def test_bytes_from_the_middle_of_a_file_can_be_asked_for(hub, fake_hub):
    model = hub.client.model(HubSource(repo=REPO))
    with hub.client.stream(model, "model.safetensors", 10, 20) as response:
        assert starts_at(response, 10)
        assert response.read() == fake_hub.files["model.safetensors"][10:20]


def test_a_page_for_people_is_no_file(hub, fake_hub):
    model = hub.client.model(HubSource(repo=REPO))
    fake_hub.pages.add("config.json")
    with (
        pytest.raises(SourceUnreachable, match="login page"),
        hub.client.stream(model, "config.json") as response,
    ):
        response.read()


@pytest.mark.parametrize(
    ("status", "content_range", "start", "expected"),
    [
        (200, "", 0, True),
        (200, "", 5, False),
        (206, "bytes 5-9/10", 5, True),
        (206, "bytes 0-9/10", 5, False),
        (206, "", 5, False),
    ],
)
def test_where_an_answer_starts_is_read_and_not_assumed(status, content_range, start, expected):
    response = httpx2.Response(status, headers={"Content-Range": content_range} if content_range else {})
    assert starts_at(response, start) is expected


def test_digests_that_the_hub_blanks_are_not_taken_for_digests():
    lfs = BlobLfsInfo(size=5, sha256="*" * 64, pointer_size=130)
    sibling = RepoSibling("a.safetensors", size=5, blob_id="*" * 40, lfs=lfs)
    assert remote_file(sibling) == RemoteFile("a.safetensors", 5, None)


def test_a_call_that_no_timeout_bounds_is_given_up_all_the_same():
    never = threading.Event()
    with pytest.raises(TimeoutError):
        within(0.05, lambda: never.wait(60))
    never.set()


def test_the_hub_gets_five_seconds():
    assert HUB_TIMEOUT_S == 5
