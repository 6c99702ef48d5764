"""A daemon for signal tests: `python -m support.drained_daemon TOKENIZER_FOLDER LOAD GRACE_S`.

Prints its port and how far it got, and serves a fake model that writes max_tokens tokens, one every
50 ms. LOAD is "works", "never" (never ends) or "fails" (raises).
"""

import asyncio
import sys
from pathlib import Path

from support.api_settings import api_config
from support.fake_model import FakeCall, FakeManager, fake_model

from ondol.api.app import create_app
from ondol.api.lifecycle import Lifecycle
from ondol.api.server import bind_socket, run_server
from ondol.errors import ModelRefused
from ondol.metrics import Metrics

STEP_S = 0.05


def say(word: object) -> None:
    sys.stdout.write(f"{word}\n")
    sys.stdout.flush()


def main(tokenizer_folder: str, load: str, grace_s: str) -> None:
    manager = FakeManager()
    lifecycle = Lifecycle()
    config = api_config(shutdown_grace_s=float(grace_s))
    app = create_app(manager, config=config, metrics=Metrics(lambda: ()), lifecycle=lifecycle)
    typing: set[asyncio.Task[None]] = set()

    async def type_slowly(call: FakeCall) -> None:
        for _ in range(call.params.max_tokens - 1):
            await asyncio.sleep(STEP_S)
            call.feed([70])
        call.feed([70], "length")

    def script(call: FakeCall) -> None:
        typing.add(asyncio.create_task(type_slowly(call)))

    async def load_model() -> None:
        say("loading")
        if load == "never":
            await asyncio.get_running_loop().create_future()
        if load == "fails":
            raise ModelRefused("model.safetensors is truncated")
        model = fake_model(Path(tokenizer_folder))
        model.engine.script = script
        manager.models = (model,)
        say("loaded")

    async def close() -> None:
        say("closed")

    listener = bind_socket("127.0.0.1", 0)
    say(listener.getsockname()[1])
    run_server(app, listener, config=config, lifecycle=lifecycle, load=load_model, close=close)
    say("returned")


if __name__ == "__main__":
    main(*sys.argv[1:])
