"""What was said: turns in their order, and the file that they are kept in.

Knows nothing about models or terminals. Invariant: roles alternate from the user's first turn on, as
chat templates want it; a file holds the body of a chat request, so that other programs can send it.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from .errors import ChatError

Message = dict[str, str]


class Conversation:
    """`messages` are the user's and the assistant's, without the system prompt."""

    def __init__(self, system: str | None = None, messages: Iterable[Message] = ()) -> None:
        self.system = system
        self.messages = list(messages)

    @property
    def answer(self) -> str | None:
        """The answer that ends the conversation; None if none does."""
        return self.messages[-1]["content"] if self.messages[-1:] and self._is_answered() else None

    def ask(self, text: str) -> None:
        """Add the user's turn."""
        self.messages.append({"role": "user", "content": text})

    def set_answer(self, text: str) -> None:
        """Give the last turn this answer, in place of the one that it may have."""
        if self._is_answered():
            self.messages.pop()
        self.messages.append({"role": "assistant", "content": text})

    def take_back(self) -> str:
        """Remove the last message; returns its text."""
        return self.messages.pop()["content"]

    def sent(self) -> list[Message]:
        """All messages of a request."""
        system = [{"role": "system", "content": self.system}] if self.system else []
        return [*system, *self.messages]

    def _is_answered(self) -> bool:
        return bool(self.messages) and self.messages[-1]["role"] == "assistant"


def save(path: Path, conversation: Conversation, model: str, parameters: Mapping[str, object]) -> None:
    """Write a conversation; an interrupted write leaves what was there. Raises ChatError."""
    body = {"model": model, **parameters, "messages": conversation.sent()}
    part = path.with_name(f"{path.name}.part")
    try:
        part.write_text(json.dumps(body, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
        part.replace(path)
    except OSError as error:
        raise ChatError("{path} cannot be written: {reason}", path=path, reason=error.strerror) from error


def load(path: Path) -> tuple[Conversation, dict[str, Any]]:
    """The conversation of a file, and the other fields of its request. Raises ChatError."""
    try:
        body = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ChatError("{path} cannot be read: {reason}", path=path, reason=error.strerror) from error
    except ValueError as error:
        raise ChatError("{path} is not a saved conversation.", path=path) from error
    messages = body.pop("messages", None) if isinstance(body, dict) else None
    if not isinstance(messages, list) or not all(_is_text(message) for message in messages):
        raise ChatError("{path} is not a saved conversation.", path=path)
    kept = [{"role": message["role"], "content": message["content"]} for message in messages]
    system = kept.pop(0)["content"] if kept and kept[0]["role"] == "system" else None
    roles = [message["role"] for message in kept]
    if roles != [("user", "assistant")[place % 2] for place in range(len(roles))] or len(roles) % 2:
        raise ChatError("In {path} questions and answers do not alternate.", path=path)
    return Conversation(system, kept), body


def _is_text(message: object) -> bool:
    return isinstance(message, dict) and all(isinstance(message.get(key), str) for key in ("role", "content"))
