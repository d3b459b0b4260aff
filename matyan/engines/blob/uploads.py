"""LocalUploads: the tokens by which our own upload route knows what a client was allowed to PUT."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Final, NamedTuple, Protocol, runtime_checkable

import msgspec
from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from matyan.clock import Clock
from matyan.engines.blob.protocol import BlobInfo
from matyan.errors import ConfigurationError, InvalidArgumentError

UPLOAD_ROUTE: Final = "/api/v1/uploads"
SECRET_BYTES_MIN: Final = 16

_PURPOSE: Final = b"matyan upload tokens 1"
_TEXT_ERRORS: Final = "surrogatepass"


class AllowedUpload(NamedTuple):
    """What a token allows."""

    key: str
    content_type: str


class Upload(Protocol):
    """An object on its way into the store. Calls may block and come from any thread, one after the other."""

    def write(self, chunk: bytes) -> None:
        """Add to the content.

        Raises:
            UnavailableError: the disk is full or fails.
        """

    def finish(self) -> BlobInfo:
        """Put the object in its place, as `BlobEngine.put` does.

        Raises:
            UnavailableError: the disk is full or fails.
        """

    def close(self) -> None:
        """Release everything; an object that was not finished is gone. Waits for a call in another thread."""


@runtime_checkable
class LocalUploads(Protocol):
    """An engine whose presigned URLs lead back to us: `PUT {UPLOAD_ROUTE}/{token}`."""

    def verify_put(self, token: str) -> AllowedUpload:
        """Return what the token allows; the route then begins it, whatever headers came with the request.

        Raises:
            InvalidArgumentError: the token is not ours, was changed, or has expired.
        """

    def begin_put(self, key: str, *, content_type: str) -> Upload:
        """Begin what `put` does at once: the pieces come later, from whatever thread."""


class UploadTokens:
    """Makes and checks tokens. They are encrypted, so a URL in a proxy's log names no run, and safe in a path.

    The first key seals, all open: a new one is put in front, and the old one goes when its last tokens have expired.
    """

    def __init__(self, keys: Sequence[bytes], clock: Clock) -> None:
        if not keys or min(map(len, keys)) < SECRET_BYTES_MIN:
            raise ConfigurationError(f"upload URLs need a secret of at least {SECRET_BYTES_MIN} random bytes")
        self._fernet = MultiFernet([_cipher(key) for key in keys])
        self._clock = clock

    def seal(self, key: bytes, content_type: str, expires_seconds: int) -> str:
        """Return a token for one upload, good for `expires_seconds` from now."""
        now_seconds = self._clock.now_seconds()
        payload = msgspec.msgpack.encode(
            (key, content_type.encode("utf-8", _TEXT_ERRORS), now_seconds + expires_seconds)
        )
        # A fixed time stamp inside: the expiry above is the one that counts, and it is the injected clock's.
        return self._fernet.encrypt_at_time(payload, int(now_seconds)).decode().rstrip("=")

    def open(self, token: str) -> AllowedUpload:
        """Return what the token allows.

        Raises:
            InvalidArgumentError: the token is not ours, was changed, or has expired.
        """
        try:
            # Surrogates in a wild token must end here, not in a UnicodeEncodeError; padding was cut off by `seal`.
            data = token.encode("ascii")
            payload = self._fernet.decrypt(data + b"=" * (-len(data) % 4))
            key, content_type, expires_at = msgspec.msgpack.decode(payload, type=tuple[bytes, bytes, float])
        except (InvalidToken, UnicodeEncodeError, msgspec.MsgspecError) as error:
            raise InvalidArgumentError("the upload URL is not valid; ask for a new one") from error
        if self._clock.now_seconds() >= expires_at:
            raise InvalidArgumentError("the upload URL has expired; ask for a new one")
        return AllowedUpload(key.decode("utf-8", _TEXT_ERRORS), content_type.decode("utf-8", _TEXT_ERRORS))


def _cipher(key: bytes) -> Fernet:
    """Derive a cipher for this purpose alone: no token made elsewhere from the same key can pass for an upload."""
    derived = HKDF(SHA256(), 32, salt=None, info=_PURPOSE).derive(key)
    return Fernet(base64.urlsafe_b64encode(derived))
