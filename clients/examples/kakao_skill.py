"""A KakaoTalk chatbot skill that answers with a local model. 카카오톡 챗봇 스킬 서버.

    pip install openai fastapi uvicorn httpx wcwidth
    python kakao_skill.py --base-url http://127.0.0.1:8000/v1 --model starter --port 9000

POST /skill takes SkillPayload and answers SkillResponse, version 2.0
(https://kakaobusiness.gitbook.io/main/tool/chatbot/skill_guide). Kakao waits 5 seconds, so the daemon is
given a `deadline_s`: what is there by then is shown, and the quick reply 계속 goes on with it. A block with
the callback option sends a `callbackUrl`; then there is a minute for the answer, which is posted there.

Knows nothing about the model. Invariant: every skill request is answered within Kakao's time, whatever
the daemon does.
"""

import argparse
import asyncio
import hmac
import logging
import os
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Annotated, Any
from urllib.parse import urlsplit

import httpx
import openai
import uvicorn
from fastapi import BackgroundTasks, FastAPI, Header, HTTPException
from pydantic import BaseModel, Field
from wcwidth import iter_graphemes

# Kakao's limits: the answer to a skill, the life of a callback URL, the text of one bubble.
SKILL_TIMEOUT_S = 5.0
CALLBACK_TIMEOUT_S = 60.0
MAX_TEXT_UNITS = 1000
# Of those times, what the way there and back may take, and what more a daemon in trouble may take.
NETWORK_S = 1.2
GRACE_S = 0.4
MAX_TOKENS = 400
# How much of a conversation the model is reminded of, and how many people's conversations are kept.
MAX_MESSAGES = 12
MAX_USERS = 1000

CONTINUE = "계속"
RESET = "새 대화"
THINKING = "생각하고 있어요. 잠시만 기다려 주세요."
NOT_YET = f"아직 답을 쓰지 못했어요. '{CONTINUE}'을 누르면 다시 답할게요."
FAILED = "지금은 답할 수 없어요. 잠시 뒤에 다시 물어봐 주세요."
TOO_LONG = "대화가 너무 길어져 처음부터 새로 시작해요. 다시 물어봐 주세요."
FORGOTTEN = "새로 시작해요. 무엇이 궁금한가요?"
SYSTEM = "카카오톡 대화 상대입니다. 한국어로 짧고 친절하게 답하세요."

logger = logging.getLogger("kakao_skill")


@dataclass(frozen=True, slots=True)
class SkillSettings:
    """How the bridge is run.

    Attributes:
        secret: what the header `x-skill-secret` has to hold, as registered with the skill; None is no matter.
        callback_domain: answers are posted to hosts of this domain only, for anybody may send a payload.
    """

    base_url: str = "http://127.0.0.1:8000/v1"
    model: str = "starter"
    api_key: str = "any"
    system: str = SYSTEM
    secret: str | None = None
    callback_domain: str = "kakao.com"


class SkillUser(BaseModel):
    """Who speaks: the bot's own key for a person."""

    id: str = Field(max_length=200)


class UserRequest(BaseModel):
    """What was said."""

    utterance: str
    user: SkillUser
    callback_url: str | None = Field(default=None, alias="callbackUrl")


class SkillPayload(BaseModel):
    """The part of Kakao's SkillPayload that an answer depends on."""

    user_request: UserRequest = Field(alias="userRequest")


@dataclass(slots=True)
class Talk:
    """One person's conversation, as far as it was shown to them."""

    messages: list[dict[str, str]] = field(default_factory=list)
    is_unfinished: bool = False


class Talks:
    """The conversations of the people who spoke last."""

    def __init__(self) -> None:
        self._talks: OrderedDict[str, Talk] = OrderedDict()

    def of(self, user_id: str) -> Talk:
        """The person's conversation; who has not spoken for the longest time is forgotten for a new one."""
        talk = self._talks.setdefault(user_id, Talk())
        self._talks.move_to_end(user_id)
        if len(self._talks) > MAX_USERS:
            self._talks.popitem(last=False)
        return talk

    def forget(self, user_id: str) -> None:
        """Begin anew with this person."""
        self._talks.pop(user_id, None)


