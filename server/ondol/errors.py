"""Every error that Ondol raises on purpose, as one tree.

Knows nothing about HTTP or terminals: an error carries data and a sentence that says what to do.
`api/errors.py` turns it into OpenAI's error body, `cli/main.py` into one line and an exit code.

    OndolError                    exit  HTTP
    ├── ConfigError                 2   500    over HTTP: of the daemon's own settings
    ├── ModelNotFound               3   404
    ├── AccessDenied                4   403    the Hub refuses; carries the page to open
    │   ├── HubTokenMissing         4   401    gated or private, and no token was sent
    │   ├── HubTokenInvalid         4   401    the Hub does not know this token
    │   ├── HubAccessNotGranted     4   403    the account has not asked for access
    │   ├── HubAccessPending        4   403    the account has asked and waits
    │   └── HubTokenLacksScope      4   403    a fine-grained token without the gated scope
    ├── DoesNotFit                  5   400    memory or disk
    ├── DaemonUnreachable           6
    ├── DeviceUnusable              7   500
    ├── ModelRefused                8   400    corrupt, unsupported or unsafe checkpoint
    ├── AddressInUse                9
    ├── SourceUnreachable          10   502    Hub or package index cannot be reached
    ├── Unauthorized                4   401    an API key is missing or wrong
    ├── OriginRefused               4   403    another website, or a name that is not this host's
    ├── InvalidKeyName              2          the name cannot name an API key
    ├── KeyNotFound                 3          no API key goes by this name
    ├── InvalidRequest              2   400    names the offending field
    │   ├── NoChatTemplate          2   400    code no_chat_template
    │   └── PromptTooLong           2   400    code context_length_exceeded
    ├── NotNow                     11          refused for what the daemon is doing, not for what was asked
    │   ├── KeyLimitReached        11   429    a limit of the API key; carries retry_after_s
    │   ├── QueueFull              11   429    carries retry_after_s
    │   ├── ModelInUse             11   409    it cannot be unloaded or removed while streams are open
    │   ├── LoadStopped            11   409    somebody gave up the load while others waited for it
    │   ├── NoRoomYet              11   503    no room until other models' streams end; carries retry_after_s
    │   ├── Loading                11   503    the model is not ready yet; carries retry_after_s
    │   ├── Unloading              11   503    the model ends its last answers; carries retry_after_s
    │   └── Draining               11   503    the daemon is shutting down; carries retry_after_s
    └── EngineFailed               70   500    the engine process died or a step raised
"""

import difflib


class OndolError(Exception):
    """Root of all expected failures; `str(error)` is one sentence for a person."""

    exit_code = 1


class ConfigError(OndolError):
    """A setting is unknown or has a bad value; the message names its source."""

    exit_code = 2


class ModelNotFound(OndolError):
    """No model goes by this name; carries the names that would have worked, and those that are close."""

    exit_code = 3

    def __init__(self, name: str, known: tuple[str, ...] = (), *, is_elsewhere: bool = False) -> None:
        self.name = name
        self.known = known
        self.close = tuple(difflib.get_close_matches(name.casefold(), known))
        hint = f" Known models: {', '.join(known)}." if known else ""
        if self.close:
            hint = f" Did you mean {' or '.join(self.close)}?"
        if is_elsewhere:
            super().__init__(f"The model '{name}' is not on this machine.{hint}")
        else:
            super().__init__(f"The model '{name}' does not exist.{hint}")


class AccessDenied(OndolError):
    """The Hub refuses this repository to this user.

    `page` is the page to open, where there is one.
    """

    exit_code = 4

    def __init__(self, message: str, page: str | None = None) -> None:
        self.page = page
        super().__init__(message)


class HubTokenMissing(AccessDenied):
    """The repository is gated or private, and no token was sent."""


class HubTokenInvalid(AccessDenied):
    """The Hub does not know the token: mistyped, expired or revoked."""


class HubAccessNotGranted(AccessDenied):
    """The account has not asked for access to this gated repository."""


class HubAccessPending(AccessDenied):
    """The account has asked for access and the repository's authors have not answered."""


class HubTokenLacksScope(AccessDenied):
    """A fine-grained token that may not read gated repositories."""


class DoesNotFit(OndolError):
    """Weights, KV cache or files are larger than the memory or disk that is left."""

    exit_code = 5


class DaemonUnreachable(OndolError):
    """No Ondol daemon answers at the given address."""

    exit_code = 6


class DeviceUnusable(OndolError):
    """The device that was asked for is missing or broken."""

    exit_code = 7


class ModelRefused(OndolError):
    """The checkpoint is corrupt, unsafe or of a kind that Ondol would run wrongly."""

    exit_code = 8


class AddressInUse(OndolError):
    """Another process listens on the host and port."""

    exit_code = 9


