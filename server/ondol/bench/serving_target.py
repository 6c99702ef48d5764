"""A server with OpenAI's HTTP interface, as the thing that answers requests.

The only module of the room that knows HTTP. Tokens are counted from the server's own `usage`, never
from chunks, since one chunk may hold several tokens. Invariant: a request ends with a
finish_reason, or raises RequestFailed with a reason.
"""

import asyncio
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import httpx
import msgspec

from ondol.bench.plan import PlannedRequest
from ondol.bench.prompts import PromptWriter, words_for
from ondol.bench.runner import Clock
from ondol.bench.sse import EventParser
from ondol.bench.trace import RequestFailed, RequestTrace
from ondol.errors import ConfigError, DaemonUnreachable, Unauthorized

CONNECT_TIMEOUT_S = 5.0
PROBE_NUM_WORDS = (50, 250)
MAX_REASON_LENGTH = 160


@dataclass(frozen=True, slots=True)
class ServingOptions:
    """How to talk to the server.

    Attributes:
        url: base URL that ends in the API version, as OpenAI clients take it.
        model: name to send; None takes the only model that the server lists.
        endpoint: "chat" or "completions".
        ignore_eos: ask for exact output lengths (`ignore_eos` and `min_tokens`, which some servers refuse).
        extra_body: further fields of every request; they win over ours.
        timeout_s: longest time for one whole answer.
    """

    url: str
    model: str | None = None
    api_key: str | None = None
    endpoint: str = "chat"
    ignore_eos: bool = True
    extra_body: dict[str, Any] = field(default_factory=dict)
    timeout_s: float = 600.0


class _Delta(msgspec.Struct):
    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None


class _Choice(msgspec.Struct):
    delta: _Delta | None = None
    text: str | None = None
    finish_reason: str | None = None

    def has_text(self) -> bool:
        delta = self.delta
        return bool(self.text or (delta and (delta.content or delta.reasoning_content or delta.reasoning)))


class _PromptDetails(msgspec.Struct):
    cached_tokens: int | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int
    completion_tokens: int = 0
    prompt_tokens_details: _PromptDetails | None = None


class _Chunk(msgspec.Struct):
    choices: list[_Choice] = []
    usage: _Usage | None = None
    error: Any = None


