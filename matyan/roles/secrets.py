"""Keys for a purpose: kept in the data directory of one machine, or derived from secrets that several are given."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from matyan.roles.home import KEY_BYTES, keys
from matyan.settings import Secret, Settings

_PURPOSE: Final = b"matyan/"


def keys_of(settings: Settings, name: str) -> Sequence[bytes]:
    """Return the keys of a purpose, 32 bytes each, the newest first.

    They come from `secrets.keys` where that is set, and are the same in every process that is given the same; else
    from the data directory, which makes one at first use.

    Raises:
        ConfigurationError: the data directory's file is not what we wrote, or cannot be read or written.
    """
    given = settings.secrets.keys
    return [_derived(secret, name) for secret in given] if given else keys(settings.home, name)


def _derived(secret: Secret, name: str) -> bytes:
    """Derive by HKDF (RFC 5869): what leaks of one purpose tells nothing of another."""
    derive = HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=None, info=_PURPOSE + name.encode())
    return derive.derive(secret.reveal().encode())
