"""GET /models/fit with programs that stand in for `ondol fit`."""

import json
import sys

import httpx
import msgspec
import pytest
from support.front_door import eventually, is_openai_error, live_server

from ondol.api import fit_runs
from ondol.api.fit_runs import FitRuns
from ondol.errors import (
    AccessDenied,
    ConfigError,
    DeviceUnusable,
    DoesNotFit,
    HubAccessNotGranted,
    HubAccessPending,
    HubTokenInvalid,
    HubTokenLacksScope,
    HubTokenMissing,
    ModelNotFound,
    ModelRefused,
    OndolError,
    QueueFull,
    SourceUnreachable,
)
from ondol.model_manager.model_status import ModelStatus
from ondol.model_manager.sent_error import SentError

pytestmark = pytest.mark.anyio


@pytest.fixture
def program(tmp_path, monkeypatch):
    """Makes `python -m ondol` run this instead."""

    def stand_in(source: str) -> None:
        executable = tmp_path / "python"
        executable.write_text(f"#!{sys.executable}\n{source}\n", encoding="utf-8")
        executable.chmod(0o755)
        monkeypatch.setattr(fit_runs.sys, "executable", str(executable))

    return stand_in


async def test_the_arguments_are_a_list_in_which_no_name_is_a_flag(program):
    program("import json, sys\nprint(json.dumps(sys.argv[1:]))")
    report = await FitRuns(("--home", "/a b")).report("--help; rm -rf /", ["--context", "5"])
    assert json.loads(report) == [
        *("-m", "ondol.cli.fit_child", "--home", "/a b", "--context", "5"),
        *("--", "--help; rm -rf /"),
    ]


async def test_the_report_is_passed_on_whatever_the_verdict(door, program):
    program("print('{\"fits\": false}')\nraise SystemExit(5)")
    answer = await door.client().get("/models/fit", params={"model": "tiny", "context": 64})
    assert answer.status_code == 200
    assert answer.json() == {"fits": False}


SENTENCE = "A sentence."


def hub_error(kind):
    return kind(SENTENCE, "https://hub.example/owner/name")


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (ConfigError(SENTENCE), 500, "config_error"),
        (ModelNotFound("owner/name", ("owner/names",)), 404, "model_not_found"),
        (hub_error(HubTokenMissing), 401, "hub_token_missing"),
        (hub_error(HubTokenInvalid), 401, "hub_token_invalid"),
        (hub_error(HubAccessNotGranted), 403, "hub_access_not_granted"),
        (hub_error(HubAccessPending), 403, "hub_access_pending"),
        (hub_error(HubTokenLacksScope), 403, "hub_token_lacks_scope"),
        (hub_error(AccessDenied), 403, "hub_access_denied"),
        (DoesNotFit(SENTENCE), 400, "model_does_not_fit"),
        (DeviceUnusable(SENTENCE), 500, "device_unusable"),
        (ModelRefused(SENTENCE), 400, "model_refused"),
        (SourceUnreachable(SENTENCE), 502, "source_unreachable"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, OndolError) else None,
)
async def test_its_errors_are_the_daemons(door, program, error, status, code):
    line = msgspec.json.encode(SentError.of(error)).decode()
    program(f"import sys\nprint('a note', {line!r}, sep='\\n', file=sys.stderr)\nsys.exit({error.exit_code})")
    answer = await door.client().get("/models/fit", params={"model": "owner/name"})
    assert answer.status_code == status
    assert is_openai_error(answer)
    assert answer.json()["error"]["code"] == code
    assert answer.json()["error"]["message"] == str(error)


async def test_a_run_that_ends_without_a_word_of_its_own_is_our_bug(door, program):
    program("import sys\nprint('Traceback: a bug', file=sys.stderr)\nsys.exit(1)")
    answer = await door.client().get("/models/fit", params={"model": "owner/name"})
    assert answer.status_code == 500
    assert answer.json()["error"]["code"] == "internal_error"


async def test_a_run_that_takes_too_long_is_ended(program, monkeypatch):
    monkeypatch.setattr(fit_runs, "TIMEOUT_S", 0.2)
    program("import time\ntime.sleep(60)")
    with pytest.raises(SourceUnreachable):
        await FitRuns(()).report("tiny", [])


async def test_a_third_run_at_the_same_time_is_refused(program, monkeypatch):
    runs = FitRuns(())
    monkeypatch.setattr(fit_runs, "MAX_RUNS", 0)
    with pytest.raises(QueueFull):
        await runs.report("tiny", [])


async def test_a_run_ends_with_its_client(door, program, tmp_path):
    program(f"import os, time\nopen({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid()))\ntime.sleep(60)")
    async with live_server(door) as live, httpx.AsyncClient(timeout=httpx.Timeout(10, read=1.0)) as client:
        with pytest.raises(httpx.ReadTimeout):
            await client.get(f"{live.url}/models/fit?model=tiny")
        process_id = int((tmp_path / "pid").read_text())
        await eventually(lambda: not (tmp_path.joinpath("/proc", str(process_id))).exists())


@pytest.mark.parametrize(
    "query", ["", "?model=", "?model=/etc", "?model=tiny&context=0", "?model=tiny&context=x"]
)
async def test_a_wrong_question_is_refused(door, query):
    answer = await door.client().get(f"/models/fit{query}")
    assert answer.status_code == 400
    assert is_openai_error(answer)


async def test_a_folder_is_asked_for_by_its_path(door, program):
    program("import json, sys\nprint(json.dumps(sys.argv[-1]))")
    door.manager.publish(ModelStatus("tiny", "loaded", source={"kind": "folder"}, path="/models/tiny"))
    assert (await door.client().get("/models/fit?model=tiny")).json() == "/models/tiny"
