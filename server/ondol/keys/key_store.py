"""The keys that were made on this machine: one JSON file under Ondol's home folder.

Knows nothing about how keys are presented. Invariant: the file holds digests, never keys, and is
readable by its owner alone; a daemon that runs sees every change at its next request.
"""

import os
import re
import secrets
import tempfile
import time
from hashlib import sha256
from pathlib import Path

import msgspec
from filelock import FileLock

from ondol.errors import ConfigError, InvalidKeyName, KeyNotFound

KEYS_FILE = "keys.json"
KEY_PREFIX = "sk-ondol-"
KEY_BYTES = 32
NAME_PATTERN = re.compile(r"[\w][\w .@-]{0,63}")


class KeyLimits(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What one key allows; None is no limit.

    `min_priority` is the most urgent priority of its requests, for lower is more urgent; those that name none
    have 0, or this if it is higher.
    """

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    max_concurrency: int | None = None
    min_priority: int | None = None


class ApiKey(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is kept of a key.

    Attributes:
        digest: SHA-256 of the key, in hexadecimal. Keys are 256 random bits, so that no salt and no
            slow hash is needed.
        created, revoked: Unix seconds; a key that is not revoked has None.
    """

    name: str
    digest: str
    created: int
    limits: KeyLimits = KeyLimits()
    revoked: int | None = None


class KeyFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole file."""

    keys: tuple[ApiKey, ...] = ()


class KeyStore:
    """The keys under one home folder."""

    def __init__(self, home: Path) -> None:
        self._path = home / KEYS_FILE
        self._lock = FileLock(home / f".{KEYS_FILE}.lock")
        self._stamp: tuple[int, int] | None = None
        self._keys: tuple[ApiKey, ...] = ()

    def entries(self) -> tuple[ApiKey, ...]:
        """Every key that was ever made, revoked ones too, oldest first.

        Raises ConfigError when the file cannot be read.
        """
        try:
            status = self._path.stat()
        except (FileNotFoundError, NotADirectoryError):
            self._stamp, self._keys = None, ()
            return ()
        stamp = (status.st_mtime_ns, status.st_ino)
        if stamp != self._stamp:
            self._keys = self._read()
            self._stamp = stamp
        return self._keys

    def create(self, name: str, limits: KeyLimits) -> str:
        """Make a key and return it; this is the only time that it can be seen.

        Raises InvalidKeyName for a name that is taken or not printable.
        """
        if not NAME_PATTERN.fullmatch(name):
            raise InvalidKeyName(f"'{name}' cannot name a key: use up to 64 letters, digits, spaces or .@_-")
        key = KEY_PREFIX + secrets.token_urlsafe(KEY_BYTES)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._lock:
            keys = self.entries()
            if any(known.name == name and known.revoked is None for known in keys):
                raise InvalidKeyName(f"There is a key named '{name}' already. Revoke it first.")
            made = ApiKey(name=name, digest=digest(key.encode()), created=int(time.time()), limits=limits)
            self._write((*keys, made))
        return key

    def revoke(self, name: str) -> None:
        """From now on the key of this name opens nothing; raises KeyNotFound."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._lock:
            keys = self.entries()
            valid = tuple(key.name for key in keys if key.revoked is None)
            if name not in valid:
                raise KeyNotFound(name, valid)
            self._write(
                tuple(
                    msgspec.structs.replace(key, revoked=int(time.time()))
                    if key.name == name and key.revoked is None
                    else key
                    for key in keys
                )
            )

    def _read(self) -> tuple[ApiKey, ...]:
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=KeyFile).keys
        except (OSError, msgspec.DecodeError) as error:
            raise ConfigError(f"the key file {self._path} cannot be read: {error}") from error

    def _write(self, keys: tuple[ApiKey, ...]) -> None:
        """Replace the file at once, so that no reader sees half of it."""
        descriptor, name = tempfile.mkstemp(dir=self._path.parent, prefix=f".{KEYS_FILE}.")  # mode 0600
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(msgspec.json.format(msgspec.json.encode(KeyFile(keys)), indent=2))
                file.flush()
                os.fsync(file.fileno())
            os.replace(name, self._path)
        except BaseException:
            os.unlink(name)
            raise


def digest(key: bytes) -> str:
    """What is kept of a key."""
    return sha256(key).hexdigest()