class SkillBridge:
    """Turns skill requests into chats, and answers into skill responses."""

    def __init__(self, settings: SkillSettings) -> None:
        self._settings = settings
        self._talks = Talks()
        # A second try would come too late.
        self._client = openai.AsyncOpenAI(base_url=settings.base_url, api_key=settings.api_key, max_retries=0)

    async def respond(
        self, user_id: str, utterance: str, timeout_s: float = SKILL_TIMEOUT_S
    ) -> dict[str, Any]:
        """The skill response to what a person said, in less than `timeout_s`."""
        if utterance == RESET:
            self._talks.forget(user_id)
            return response(FORGOTTEN)
        talk = self._talks.of(user_id)
        messages, begun = self._asked(talk, utterance)
        try:
            text, is_cut = await self._answer(messages, begun, timeout_s - NETWORK_S)
        except (openai.OpenAIError, TimeoutError) as error:
            logger.warning("no answer: %r", error)
            if getattr(error, "code", None) != "context_length_exceeded":
                return response(FAILED)
            self._talks.forget(user_id)
            return response(TOO_LONG)
        shown = cut(text, MAX_TEXT_UNITS)
        # The model goes on from what was shown; what was cut off it writes again.
        answer = {"role": "assistant", "content": begun + shown}
        talk.messages = [*messages, answer] if begun + shown else messages
        talk.is_unfinished = is_cut or shown != text or not shown.strip()
        return response(shown.strip() or NOT_YET, can_continue=talk.is_unfinished)

    async def respond_later(self, user_id: str, utterance: str, callback_url: str) -> None:
        """Post the skill response to where Kakao waits for it; that works once."""
        answer = await self.respond(user_id, utterance, CALLBACK_TIMEOUT_S)
        try:
            async with httpx.AsyncClient(timeout=SKILL_TIMEOUT_S) as http:
                (await http.post(callback_url, json=answer)).raise_for_status()
        except httpx.HTTPError as error:
            logger.warning("the callback was not taken: %s", error)

    def _asked(self, talk: Talk, utterance: str) -> tuple[list[dict[str, str]], str]:
        """The turns up to the question, and how the answer to it has begun."""
        messages = talk.messages[-MAX_MESSAGES:]
        if utterance == CONTINUE and talk.is_unfinished:
            if messages[-1]["role"] == "assistant":
                return messages[:-1], messages[-1]["content"]
            return messages, ""
        if messages and messages[-1]["role"] == "user":
            messages = messages[:-1]  # a question that got no answer: roles have to alternate
        if len(messages) == MAX_MESSAGES:
            messages = messages[2:]
        return [*messages, {"role": "user", "content": utterance}], ""

    async def _answer(
        self, messages: list[dict[str, str]], begun: str, deadline_s: float
    ) -> tuple[str, bool]:
        """New text, and whether more would have come. Raises OpenAIError or TimeoutError."""
        continued = {"continue_final_message": True, "add_generation_prompt": False} if begun else {}
        turns = [*messages, {"role": "assistant", "content": begun}] if begun else messages
        create: Any = self._client.chat.completions.create
        async with asyncio.timeout(deadline_s + GRACE_S):
            answer = await create(
                model=self._settings.model,
                messages=[{"role": "system", "content": self._settings.system}, *turns],
                max_tokens=MAX_TOKENS,
                extra_body={"deadline_s": deadline_s, **continued},
            )
        (choice,) = answer.choices
        return choice.message.content or "", choice.finish_reason == "length"

    def is_kakaos(self, url: str) -> bool:
        """Whether answers may be posted there."""
        parts = urlsplit(url)
        host = parts.hostname or ""
        domain = self._settings.callback_domain
        return parts.scheme == "https" and (host == domain or host.endswith(f".{domain}"))


def response(text: str, *, can_continue: bool = False) -> dict[str, Any]:
    """A SkillResponse with one bubble of text and quick replies."""
    labels = [CONTINUE, RESET] if can_continue else [RESET]
    replies = [{"label": label, "action": "message", "messageText": label} for label in labels]
    return {
        "version": "2.0",
        "template": {"outputs": [{"simpleText": {"text": text}}], "quickReplies": replies},
    }


def cut(text: str, max_units: int) -> str:
    """The longest beginning of at most `max_units` UTF-16 units that ends between two characters.

    An emoji of several parts, or a syllable of jamo, is kept or left out as a whole.
    """
    kept, num_units = [], 0
    for grapheme in iter_graphemes(text):
        num_units += len(grapheme.encode("utf-16-le")) // 2
        if num_units > max_units:
            break
        kept.append(grapheme)
    return "".join(kept)


def create_app(settings: SkillSettings) -> FastAPI:
    """The skill server."""
    bridge = SkillBridge(settings)
    app = FastAPI(title="KakaoTalk skill")

    @app.post("/skill")
    async def skill(
        payload: SkillPayload,
        background: BackgroundTasks,
        x_skill_secret: Annotated[str, Header()] = "",
    ) -> dict[str, Any]:
        if settings.secret and not hmac.compare_digest(x_skill_secret.encode(), settings.secret.encode()):
            raise HTTPException(403)
        asked = payload.user_request
        user_id, utterance = asked.user.id, asked.utterance.strip()
        if asked.callback_url is None:
            return await bridge.respond(user_id, utterance)
        if not bridge.is_kakaos(asked.callback_url):
            raise HTTPException(403)
        background.add_task(bridge.respond_later, user_id, utterance, asked.callback_url)
        return {"version": "2.0", "useCallback": True, "data": {"text": THINKING}}

    return app


def main() -> None:
    """Serve on this machine; Kakao reaches it through a reverse proxy with TLS."""
    default = SkillSettings()
    parser = argparse.ArgumentParser(description="Serves a KakaoTalk skill at POST /skill.")
    parser.add_argument("--base-url", default=default.base_url)
    parser.add_argument("--model", default=default.model)
    parser.add_argument("--system", default=default.system)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=9000)
    options = parser.parse_args()
    settings = SkillSettings(
        options.base_url,
        options.model,
        os.environ.get("ONDOL_API_KEY", default.api_key),
        options.system,
        os.environ.get("KAKAO_SKILL_SECRET"),
    )
    uvicorn.run(create_app(settings), host=options.host, port=options.port)


if __name__ == "__main__":
    main()
