"""One model of an OpenAI-compatible server, asked with OpenAI's own library.

Knows nothing about terminals. Invariants: a model without a chat template is asked to continue the text,
never given a template that it was not trained on; whatever fails is a ChatError.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from json import JSONDecodeError
from typing import Any

import openai

from .conversation import Message
from .errors import ChatError

CONNECT_TIMEOUT_S = 5.0
NO_CHAT_TEMPLATE = "no_chat_template"
# What vLLM named first, and Ondol, llama.cpp and SGLang take as well.
CONTINUED = {"continue_final_message": True, "add_generation_prompt": False}


@dataclass(frozen=True, slots=True)
class AnswerPart:
    """New text; the parts at the end tell why it ended and how many tokens it took."""

    text: str = ""
    finish_reason: str | None = None
    num_tokens: int | None = None


class ServedModel(AbstractContextManager["ServedModel"]):
    """`name` may be changed.

    Attributes:
        continues_text: the model has no chat template, as its server has told; False until then.
    """

    def __init__(
        self, base_url: str, name: str, api_key: str | None = None, *, uses_proxies: bool = False
    ) -> None:
        """Without `uses_proxies` the environment's proxies are passed by, which do not know loopback."""
        self.base_url = base_url
        self.name = name
        self.continues_text = False
        hooks: dict[str, list[Callable[..., Any]]] = {}
        if api_key:
            hooks["request"] = [partial(_authorize, api_key)]
        self._client = openai.OpenAI(
            base_url=base_url,
            api_key="any",
            # Waiting is for the person to decide.
            max_retries=0,
            timeout=openai.Timeout(None, connect=CONNECT_TIMEOUT_S),
            http_client=openai.DefaultHttpxClient(trust_env=uses_proxies, event_hooks=hooks),
        )

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def names(self) -> list[str]:
        """The names of all models that can be asked."""
        with _failures(self.base_url):
            return [card.id for card in self._client.models.list()]

    def use(self, name: str) -> None:
        """Ask another model from now on; raises ChatError if the server does not offer it."""
        names = self.names()
        if name not in names:
            offered = ", ".join(names)
            raise ChatError("{name} is not offered here; there are: {offered}", name=name, offered=offered)
        self.name = name
        self.continues_text = False

    def answer(
        self, messages: Sequence[Message], parameters: Mapping[str, object], *, is_continued: bool = False
    ) -> Iterator[AnswerPart]:
        """The answer as it is written; `is_continued` goes on inside of the last message.

        Close the iterator to stop. A model without a chat template continues the last texts by themselves,
        and refuses system messages. Raises ChatError, also for an answer without an end.
        """
        with _failures(self.base_url):
            if not self.continues_text:
                asked = {**parameters, **(CONTINUED if is_continued else {})}
                create = partial(self._client.chat.completions.create, messages=list(messages))
                try:
                    yield from self._parts(create, asked)
                    return
                except openai.BadRequestError as error:
                    if error.code != NO_CHAT_TEMPLATE or any(m["role"] == "system" for m in messages):
                        raise
                    self.continues_text = True
            text = "".join(message["content"] for message in messages[-2 if is_continued else -1 :])
            yield from self._parts(partial(self._client.completions.create, prompt=text), parameters)

    def _parts(self, create: Callable[..., Any], body: Mapping[str, object]) -> Iterator[AnswerPart]:
        chunks = create(
            model=self.name,
            stream=True,
            stream_options={"include_usage": True},
            extra_body=body,
        )
        is_finished = False
        with chunks:
            for chunk in chunks:
                part = _part_of(chunk)
                is_finished = is_finished or part.finish_reason is not None
                yield part
        if not is_finished:
            raise ChatError("The server at {url} broke off its answer.", url=self.base_url)


@contextmanager
def _failures(base_url: str) -> Iterator[None]:
    """Turns what the library raises into ChatErrors."""
    try:
        yield
    except openai.APIConnectionError as error:
        raise ChatError("No server answers at {url}, or it has ended.", url=base_url) from error
    except openai.OpenAIError as error:
        raise ChatError("{message}", message=_message(error)) from error
    except JSONDecodeError as error:
        raise ChatError("What answers at {url} does not speak OpenAI's API.", url=base_url) from error


def _message(error: openai.OpenAIError) -> str:
    """The server's own sentence, if it has sent one, on one line."""
    body = getattr(error, "body", None)
    sentence = body.get("message") if isinstance(body, dict) else None
    return " ".join(str(sentence or error).split())


def _part_of(chunk: Any) -> AnswerPart:  # noqa: ANN401  # a chunk of either endpoint
    num_tokens = chunk.usage.completion_tokens if chunk.usage else None
    if not chunk.choices:
        return AnswerPart(num_tokens=num_tokens)
    (choice,) = chunk.choices
    text = choice.delta.content if hasattr(choice, "delta") else choice.text
    return AnswerPart(text or "", choice.finish_reason, num_tokens)


def _authorize(api_key: str, request: Any) -> None:  # noqa: ANN401  # of the library's HTTP client
    """Send the key as UTF-8, which keys may hold and the library does not take."""
    request.headers.encoding = "utf-8"
    request.headers["authorization"] = f"Bearer {api_key}"
