"""Builds the HTTP application from the rooms behind it.

The only place that knows all routes and middlewares. Invariant: no globals — two apps in one process
share nothing.
"""

from fastapi import FastAPI

from ondol import __version__
from ondol.api import (
    chat_completions,
    completions,
    model_admin,
    model_events,
    model_fit,
    models,
    probes,
    props,
    text_tools,
)
from ondol.api.access import ApiKeyGuard, is_loopback
from ondol.api.admission import Admission
from ondol.api.background import Background
from ondol.api.browsers import BrowserGuard, host_names
from ondol.api.context import ApiContext
from ondol.api.errors import documented_errors, install_error_handlers
from ondol.api.fit_runs import FitRuns
from ondol.api.lifecycle import Lifecycle
from ondol.api.request_ids import RequestIds
from ondol.api.sse import keep_streams_open_at_shutdown
from ondol.api.web_page import WebPage
from ondol.config import ApiConfig
from ondol.keys.key_ring import KeyRing
from ondol.keys.key_store import KeyStore
from ondol.metrics import Metrics
from ondol.model_manager.manager import ModelManager


def create_app(
    manager: ModelManager, *, config: ApiConfig, metrics: Metrics, lifecycle: Lifecycle
) -> FastAPI:
    """The app; it serves as soon as it exists and takes requests once `lifecycle` is ready."""
    keep_streams_open_at_shutdown()
    app = FastAPI(
        title="Ondol",
        version=__version__,
        # A redirect to a path without its slash would be built from the client's Host header.
        redirect_slashes=False,
        # Their pages load scripts from a CDN; /openapi.json tells the same without one.
        docs_url=None,
        redoc_url=None,
    )
    app.state.context = ApiContext(
        manager, config, metrics, lifecycle, Admission(), Background(lifecycle), FitRuns(config.fit_flags)
    )
    install_error_handlers(app)
    # The last one added is the outermost.
    keys = KeyRing(config.api_keys, KeyStore(config.home))
    hosts = host_names(
        config.host, config.allowed_hosts, is_guarded=keys.is_required and not is_loopback(config.host)
    )
    page = WebPage() if config.web else None
    app.add_middleware(
        ApiKeyGuard, keys=keys, metrics_require_key=config.metrics_require_key, open_route=page
    )
    app.add_middleware(BrowserGuard, hosts=hosts, origins=config.cors_origins)
    app.add_middleware(RequestIds)
    generating = (chat_completions, completions, text_tools)
    for routes in (*generating, models, model_admin, model_events, model_fit, props, probes):
        app.include_router(routes.router, responses=documented_errors())
    if page is not None:
        app.router.routes.append(page)
    return app
