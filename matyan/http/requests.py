"""JSON bodies of requests: read off the event loop when large, every fault of theirs a 422."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from typing import Any

import msgspec
from litestar import Request
from litestar.exceptions import ClientException, InternalServerException

from matyan.http.faults import BODY_KEY, Fault, RequestFaultError
from matyan.limits import FRAME_INLINE_BYTES_MAX
from matyan.threads import run_blocking


class JsonRequest(Request[Any, Any, Any]):
    """Litestar's request with our own JSON decoding; `JSONBody[...]` arguments are read through it."""

    async def json(self) -> Any:
        """Return the decoded body, whatever its content type says.

        Raises:
            RequestFaultError: the body is not JSON.
        """
        state = self.scope["state"]
        if BODY_KEY not in state:
            body = await self.body()
            if len(body) > FRAME_INLINE_BYTES_MAX:
                state[BODY_KEY] = await run_blocking(decode_body, body)
            else:
                state[BODY_KEY] = decode_body(body)
        return state[BODY_KEY]

    async def stream(self) -> AsyncGenerator[bytes, None]:
        """Yield the body piece by piece.

        Raises:
            RequestEntityTooLarge: it has more bytes than the handler takes.
            ClientException: the client left before its end.
        """
        try:
            async for piece in super().stream():
                yield piece
        except InternalServerException as error:  # Litestar's word for a client that is gone
            raise ClientException("the client left before the end of the body") from error


def decode_body(body: bytes) -> Any:
    """Decode JSON as Python's own decoder would: with NaN, Infinity and integers of any size.

    Raises:
        RequestFaultError: the body is not JSON, nested too deeply, or has a number of thousands of digits.
    """
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass
    try:
        return json.loads(body)
    except json.JSONDecodeError as error:
        position, message = error.pos, error.msg
    except UnicodeDecodeError as error:
        position, message = error.start, "the body is not UTF-8"
    except RecursionError:
        position, message = 0, "the body is nested too deeply"
    except ValueError:
        position, message = 0, "the body holds a number of too many digits"
    raise RequestFaultError(Fault("json_invalid", ("body", position), "JSON decode error", {}, {"error": message}))
