"""Which models clients may name in orders.

Invariant: no client makes the daemon read a folder of its choice.
"""

from ondol.errors import InvalidRequest
from ondol.model_manager.catalog import is_name, parse_hub_id
from ondol.model_manager.manager import ModelManager


def checked_name(model: str, manager: ModelManager) -> str:
    """The same, if it is a name or a Hub id, or known under whatever name; raises InvalidRequest."""
    is_known = any(status.id == model for status in manager.statuses())
    if not is_known and not is_name(model) and parse_hub_id(model) is None:
        raise InvalidRequest(
            f"'{model:.200}' is no model name. Over HTTP a model goes by its name or its Hub id "
            "(owner/name); give a folder a name with `ondol import FOLDER`.",
            param="model",
        )
    return model
