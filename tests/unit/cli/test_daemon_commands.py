"""`ondol ps`, `load` and `stop` against the real front door of a fake manager."""

import asyncio
import json

import pytest
from support.fake_model import FakeModel, fake_model
from support.front_door import FrontDoor, eventually, live_server, open_front_door
from support.tokenizers import save_byte_level_tokenizer

from ondol.cli.load_progress import ProgressLines
from ondol.cli.main import run
from ondol.cli.ps import progress_share, until_text
from ondol.errors import DoesNotFit, HubAccessPending
from ondol.model_manager.model_status import MemoryUse, ModelStatus, StageProgress
from ondol.model_manager.store import ModelStore

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def tokenizer_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    save_byte_level_tokenizer(folder)
    return folder


@pytest.fixture
async def door(tokenizer_folder) -> FrontDoor:
    small: FakeModel = fake_model(tokenizer_folder, name="small")
    return open_front_door(fake_model(tokenizer_folder), shelf=[small])


@pytest.fixture
async def ondol(door):
    """Runs one command line against the daemon, in a thread; returns its exit code."""
    async with live_server(door) as live:

        async def command(*words: str) -> int:
            return await asyncio.to_thread(run, [*words, "--url", live.url])

        yield command


async def test_ps_lists_what_is_loaded_or_on_its_way(ondol, door, capsys):
    door.manager.publish(
        ModelStatus(
            "온돌",
            "loaded",
            num_streams=3,
            is_pinned=True,
            memory=MemoryUse(2**30, 2**29, 2**29),
            quantization="nf4",
            max_model_len=4096,
        )
    )
    door.manager.publish(ModelStatus("big", "loading", StageProgress("weights", 1, 4)))
    door.manager.publish(ModelStatus("gone", "failed", error=DoesNotFit("gone needs more")))
    assert await ondol("ps") == 0
    printed = capsys.readouterr()
    lines = [line.split() for line in printed.out.splitlines()]
    assert lines[0] == ["NAME", "STATUS", "MEMORY", "QUANTIZATION", "CONTEXT", "STREAMS", "UNTIL", "NOTES"]
    assert lines[1:] == [
        ["tiny", "loaded", "-", "-", "-", "0", "for", "ever", "-"],
        ["온돌", "loaded", "2.0", "GiB", "nf4", "4096", "3", "in", "use", "-"],
        ["big", "loading", "25", "%", "-", "-", "-", "0", "-", "-"],
        ["gone", "failed", "-", "-", "-", "0", "-", "-"],
    ]
    assert printed.err == "gone: gone needs more\n"


UNUSUAL = ModelStatus(
    "tiny",
    "loaded",
    memory=MemoryUse(2**30, 2**29, 2**29, 3 * 2**30),
    device="cuda",
    dtype="bfloat16",
    kv_cache_dtype="fp8",
    deterministic=True,
)


async def test_ps_notes_what_is_not_as_usual(ondol, door, capsys):
    door.manager.publish(UNUSUAL)
    assert await ondol("ps") == 0
    row = capsys.readouterr().out.splitlines()[1]
    assert row.endswith("  KV cache fp8, deterministic, 3.0 GiB of weights in host memory")


async def test_show_tells_how_the_daemon_has_loaded_a_model(ondol, door, capsys, tmp_path):
    with ModelStore(tmp_path).staging("tiny") as folder:
        (folder / "config.json").write_text('{"model_type": "llama"}')
    door.manager.publish(UNUSUAL)
    assert await ondol("show", "tiny", "--home", str(tmp_path)) == 0
    (line,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("loaded "))
    assert "2.0 GiB (cuda, bfloat16), KV cache fp8, deterministic, 3.0 GiB of weights in" in line
    assert await ondol("show", "tiny", "--home", str(tmp_path), "--json") == 0
    assert json.loads(capsys.readouterr().out)["loaded"]["kv_cache_dtype"] == "fp8"


async def test_ps_as_json_is_what_the_daemon_tells(ondol, capsys):
    assert await ondol("ps", "--json") == 0
    (entry,) = json.loads(capsys.readouterr().out)
    assert (entry["id"], entry["status"]) == ("tiny", {"value": "loaded"})


async def test_load_ends_when_the_model_answers(ondol, door, capsys):
    form = ("--quantization", "int8", "--context", "64", "--kv-cache-dtype", "fp8", "--cpu-offload-gb", "1.5")
    assert await ondol("load", "small", "--keep-alive", "-1", *form, "--deterministic") == 0
    (order,) = door.manager.orders
    assert (order.keep_alive_s, order.quantization, order.max_model_len) == (float("inf"), "int8", 64)
    assert (order.kv_cache_dtype, order.offload_bytes, order.deterministic) == ("fp8", 3 * 2**29, True)
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "Loaded small" in printed.err


