"""A real server over real HTTP: what it sends, and what it fails to send, lands in the trace."""

import asyncio

import pytest
from support.stub_openai import StubServer, answer_exactly, piece, usage_of

from ondol.bench.plan import PlannedRequest
from ondol.bench.prompts import PromptWriter
from ondol.bench.serving_target import ServingOptions, ServingTarget
from ondol.bench.trace import RequestFailed, RequestTrace
from ondol.errors import ConfigError, DaemonUnreachable, Unauthorized

DEADLINE_S = 20


class ManualClock:
    """A clock that the server moves; `was_read` tells it when the client has looked."""

    def __init__(self):
        self.now_s = 0.0
        self.was_read = asyncio.Event()

    def __call__(self):
        self.was_read.set()
        return self.now_s

    async def advance(self, seconds, send):
        """Move on, send something, and wait until the client has stamped it."""
        self.now_s += seconds
        self.was_read.clear()
        await send
        await self.was_read.wait()


def send(script, *, num_output=3, clock=None, prepare=False, **options):
    """Send one request to a scripted server; gives (trace, server, target)."""

    async def scenario():
        async with (
            asyncio.timeout(DEADLINE_S),
            StubServer(script).running() as server,
            ServingTarget(
                ServingOptions(server.url, **{"model": "stub", **options}), clock or ManualClock()
            ) as target,
        ):
            if prepare:
                await target.prepare()
            else:
                target.model = "stub"
            trace = RequestTrace(PlannedRequest("chat", "k", 40, num_output), target._clock())
            try:
                await target.send(trace)
            except RequestFailed as failure:
                trace.failure = str(failure)
            return trace, server, target

    return asyncio.run(scenario())


def test_moments_of_text_are_taken_from_the_clock_and_tokens_from_usage():
    clock = ManualClock()

    async def script(body, reply):
        await reply.start()
        await clock.advance(0.5, reply.event(piece("")))  # the role chunk is no token
        await clock.advance(1.0, reply.event(piece("Hello")))
        await clock.advance(0.25, reply.event(piece(" there, friend")))
        await clock.advance(0.125, reply.event(piece("", "length")))
        await reply.event({"choices": [], "usage": usage_of(body, num_output=7, num_cached=16)})
        await reply.send(b"data: [DONE]\n\n")
        await reply.end()

    trace, _, _ = send(script, num_output=7, clock=clock)
    assert trace.failure is None
    assert trace.ttft_s == 1.5
    assert trace.gaps == [(1.5, 1.75)]
    assert (trace.num_output_tokens, trace.num_input_tokens, trace.num_cached_tokens) == (7, 42, 16)
    assert trace.finish_reason == "length"


def test_reasoning_counts_as_text():
    async def script(body, reply):
        await reply.start()
        await reply.event({"choices": [{"delta": {"reasoning_content": "hm"}}]})
        await reply.event(piece("yes", "stop"))
        await reply.end()

    assert len(send(script)[0].text_times_s) == 2


@pytest.mark.parametrize("error", [{"message": "engine died", "type": "server_error"}, "engine died"])
def test_an_error_event_in_the_stream_is_a_failure(error):
    async def script(body, reply):
        await reply.start()
        await reply.event(piece("Hel"))
        await reply.event({"error": error})
        await reply.end()

    assert send(script)[0].failure == "error event: engine died"


def test_a_refusal_is_a_failure_with_the_servers_own_words():
    async def script(body, reply):
        await reply.error(429, "at capacity")

    assert send(script)[0].failure == "HTTP 429: at capacity"


def test_a_refusal_without_json_is_still_told():
    async def script(body, reply):
        await reply.start(502, "text/html")
        await reply.send(b"<h1>bad gateway</h1>")
        await reply.end()

    assert send(script)[0].failure == "HTTP 502: <h1>bad gateway</h1>"


def test_a_server_that_hangs_is_given_up_after_the_timeout():
    async def script(body, reply):
        await reply.start()
        await reply.event(piece("Hel"))
        await asyncio.Event().wait()

    trace, _, _ = send(script, timeout_s=0.2)
    assert trace.failure == "timed out after 0.2 s"
    assert len(trace.text_times_s) == 1


def test_a_connection_that_is_cut_is_a_failure():
    async def script(body, reply):
        await reply.start()
        await reply.event(piece("Hel"))
        reply.cut()

    assert send(script)[0].failure.startswith("connection: ")


