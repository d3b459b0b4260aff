"""Presigned uploads, and batches of blobs by URI."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable, Iterator
from concurrent.futures import CancelledError, Future
from typing import Any, Final

import msgspec
from litestar import Request, Response, post, put
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody

from matyan.blobs.service import BlobService
from matyan.engines.blob.protocol import BlobStream
from matyan.engines.blob.uploads import UPLOAD_ROUTE
from matyan.errors import UnavailableError
from matyan.http.answers import json_response
from matyan.http.openapi import TakesBytes, answers, streams
from matyan.http.streaming import stream
from matyan.threads import blocking_pool, run_blocking, upload_pool
from matyan.wire.trees import BLOB_BYTES_MAX, begin_blob

logger = logging.getLogger(__name__)

UPLOAD_IDLE_SECONDS: Final = 60.0
"""An upload that sends nothing for so long is given up, so that dead clients hold no thread."""


class PresignRequest(msgspec.Struct, frozen=True):
    """The file that a client wants to upload."""

    run_id: str
    artifact_path: str
    content_type: str = "application/octet-stream"


class PresignAnswer(msgspec.Struct, frozen=True):
    """Where to PUT it, with which headers besides its Content-Type."""

    upload_url: str
    s3_key: str
    headers: dict[str, str] | None


class Uploaded(msgspec.Struct, frozen=True):
    """What was stored."""

    size_bytes: int


@post(
    "/artifacts/presign",
    status_code=200,
    operation_id="presignUpload",
    responses=answers(PresignAnswer, "Where to send it."),
)
async def presign(
    request: Request[Any, Any, Any], data: JSONBody[PresignRequest], blobs: NamedDependency[BlobService]
) -> Response[bytes]:
    """Say where a file of a run may be uploaded."""
    signed = await run_blocking(
        blobs.presign,
        data.run_id,
        data.artifact_path,
        content_type=data.content_type,
        origin=_origin(request),
    )
    answer = PresignAnswer(signed.url, f"{data.run_id}/{data.artifact_path}", dict(signed.headers) or None)
    return json_response(answer)


@put(
    f"{UPLOAD_ROUTE}/{{token:str}}",
    request_max_body_size=None,
    operation_class=TakesBytes,
    operation_id="upload",
    responses=answers(Uploaded, "It is stored."),
)
async def upload(
    request: Request[Any, Any, Any], token: FromPath[str], blobs: NamedDependency[BlobService]
) -> Response[bytes]:
    """Take one upload, of any content type and size, and hand it to the engine piece by piece."""
    body = _Body(request.stream(), asyncio.get_running_loop())
    try:
        stored = await upload_pool().run(blobs.store, token, body)
    finally:
        body.stop()
    return json_response(Uploaded(stored.size_bytes))


@post("/runs/images/get-batch", status_code=200, operation_id="readImages", responses=streams("Trees `{uri: bytes}`."))
async def images_batch(data: JSONBody[list[str]], blobs: NamedDependency[BlobService]) -> Response[Any]:
    """Stream `{uri: bytes}` for images."""
    return _batch(blobs, data)


@post("/runs/audios/get-batch", status_code=200, operation_id="readAudios", responses=streams("Trees `{uri: bytes}`."))
async def audios_batch(data: JSONBody[list[str]], blobs: NamedDependency[BlobService]) -> Response[Any]:
    """Stream `{uri: bytes}` for audio."""
    return _batch(blobs, data)


def _batch(blobs: BlobService, uris: list[str]) -> Response[Any]:
    return stream(lambda: _trees(blobs.open_uris(uris)), pool=blocking_pool())


def _trees(files: Iterable[tuple[str, BlobStream]]) -> Iterator[bytes]:
    """Yield `{uri: bytes}` of each file, piece by piece: a file of any size takes the memory of one piece."""
    for uri, (info, chunks) in files:
        if info.size_bytes > BLOB_BYTES_MAX:
            logger.warning("blob is too large for a tree stream", extra={"key": info.key, "bytes": info.size_bytes})
            continue
        yield begin_blob((uri,), info.size_bytes)
        yield from chunks


def _origin(request: Request[Any, Any, Any]) -> str:
    """Return scheme, host and port as the client sees them; a proxy that ends TLS says so in X-Forwarded-Proto."""
    base = request.base_url
    forwarded = request.headers.get("x-forwarded-proto", "")
    scheme = forwarded if forwarded in ("http", "https") else base.scheme
    return f"{scheme}://{base.netloc}"


class _Body:
    """A request's body, iterated from another thread: the next piece is received when the last one is dealt with."""

    def __init__(self, body: AsyncIterator[bytes], loop: asyncio.AbstractEventLoop) -> None:
        self._body = body
        self._loop = loop
        self._coming: Future[bytes | None] | None = None
        self._stopped = False

    def __iter__(self) -> Iterator[bytes]:
        """Yield the pieces.

        Raises:
            UnavailableError: nothing came for UPLOAD_IDLE_SECONDS, or the server stops.
        """
        while (piece := self._receive()) is not None:
            yield piece

    def stop(self) -> None:
        """Let the other thread wait no longer."""
        self._stopped = True
        if self._coming is not None:
            self._coming.cancel()

    def _receive(self) -> bytes | None:
        self._coming = coming = asyncio.run_coroutine_threadsafe(_next(self._body), self._loop)
        if self._stopped:
            coming.cancel()
        try:
            return coming.result(UPLOAD_IDLE_SECONDS)
        except CancelledError as error:
            raise UnavailableError("the upload was cut off") from error
        except TimeoutError as error:
            coming.cancel()
            raise UnavailableError(f"the upload sent nothing for {UPLOAD_IDLE_SECONDS:g} seconds") from error


async def _next(body: AsyncIterator[bytes]) -> bytes | None:
    return await anext(body, None)


ROUTES: Final = (presign,)
"""For the gateway, under the prefix of every dialect."""
READ_ROUTES: Final = (images_batch, audios_batch)
"""For the readers, likewise."""
ROOT_ROUTES: Final = (upload,)
"""Absolute paths."""