async def test_load_as_json_prints_the_loaded_model(ondol, capsys):
    assert await ondol("load", "small", "--json") == 0
    assert json.loads(capsys.readouterr().out)["status"] == {"value": "loaded"}


async def test_load_shows_progress_while_it_waits(ondol, door, capsys):
    door.manager.load_gate.clear()
    loading = asyncio.create_task(ondol("load", "small"))
    await eventually(lambda: bool(door.manager.orders))
    seen = ""

    def has_said(text: str) -> bool:
        nonlocal seen
        seen += capsys.readouterr().err
        return text in seen

    await eventually(lambda: has_said("small: loading"))
    door.manager.publish(ModelStatus("small", "loading", StageProgress("weights", 1, 2)))
    await eventually(lambda: has_said("small: loading 50 %"))
    door.manager.load_gate.set()
    assert await loading == 0


@pytest.mark.parametrize(
    ("error", "code"), [(DoesNotFit("too large"), 5), (HubAccessPending("wait", "https://hub.test"), 4)]
)
async def test_load_ends_with_the_exit_code_of_what_went_wrong(ondol, door, capsys, error, code):
    door.manager.failures["small"] = error
    assert await ondol("load", "small") == code
    assert f"ondol: error: {error}" in capsys.readouterr().err


async def test_an_unknown_model_is_exit_code_3(ondol):
    assert await ondol("load", "nobody") == 3
    assert await ondol("stop", "anybody") == 3


async def test_stop_unloads(ondol, door):
    assert await ondol("stop", "tiny") == 0
    assert door.manager.served() == ()


async def test_stop_leaves_open_answers_alone_and_can_wait_for_them(ondol, door, capsys):
    async with door.manager.lease("tiny"):
        assert await ondol("stop", "tiny") == 11
        assert "answering a request" in capsys.readouterr().err
        stopping = asyncio.create_task(ondol("stop", "tiny", "--wait"))
        done, _ = await asyncio.wait({stopping}, timeout=0.5)
        assert not done
    assert await stopping == 0


@pytest.mark.parametrize("words", [("ps",), ("load", "tiny"), ("stop", "tiny")])
def test_without_a_daemon_it_is_exit_code_6_and_says_how_to_start_one(capsys, words):
    assert run([*words, "--url", "http://127.0.0.1:1"]) == 6
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "ondol serve" in printed.err


def test_a_key_is_asked_for_by_the_flag_that_gives_it(capsys):
    assert run(["ps", "--help"]) == 0
    assert "--api-key" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("progress", "share"),
    [
        (None, None),
        ({"stages": ["starting", "weights"], "current": "starting", "value": 0.0}, None),
        ({"stages": ["starting", "weights"], "current": "weights", "value": 0.4}, 0.4),
        ({"a": {"done": 1, "total": 3}, "b": {"done": 2, "total": 3}}, 0.5),
        ({"a": {"done": 1, "total": None}}, None),
    ],
)
def test_progress_is_a_share_where_it_is_known(progress, share):
    assert progress_share(progress) == share


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({}, "5m"),
        ({"expires_at": 90.0}, "0"),
        ({"num_streams": 1}, "in use"),
        ({"pinned": True}, "pinned"),
        ({"expires_at": None}, "for ever"),
        ({"status": {"value": "loading"}}, "-"),
    ],
)
def test_until_tells_how_long_an_idle_model_stays(changes, text):
    entry = {"status": {"value": "loaded"}, "num_streams": 0, "pinned": False, "expires_at": 400.0}
    assert until_text(entry | changes, now_s=100.0) == text


def test_progress_is_told_in_steps_of_a_tenth():
    lines = ProgressLines()

    def told(done: int) -> str | None:
        return lines.line(
            {"model": "m", "event": "download_progress", "data": {"m": {"done": done, "total": 100}}}
        )

    assert [told(done) for done in (0, 5, 12, 15, 30)] == [
        "m: downloading 0 %",
        None,
        "m: downloading 12 %",
        None,
        "m: downloading 30 %",
    ]
    assert lines.line({"model": "m", "event": "model_remove"}) is None
    assert (
        lines.line({"model": "m", "event": "model_status", "data": {"status": "unloaded"}}) == "m: unloaded"
    )