class ServingTarget:
    """Streams answers from one server; an async context manager that owns the connections."""

    def __init__(self, options: ServingOptions, clock: Clock) -> None:
        self.model = options.model or ""
        self.model_card: dict[str, Any] = {}
        self.writer = PromptWriter()
        self._options = options
        self._clock = clock
        try:
            self._client = httpx.AsyncClient(
                base_url=options.url.rstrip("/") + "/",
                # As bytes: keys may hold any UTF-8.
                headers={b"authorization": f"Bearer {options.api_key}".encode()} if options.api_key else None,
                timeout=httpx.Timeout(None, connect=CONNECT_TIMEOUT_S),
                limits=httpx.Limits(max_connections=None, max_keepalive_connections=None),
                # No proxies from the environment: what is measured is the server, not the way to it.
                trust_env=False,
            )
        except httpx.InvalidURL as error:
            raise _no_address(options.url, error) from error

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.aclose()

    async def prepare(self) -> None:
        """Find the model, learn how long its tokens are, and warm the server up.

        Raises DaemonUnreachable, Unauthorized, ConfigError, or RequestFailed when a probe fails.
        """
        self.model_card = await self._find_model()
        self.model = self.model_card["id"]
        short, long = [await self._probe(num_words) for num_words in PROBE_NUM_WORDS]
        self.writer = PromptWriter.calibrated(short, long)
        warm_up = PlannedRequest("warm-up", "warm-up", num_input_tokens=64, num_output_tokens=16)
        await self.send(RequestTrace(warm_up, self._clock()))

    async def send(self, trace: RequestTrace) -> None:
        """Stream one answer into `trace`; raises RequestFailed."""
        request = trace.request
        await self._stream(self._body(self.writer.write(request), request.num_output_tokens), trace)

    async def _find_model(self) -> dict[str, Any]:
        try:
            response = await self._client.get("models", timeout=CONNECT_TIMEOUT_S)
        except (httpx.UnsupportedProtocol, httpx.InvalidURL) as error:
            raise _no_address(self._options.url, error) from error
        except httpx.TransportError as error:
            raise DaemonUnreachable(
                f"No server answers at {self._options.url} ({type(error).__name__}). "
                "Start one with `ondol serve`."
            ) from error
        if response.status_code in (401, 403):
            raise Unauthorized(f"{self._options.url} refuses this key; give the right one with --api-key.")
        if response.status_code != httpx.codes.OK:
            raise DaemonUnreachable(f"{self._options.url}/models answers {_reason_of(response)}")
        try:
            cards = {card["id"]: card for card in response.json()["data"]}
        except (ValueError, KeyError, TypeError) as error:
            raise DaemonUnreachable(
                f"{self._options.url} has no OpenAI-compatible list of models."
            ) from error
        return _choose(cards, self._options.model)

    async def _probe(self, num_words: int) -> tuple[int, int]:
        """(words, tokens) of a text, by asking for one token after it."""
        probe = PlannedRequest("probe", f"probe/{num_words}", num_words, num_output_tokens=1)
        trace = RequestTrace(probe, self._clock())
        await self._stream(self._body(words_for(probe.key, num_words), 1), trace)
        return num_words, trace.num_input_tokens or num_words

    def _body(self, prompt: str, num_output_tokens: int) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": self.model,
            "max_tokens": num_output_tokens,
            "temperature": 0,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        if self._options.endpoint == "chat":
            body["messages"] = [{"role": "user", "content": prompt}]
        else:
            body["prompt"] = prompt
        if self._options.ignore_eos:
            body |= {"ignore_eos": True, "min_tokens": num_output_tokens}
        return body | self._options.extra_body

    async def _stream(self, body: dict[str, Any], trace: RequestTrace) -> None:
        path = "chat/completions" if self._options.endpoint == "chat" else "completions"
        try:
            async with (
                asyncio.timeout(self._options.timeout_s),
                self._client.stream("POST", path, json=body) as response,
            ):
                if response.status_code != httpx.codes.OK:
                    await response.aread()
                    raise RequestFailed(_reason_of(response))
                await self._read(response, trace)
        except (TimeoutError, httpx.TimeoutException) as error:
            raise RequestFailed(f"timed out after {self._options.timeout_s:g} s") from error
        except httpx.TransportError as error:
            raise RequestFailed(f"connection: {type(error).__name__}") from error
        if trace.finish_reason is None:
            raise RequestFailed("stream ended without a finish_reason")

    async def _read(self, response: httpx.Response, trace: RequestTrace) -> None:
        parser = EventParser()
        async for block in response.aiter_bytes():
            now_s = self._clock()  # before any parsing
            for data in parser.push(block):
                # The body is read to its end also after [DONE], so that the connection can serve again.
                if data != b"[DONE]":
                    _note_chunk(data, trace, now_s)


def _no_address(url: str, error: Exception) -> DaemonUnreachable:
    return DaemonUnreachable(f"{url} is no address of a server: {error}")


def _choose(cards: dict[str, dict[str, Any]], wanted: str | None) -> dict[str, Any]:
    """The card of the wanted model; some servers answer to names that they do not list."""
    if wanted is not None:
        return cards.get(wanted, {"id": wanted})
    if len(cards) != 1:
        raise ConfigError(
            f"The server lists {len(cards)} models ({', '.join(cards)}); choose one with --model."
        )
    return next(iter(cards.values()))


def _note_chunk(data: bytes, trace: RequestTrace, now_s: float) -> None:
    try:
        chunk = msgspec.json.decode(data, type=_Chunk)
    except msgspec.MsgspecError as error:
        raise RequestFailed(f"unreadable chunk: {error}"[:MAX_REASON_LENGTH]) from error
    if chunk.error is not None:
        raise RequestFailed(f"error event: {_message_of(chunk.error)}"[:MAX_REASON_LENGTH])
    for choice in chunk.choices:
        if choice.has_text():
            trace.note_text(now_s)
        trace.finish_reason = choice.finish_reason or trace.finish_reason
    if chunk.usage is not None:
        trace.num_input_tokens = chunk.usage.prompt_tokens
        trace.num_output_tokens = chunk.usage.completion_tokens
        details = chunk.usage.prompt_tokens_details
        trace.num_cached_tokens = (details.cached_tokens or 0) if details else 0


def _message_of(error: object) -> str:
    return str(error.get("message", error)) if isinstance(error, dict) else str(error)


def _reason_of(response: httpx.Response) -> str:
    try:
        body = response.json()
    except ValueError:
        body = response.text
    error = body.get("error", body) if isinstance(body, dict) else body
    return f"HTTP {response.status_code}: {_message_of(error)}"[:MAX_REASON_LENGTH]
