"""Several models in one daemon: each in a process of its own, coming and going while others answer."""

import asyncio
import json
import os
import signal

import httpx
import pytest
from support.daemon import Daemon, has_ended, poll
from support.served_models import ENDLESS, save_served_model
from support.streams import DONE, endless, open_streams

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def daemon(tmp_path_factory):
    """Serves `first`, which is pinned, with one more place; `second` and `third` are in its store."""
    home = tmp_path_factory.mktemp("home")
    for index, name in enumerate(("second", "third")):
        save_served_model(home / "models" / name, ("llama", "qwen2")[index])
    folder = tmp_path_factory.mktemp("models") / "first"
    first = save_served_model(folder, max_position_embeddings=ENDLESS + 1000)
    places = ("--max-loaded-models", "2", "--kv-cache-memory", "64MiB", "--home", str(home))
    with Daemon(str(first), *places) as daemon:
        yield daemon.wait_until_serving()


def complete(daemon, name, **changes):
    body = {"model": name, "prompt": "hi", "max_tokens": 4, "temperature": 0, "ignore_eos": True, **changes}
    return httpx.post(f"{daemon.url}/v1/completions", json=body, timeout=120)


def listed(daemon):
    return {card["id"] for card in daemon.get("v1/models").json()["data"]}


def statuses(daemon):
    here = [entry for entry in daemon.get("models").json()["data"] if entry["in_cache"]]
    return {entry["id"]: entry["status"]["value"] for entry in here}


def test_requests_load_what_they_name_and_the_idle_one_leaves_for_the_next(daemon):
    assert listed(daemon) == {"first", "second", "third"}
    answer = complete(daemon, "second")
    assert (answer.status_code, answer.json()["model"]) == (200, "second")
    assert statuses(daemon) == {"first": "loaded", "second": "loaded", "third": "unloaded"}
    before = daemon.engine_ids()
    assert len(before) == 2
    assert complete(daemon, "third").status_code == 200
    assert statuses(daemon) == {"first": "loaded", "second": "unloaded", "third": "loaded"}
    after = daemon.engine_ids()
    assert len(after) == 2
    (left,) = set(before) - set(after)
    assert has_ended(left)


def test_a_name_that_nobody_knows_is_told_with_those_that_work(daemon):
    answer = complete(daemon, "fourth")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")
    assert "second" in answer.json()["error"]["message"]


async def test_loading_one_model_stalls_no_stream_of_another(daemon):
    name = "second" if statuses(daemon)["second"] == "unloaded" else "third"
    async with open_streams(daemon, 2, endless(model="first")) as streams:
        loading = asyncio.create_task(asyncio.to_thread(complete, daemon, name))
        seen = []
        while not loading.done():
            seen.append(daemon.metrics()["ondol_generation_tokens_total"])
            await asyncio.sleep(0.1)
        assert (await loading).status_code == 200
        assert not any(stream.done() for stream in streams)
    longest_pause = max(len(list(group)) for group in _runs(seen))
    assert longest_pause <= 20, "two seconds without a token"


def _runs(values):
    """Groups of equal values that follow each other."""
    groups = [[values[0]]]
    for value in values[1:]:
        if value == groups[-1][0]:
            groups[-1].append(value)
        else:
            groups.append([value])
    return groups


async def test_a_model_leaves_only_when_its_streams_have_ended(daemon):
    loaded = "third" if statuses(daemon)["third"] == "loaded" else "second"
    other = "second" if loaded == "third" else "third"
    assert complete(daemon, loaded).status_code == 200
    async with open_streams(daemon, 2, endless(model=loaded, max_tokens=400)) as streams:
        answer = await asyncio.to_thread(complete, daemon, other)
        events = await asyncio.gather(*streams)
    assert answer.status_code == 200
    for *_, last, done in events:
        assert done == DONE
        assert json.loads(last)["choices"][0]["finish_reason"] == "length"


def test_a_killed_engine_is_replaced_by_the_next_request(daemon):
    (name,) = (name for name, status in statuses(daemon).items() if status == "loaded" and name != "first")
    engine_id = daemon.engine_ids()[-1]
    os.kill(engine_id, signal.SIGKILL)
    poll(lambda: statuses(daemon)[name], lambda status: status != "loaded")
    assert daemon.get("health").json()["status"] == "degraded"
    assert complete(daemon, name).status_code == 200
    assert engine_id not in daemon.engine_ids()
    assert daemon.get("health").json() == {"status": "ok"}


def test_an_unused_model_is_unloaded_when_its_time_is_over(daemon):
    (name,) = (name for name, status in statuses(daemon).items() if status == "loaded" and name != "first")
    assert complete(daemon, name, keep_alive=0).status_code == 200
    poll(lambda: statuses(daemon)[name], lambda status: status == "unloaded")
    poll(daemon.engine_ids, lambda ids: len(ids) == 1)


def test_the_pinned_model_stays_whatever_a_request_says(daemon):
    assert complete(daemon, "first", keep_alive=0).status_code == 200
    assert statuses(daemon)["first"] == "loaded"
