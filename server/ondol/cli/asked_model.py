"""One model of one daemon, asked over HTTP, its answer handed on piece by piece.

Knows nothing about terminals. Invariant: a model without a chat template is asked to continue the
text, never given a template that it was not trained on.
"""

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from ondol.cli.daemon_client import DaemonClient, JsonObject
from ondol.errors import DaemonUnreachable, InvalidRequest, NoChatTemplate

Message = dict[str, str]


@dataclass(frozen=True, slots=True)
class Sampling:
    """What to ask for beside the messages; None leaves the model's default."""

    max_tokens: int | None = None
    temperature: float | None = None

    def fields(self) -> JsonObject:
        """The fields of a request's body."""
        values = {"max_tokens": self.max_tokens, "temperature": self.temperature}
        return {name: value for name, value in values.items() if value is not None}


@dataclass(frozen=True, slots=True)
class AnswerPart:
    """New text; the last part that has them tells how the answer ended and what it took."""

    text: str = ""
    finish_reason: str | None = None
    usage: JsonObject | None = None


class AskedModel:
    """`name` is one that requests may use.

    Attributes:
        client: asks the daemon that offers it.
        continues_text: the model has no chat template, as its daemon has told; False until then.
    """

    def __init__(self, client: DaemonClient, name: str, sampling: Sampling) -> None:
        self.name = name
        self.continues_text = False
        self.client = client
        self.sampling = sampling

    def answer(self, messages: Sequence[Message]) -> Iterator[AnswerPart]:
        """The answer to a conversation as it is written; close the iterator to stop it.

        A model without a chat template continues the last message; it refuses system messages.
        Raises whatever the daemon refuses with, and DaemonUnreachable for an answer without an end.
        """
        if not self.continues_text:
            try:
                yield from self._parts("/v1/chat/completions", {"messages": list(messages)})
                return
            except InvalidRequest as error:
                if error.code != NoChatTemplate.CODE or any(m["role"] == "system" for m in messages):
                    raise
                self.continues_text = True
        yield from self._parts("/v1/completions", {"prompt": messages[-1]["content"]})

    def _parts(self, path: str, asked: JsonObject) -> Iterator[AnswerPart]:
        body = {
            "model": self.name,
            **asked,
            **self.sampling.fields(),
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        with closing(self.client.events(path, body)) as events:  # type: ignore[type-var]  # a generator
            is_finished = False
            for event in events:
                part = _part_of(event)
                is_finished = is_finished or part.finish_reason is not None
                yield part
        if not is_finished:
            raise DaemonUnreachable(f"The daemon at {self.client.url} broke off its answer.")


def _part_of(event: JsonObject) -> AnswerPart:
    choices: list[dict[str, Any]] = event.get("choices") or []
    if not choices:
        return AnswerPart(usage=event.get("usage"))
    choice = choices[0]
    text = choice["text"] if "text" in choice else choice["delta"].get("content") or ""
    return AnswerPart(text, choice.get("finish_reason"), event.get("usage"))
