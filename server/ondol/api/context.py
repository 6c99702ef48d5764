"""What the routes share: one object per app, handed to them instead of globals.

Knows nothing about requests. Invariant: frozen; what changes lives in the objects that it names.
"""

from dataclasses import dataclass

from fastapi import Request

from ondol.api.admission import Admission
from ondol.api.background import Background
from ondol.api.fit_runs import FitRuns
from ondol.api.lifecycle import Lifecycle
from ondol.config import ApiConfig
from ondol.metrics import Metrics
from ondol.model_manager.manager import ModelManager


@dataclass(frozen=True, slots=True)
class ApiContext:
    """The rooms behind the front door, as one app sees them."""

    manager: ModelManager
    config: ApiConfig
    metrics: Metrics
    lifecycle: Lifecycle
    admission: Admission
    background: Background
    fit_runs: FitRuns


def context_of(request: Request) -> ApiContext:
    """The context of the app that `request` came to."""
    context = request.app.state.context
    assert isinstance(context, ApiContext)
    return context
