"""JSON answers that never hold NaN or Infinity, which no JSON parser of a browser accepts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec
from litestar import Response

JSON: Final = "application/json"


def _plain(value: Any) -> Any:
    """Turn a numpy scalar or array into what JSON knows."""
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} is no JSON value")


_ENCODER: Final = msgspec.json.Encoder(enc_hook=_plain)


def json_bytes(value: Any) -> bytes:
    """Encode as UTF-8 JSON: non-ASCII unescaped, NaN and infinities as null, integers of any size.

    Where the contract wants NaN as text (params of a run), the caller replaces it before. Lone surrogates, which no
    UTF-8 can hold, become question marks: requests may carry them, and errors show what was sent.
    """
    try:
        return _ENCODER.encode(value)
    except UnicodeEncodeError:
        return _ENCODER.encode(_encodable(msgspec.to_builtins(value, enc_hook=_plain)))


def _encodable(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, dict):
        return {_encodable(key): _encodable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_encodable(item) for item in value]
    return value


def json_response(value: Any, *, status: int = 200, headers: Mapping[str, str] | None = None) -> Response[bytes]:
    """Return `value` as a JSON answer; the way out for everything that may hold floats from users."""
    return Response(json_bytes(value), status_code=status, media_type=JSON, headers=dict(headers or {}))