class SourceUnreachable(OndolError):
    """The Hub or the package index did not answer; nothing was half-registered."""

    exit_code = 10


class Unauthorized(OndolError):
    """The request carries no valid API key."""

    exit_code = 4


class OriginRefused(OndolError):
    """A browser asks on behalf of another website, or under a name that is not this host's."""

    exit_code = 4

    def __init__(self, message: str, code: str) -> None:
        self.code = code
        super().__init__(message)


class NotNow(OndolError):
    """The daemon refuses for what it is doing, not for what was asked: the same may be taken later."""

    exit_code = 11


class KeyLimitReached(NotNow):
    """The API key allows no more for now; retry after `retry_after_s` seconds."""

    def __init__(self, what: str, limit: int, retry_after_s: int) -> None:
        self.what = what
        self.retry_after_s = retry_after_s
        unit = "at a time" if what == "concurrent requests" else "per minute"
        super().__init__(f"This API key allows {limit} {what} {unit}. Retry after {retry_after_s} s.")


class InvalidKeyName(OndolError):
    """The name is taken by another API key or cannot name one."""

    exit_code = 2


class KeyNotFound(OndolError):
    """No valid API key goes by this name."""

    exit_code = 3

    def __init__(self, name: str, known: tuple[str, ...]) -> None:
        self.name = name
        hint = f" Keys: {', '.join(known)}." if known else " No key is valid now."
        super().__init__(f"There is no API key named '{name}'.{hint}")


class InvalidRequest(OndolError):
    """A request body or header is wrong; `param` names the field."""

    exit_code = 2

    def __init__(self, message: str, param: str | None = None, code: str | None = None) -> None:
        self.param = param
        self.code = code
        super().__init__(message)


class NoChatTemplate(InvalidRequest):
    """A base model was asked to chat; a client that knows `CODE` asks it to continue a text instead."""

    CODE = "no_chat_template"

    def __init__(self) -> None:
        super().__init__(
            "This model has no chat template; use /v1/completions, or serve it with --chat-template FILE.",
            param="model",
            code=self.CODE,
        )


class PromptTooLong(InvalidRequest):
    """The prompt, or the prompt plus the asked completion, exceeds the context length (in tokens)."""

    def __init__(
        self, num_tokens: int, max_tokens: int, num_completion_tokens: int = 0, param: str = "messages"
    ) -> None:
        self.num_tokens = num_tokens
        self.max_tokens = max_tokens
        asked, advice = "", "Shorten the prompt."
        if num_completion_tokens:
            asked = f" and asks for {num_completion_tokens} more"
            advice = "Shorten the prompt or lower max_tokens."
        super().__init__(
            f"This model's maximum context length is {max_tokens} tokens. However, the prompt has "
            f"{num_tokens} tokens{asked}. {advice}",
            param=param,
            code="context_length_exceeded",
        )


class QueueFull(NotNow):
    """Too many requests are open; retry after `retry_after_s` seconds."""

    def __init__(self, retry_after_s: int) -> None:
        self.retry_after_s = retry_after_s
        super().__init__(f"The server is at capacity. Retry after {retry_after_s} s.")


class ModelInUse(NotNow):
    """The model has open streams, so it is not unloaded or removed; carries its name."""

    def __init__(self, name: str, num_streams: int) -> None:
        self.name = name
        self.num_streams = num_streams
        until = (
            "a request. Try again when it ends"
            if num_streams == 1
            else (f"{num_streams} requests. Try again when they end")
        )
        super().__init__(f"The model '{name}' is answering {until}.")


class LoadStopped(NotNow):
    """The load was given up by an unload order; carries the model's name."""

    def __init__(self, name: str) -> None:
        self.name = name
        super().__init__(f"Loading '{name}' was stopped on request. Load it again when it is wanted.")


class NoRoomYet(NotNow):
    """Other models' open streams hold the memory that this one needs."""

    def __init__(self, name: str, retry_after_s: int) -> None:
        self.name = name
        self.retry_after_s = retry_after_s
        super().__init__(
            f"There is no room for '{name}' until other models finish their answers. "
            f"Retry after {retry_after_s} s."
        )


class Loading(NotNow):
    """The model is still being loaded; generation has to wait."""

    retry_after_s = 5


class Unloading(NotNow):
    """The model is to leave once its last answers have ended, and takes no new request."""

    retry_after_s = 5

    def __init__(self, name: str) -> None:
        self.name = name
        super().__init__(f"The model '{name}' is being unloaded. Retry after {self.retry_after_s} s.")


class Draining(NotNow):
    """The daemon finishes what is open and takes nothing new."""

    retry_after_s = 5


class EngineFailed(OndolError):
    """The engine process died, or this request's computation raised."""

    exit_code = 70
