"""The Hub, the token for it, and the port that the daemon listens on.

Knows nothing about models. Invariant: a token is neither sent nor shown.
"""

import httpx
from huggingface_hub import constants, get_token

from ondol.api.server import bind_socket
from ondol.cli.daemon_client import DaemonClient, daemon_url
from ondol.cli.diagnosis.finding import Finding
from ondol.cli.language import tr, translator
from ondol.config import Settings
from ondol.errors import AddressInUse, OndolError

HUB_TIMEOUT_S = 3.0


def hub() -> Finding:
    """Whether the Hub answers."""
    name = "Hub"
    if constants.HF_HUB_OFFLINE:
        return Finding(name, "ok", tr("not asked, because HF_HUB_OFFLINE is set"))
    try:
        answer = httpx.head(constants.ENDPOINT, timeout=HUB_TIMEOUT_S)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        reason = str(error) or type(error).__name__
        return _unreachable(tr("{url} does not answer: {reason}", url=constants.ENDPOINT, reason=reason))
    if answer.is_server_error:
        return _unreachable(
            tr("{url} answers with status {status}", url=constants.ENDPOINT, status=answer.status_code)
        )
    return Finding(name, "ok", tr("{url} answers", url=constants.ENDPOINT))


def _unreachable(message: str) -> Finding:
    advice = tr(
        "Models on this machine can be served all the same. Otherwise check the network and the proxy, or "
        "set HF_ENDPOINT to a mirror."
    )
    return Finding("Hub", "warn", message, advice)


def token() -> Finding:
    """Whether there is a token for gated models."""
    name = tr("Hub token")
    if get_token():
        return Finding(name, "ok", tr("there is one; `ondol whoami` tells whose"))
    return Finding(name, "ok", tr("none, which is enough for public models; `ondol login` stores one"))


def port(settings: Settings) -> Finding:
    """Whether the daemon could listen where the settings say, or does so already."""
    name = tr("port")
    url = daemon_url(settings.host, settings.port)
    with DaemonClient(url) as client:
        try:
            is_running = client.is_running()
        except OndolError:  # something answers, but it is no daemon
            is_running = False
    if is_running:
        return Finding(name, "ok", tr("an Ondol daemon answers at {url}", url=url))
    try:
        bind_socket(settings.host, settings.port).close()
    except AddressInUse as error:
        message = tr("another program listens on {url}", url=url)
        advice = tr("End that program, or choose another port with --port.")
        return Finding(name, "fail", message, advice, error.exit_code)
    except OndolError as error:
        message = translator().composed(str(error))
        advice = tr("Change the settings host and port.")
        return Finding(name, "fail", message, advice, error.exit_code)
    return Finding(name, "ok", tr("{url} is free", url=url))
