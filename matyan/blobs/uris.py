"""BlobUris: the opaque names by which clients ask for an object, and the only ones.

Clients cache what they fetched by its URI, so the same object gets the same URI for as long as safety allows: AES-SIV
(RFC 5297) encrypts and authenticates without a random part, and equal inputs giving equal outputs is all that it
reveals. Fernet, which has a random part, gives another name with every answer. What stands inside: project, run,
path and the week of issue; a URI is good until the end of the week after that one.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from typing import Final, NamedTuple

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESSIV
from cryptography.hazmat.primitives.hashes import SHA512
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from matyan.clock import Clock, SystemClock
from matyan.errors import ConfigurationError, InvalidArgumentError

WINDOW_SECONDS: Final = 7 * 24 * 3600
"""A URI stays the same for at most this long, and is good for one to two times as long."""
SECRET_BYTES_MIN: Final = 16

_PURPOSE: Final = b"matyan blob uris 1"


class BlobAddress(NamedTuple):
    """What a URI names."""

    project: str
    run_id: str
    path: str


class BlobUris:
    """Seals and opens URIs. Shared by all threads."""

    def __init__(
        self, keys: Sequence[bytes], *, clock: Clock | None = None, window_seconds: int = WINDOW_SECONDS
    ) -> None:
        """Derive the ciphers.

        Args:
            keys: secrets of at least 16 random bytes; the first seals, all open, so a new one is put in front and the
                old one taken out when its last URIs have expired.
            clock: for expiry.
            window_seconds: see WINDOW_SECONDS.

        Raises:
            ConfigurationError: no key, or one that is too short.
        """
        if not keys or min(map(len, keys)) < SECRET_BYTES_MIN:
            raise ConfigurationError(f"blob URIs need a secret of at least {SECRET_BYTES_MIN} random bytes")
        self._ciphers = [AESSIV(HKDF(SHA512(), 64, salt=None, info=_PURPOSE).derive(key)) for key in keys]
        self._clock = clock or SystemClock()
        self._window_seconds = window_seconds

    def seal(self, project: str, run_id: str, path: str) -> str:
        """Return the URI of an object: URL-safe text.

        Raises:
            InvalidArgumentError: a name is not valid unicode.
        """
        try:
            plain = msgspec.msgpack.encode((self._window(), project, run_id, path))
        except UnicodeEncodeError as error:
            raise InvalidArgumentError("a blob's name is not valid unicode") from error
        sealed = self._ciphers[0].encrypt(plain, None)
        return base64.urlsafe_b64encode(sealed).decode().rstrip("=")

    def open(self, uri: str) -> BlobAddress:
        """Return what the URI names. The caller compares the project with the one it serves.

        Raises:
            InvalidArgumentError: not one of ours, changed, or expired.
        """
        window, *address = self._decrypt(uri)
        if not 0 <= self._window() - window <= 1:
            raise InvalidArgumentError("the blob URI has expired; load the object's record again")
        return BlobAddress(*address)

    def _window(self) -> int:
        return int(self._clock.now_seconds() // self._window_seconds)

    def _decrypt(self, uri: str) -> tuple[int, str, str, str]:
        try:
            data = uri.encode("ascii")
            sealed = base64.b64decode(data + b"=" * (-len(data) % 4), altchars=b"-_", validate=True)
        except (UnicodeEncodeError, binascii.Error) as error:
            raise InvalidArgumentError("not a blob URI") from error
        for cipher in self._ciphers:
            try:
                plain = cipher.decrypt(sealed, None)
            except (InvalidTag, ValueError):
                continue
            return msgspec.msgpack.decode(plain, type=tuple[int, str, str, str])
        raise InvalidArgumentError("not a blob URI")