def test_a_stream_that_just_ends_is_a_failure():
    async def script(body, reply):
        await reply.start()
        await reply.event(piece("Hel"))
        await reply.send(b"data: [DONE]\n\n")
        await reply.end()

    assert send(script)[0].failure == "stream ended without a finish_reason"


@pytest.mark.parametrize("data", [b"{broken", b'{"choices": 7}', b'{"choices": [{"delta": {"content": 5}}]}'])
def test_a_chunk_of_another_shape_is_a_failure(data):
    async def script(body, reply):
        await reply.start()
        await reply.send(b"data: " + data + b"\n\n")
        await reply.end()

    assert send(script)[0].failure.startswith("unreadable chunk: ")


def test_the_body_asks_for_an_exact_length_and_for_usage():
    _, server, _ = send(answer_exactly, extra_body={"temperature": 0.7, "top_k": 5})
    body = server.bodies[-1]
    assert (body["max_tokens"], body["min_tokens"], body["ignore_eos"]) == (3, 3, True)
    assert body["stream_options"] == {"include_usage": True}
    assert (body["temperature"], body["top_k"]) == (0.7, 5)
    assert server.paths[-1] == "/v1/chat/completions"


def test_no_ignore_eos_sends_only_what_openai_knows():
    _, server, _ = send(answer_exactly, ignore_eos=False)
    assert {"ignore_eos", "min_tokens"}.isdisjoint(server.bodies[-1])


@pytest.mark.parametrize("key", ["secret", "비밀"])
def test_the_key_is_sent_as_a_bearer_token(key):
    _, server, _ = send(answer_exactly, api_key=key)
    assert server.headers[-1]["authorization"] == f"Bearer {key}"


def test_completions_take_the_prompt_as_text():
    async def script(body, reply):
        await reply.start()
        await reply.event({"choices": [{"text": "word", "finish_reason": "length"}]})
        await reply.end()

    trace, server, _ = send(script, endpoint="completions")
    assert trace.failure is None
    assert len(trace.text_times_s) == 1
    assert server.paths[-1] == "/v1/completions"
    assert isinstance(server.bodies[-1]["prompt"], str)


def test_preparing_learns_the_model_its_template_and_its_tokens():
    trace, server, target = send(answer_exactly, prepare=True, model=None)
    assert target.model_card == {"id": "stub", "source": "scripted"}
    assert target.writer == PromptWriter(tokens_per_word=1.0, overhead_tokens=2.0)
    assert trace.num_input_tokens == 40
    assert server.bodies[-1]["model"] == "stub"


def test_a_request_that_fails_in_the_warm_up_ends_the_measurement_before_it_begins():
    async def script(body, reply):
        await reply.error(404, "no such model")

    with pytest.raises(RequestFailed, match="no such model"):
        send(script, prepare=True)


def prepare(url=None, models=None, **options):
    async def scenario():
        async with StubServer(answer_exactly, models).running() as server:
            target_options = ServingOptions(url or server.url, **options)
            async with ServingTarget(target_options, ManualClock()) as target:
                await target.prepare()
                return target.model

    return asyncio.run(scenario())


def test_a_name_that_the_server_does_not_list_is_tried_all_the_same():
    assert prepare(model="/some/folder") == "/some/folder"


def test_several_models_need_a_choice():
    with pytest.raises(ConfigError, match="a, b"):
        prepare(models=[{"id": "a"}, {"id": "b"}])


def test_nobody_listening_is_an_unreachable_daemon(unused_port):
    with pytest.raises(DaemonUnreachable, match="ondol serve"):
        prepare(url=f"http://127.0.0.1:{unused_port}/v1")


def test_another_kind_of_server_is_an_unreachable_daemon():
    with pytest.raises(DaemonUnreachable, match="list of models"):
        prepare(models=[{"name": "no id"}])


@pytest.mark.parametrize(("status", "error"), [(401, Unauthorized), (503, DaemonUnreachable)])
def test_a_server_that_refuses_to_list_models_is_told_as_it_is(status, error):
    async def refuse(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        body = b'{"error":{"message":"no"}}'
        writer.write(f"HTTP/1.1 {status} X\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body)
        await writer.drain()
        writer.close()

    async def scenario():
        server = await asyncio.start_server(refuse, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        async with server:
            options = ServingOptions(f"http://127.0.0.1:{port}/v1")
            async with ServingTarget(options, ManualClock()) as target:
                await target.prepare()

    with pytest.raises(error):
        asyncio.run(scenario())
