"""`ondol serve`: the composition root, where the rooms are built and joined.

Knows every room's door and nothing of what goes on inside. Invariant: what can fail in a moment (a
setting, an open door without a key, a port in use, a missing model) fails before any model is loaded.
"""

import logging
import socket

import click

from ondol.api.access import check_exposure
from ondol.api.app import create_app
from ondol.api.lifecycle import Lifecycle
from ondol.api.server import bind_socket, run_server
from ondol.cli.flags import settings_options
from ondol.cli.template_file import read_template
from ondol.config import ApiConfig, Settings, load_settings
from ondol.keys.key_ring import KeyRing
from ondol.keys.key_store import KeyStore
from ondol.logs import configure_logging
from ondol.metrics import Metrics
from ondol.model_manager.load_order import LoadOrder
from ondol.model_manager.manager import ModelManager

logger = logging.getLogger(__name__)


@click.command("serve")
@click.argument("model", required=False)
@settings_options()
def serve_command(model: str | None, **flags: object) -> None:
    """Serve MODEL over HTTP: a folder, a Hub id (owner/name) or a catalog name, fetched if need be.

    \b
    Example:
      ondol serve starter
      ondol serve llama-2-7b-chat --quantization nf4 --port 9000
    """
    settings = load_settings({"model": model, **flags})
    configure_logging(settings.log_level)
    config = settings.api()
    check_exposure(config, KeyRing(config.api_keys, KeyStore(config.home)))
    order = LoadOrder(
        settings.model,
        served_name=settings.served_model_name,
        chat_template=read_template(settings.chat_template),
        is_pinned=True,
    )
    with bind_socket(config.host, config.port) as listener:
        run_daemon(settings, config, order, listener)


def run_daemon(settings: Settings, config: ApiConfig, order: LoadOrder, listener: socket.socket) -> None:
    """Serve until a signal ends it; raises the OndolError that kept the first model from loading.

    The first model is fetched if need be while the daemon answers /health, /ready and /models already.
    It is pinned: it stays loaded, and leaves only for a model that somebody orders to be loaded.
    """
    manager = ModelManager(settings.manager(), settings.engine())
    metrics = Metrics(lambda: [(model.name, model.engine.stats) for model in manager.served()])
    lifecycle = Lifecycle()
    app = create_app(manager, config=config, metrics=metrics, lifecycle=lifecycle)

    async def load() -> None:
        model = await manager.load(order)
        logger.info("serving %s on %s", model.name, url_of(listener))

    run_server(app, listener, config=config, lifecycle=lifecycle, load=load, close=manager.close)


def url_of(listener: socket.socket) -> str:
    """Where clients find the daemon; of use for port 0, which took a free one."""
    host, port = listener.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"
