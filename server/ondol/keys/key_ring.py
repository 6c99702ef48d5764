"""All keys that open the daemon: those of the settings and those of the store.

Knows nothing about how a key is presented. Invariant: once there has been any key, a revoked one too,
none means no entry: neither the last revocation nor the loss of the file opens a door that is closed.
"""

import hmac

from ondol.keys.key_store import ApiKey, KeyLimits, KeyStore, digest
from ondol.keys.usage import KeyUsage


class KeyRing:
    """Belongs to one event loop; sees changes of the store at the next request."""

    def __init__(self, settings_keys: tuple[str, ...], store: KeyStore) -> None:
        """`settings_keys` have no limits."""
        self._fixed = tuple(digest(key.encode()) for key in settings_keys)
        self._store = store
        self._usages: dict[str, KeyUsage] = {}
        self._is_required = bool(self._fixed)

    @property
    def is_required(self) -> bool:
        """Whether requests need a key; from the first key on until the daemon ends."""
        self._is_required = self._is_required or bool(self._store.entries())
        return self._is_required

    def find(self, presented: bytes) -> KeyUsage | None:
        """The use of a valid key; None for any other."""
        found = digest(presented)
        valid = {key.digest: key for key in self._store.entries() if key.revoked is None}
        # Every digest is compared, also after a match, so the time tells nothing.
        matches = [known for known in (*self._fixed, *valid) if hmac.compare_digest(known, found)]
        if not matches:
            return None
        return self._usage(found, valid.get(found))

    def _usage(self, key_digest: str, key: ApiKey | None) -> KeyUsage:
        limits = KeyLimits() if key is None else key.limits
        return self._usages.setdefault(key_digest, KeyUsage(limits))
