"""Which models clients may name in orders.

Knows nothing about which exist. Invariant: no client makes the daemon read a folder of its choice.
"""

from ondol.errors import InvalidRequest
from ondol.model_manager.catalog import is_name, parse_hub_id


def checked_name(model: str) -> str:
    """The same, if it is a name or a Hub id; raises InvalidRequest."""
    if not is_name(model) and parse_hub_id(model) is None:
        raise InvalidRequest(
            f"'{model:.200}' is no model name. Over HTTP a model goes by its name or its Hub id "
            "(owner/name); give a folder a name with `ondol import FOLDER`.",
            param="model",
        )
    return model
