"""Whatever /openapi.json allows, and whatever it forbids, is answered with a status that it documents."""

import asyncio
import threading
from collections.abc import Iterator

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import content_type_conformance, status_code_conformance
from support.fake_model import FakeCall, fake_model
from support.front_door import live_server, open_front_door


@pytest.fixture(scope="module")
def daemon_url(tokenizer_folder) -> Iterator[str]:
    """A front door on a loop of its own; its engine says one token to every request."""
    urls: list[str] = []
    is_up = threading.Event()
    loop = asyncio.new_event_loop()
    over = asyncio.Event()

    async def serve() -> None:
        model = fake_model(tokenizer_folder)
        model.engine.script = script
        async with live_server(open_front_door(model, allowed_hosts=())) as live:
            urls.append(live.url)
            is_up.set()
            await over.wait()

    def script(call: FakeCall) -> None:
        prompt = [None] * len(call.prompt_ids) if call.params.prompt_logprobs is not None else None
        call.feed([70] if call.params.max_tokens else [], "length", prompt_logprobs=prompt)

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    try:
        assert is_up.wait(20)
        yield urls[0]
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join(20)
        loop.close()


# The one never ends, the other starts a process for each request.
LEFT_OUT = ["/models/sse", "/models/fit"]
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance]


@pytest.mark.slow
def test_no_request_meets_a_server_error_or_an_undocumented_status(daemon_url):
    """Slow: inventing bodies by the schemas of messages and tools takes most of a minute."""
    schema = schemathesis.openapi.from_url(f"{daemon_url}/openapi.json").exclude(path=LEFT_OUT)
    operations = [result.ok() for result in schema.get_all_operations()]
    assert len(operations) > 10
    for operation in operations:
        kept = settings(
            max_examples=15,
            deadline=None,
            derandomize=True,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        # Any text may be a name in a query or a path: nothing but a body can be wrong by the schema.
        for mode in GenerationMode if len(operation.body) else [GenerationMode.POSITIVE]:
            _ask_in_every_way(operation.as_strategy(generation_mode=mode), kept)


def _ask_in_every_way(cases, kept) -> None:
    @kept
    @given(case=cases)
    def ask(case) -> None:
        case.call_and_validate(checks=CHECKS)

    ask()
