"""A raw WebSocket writer: frames exactly as matyan-client makes them, without its queue and its retries."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Self
from urllib.parse import quote

from websockets.sync.client import ClientConnection, connect

from tests.support import loopback

EPOCH: Final = datetime(2026, 11, 21, 3, 40, 42, tzinfo=UTC)
"""The client time of message number 0 of every writer."""


class RawWriter:
    """One connection of one run; `send` waits for the one reply that each frame gets."""

    def __init__(self, websocket_url: str, run: str) -> None:
        self._url = f"{websocket_url}/api/v1/ws/runs/{quote(run)}"
        self._connection: ClientConnection | None = None

    def __enter__(self) -> Self:
        self._connection = connect(self._url, proxy=None, max_size=None, compression=None)
        return self

    def __exit__(self, *_: object) -> None:
        if self._connection is not None:
            self._connection.close()

    def send_text(self, frame: str | bytes) -> dict[str, Any]:
        """Send one text frame and return the reply, which must be one JSON object with a status.

        Raises:
            websockets.ConnectionClosed: no reply came; the frame may or may not have arrived.
        """
        assert self._connection is not None
        self._connection.send(frame, text=True)
        reply = json.loads(self._connection.recv(timeout=15))
        assert isinstance(reply, dict)
        assert reply["status"] in ("ok", "error")
        return reply

    def send(self, *messages: Mapping[str, Any]) -> dict[str, Any]:
        """Send messages in one frame: one object, or an array of several."""
        return self.send_text(json.dumps(messages[0] if len(messages) == 1 else messages))


def message(kind: str, run: str, **members: Any) -> dict[str, Any]:
    """Make a message with the members every one has."""
    return {"type": kind, "run_id": run, **members}


def create(run: str, *, force_resume: bool = False, seconds: float = 0) -> dict[str, Any]:
    """Make the first message of a run."""
    return message("create_run", run, client_datetime=moment(seconds), force_resume=force_resume)


def metric(run: str, name: str, value: object, step: object, *, seconds: float = 0, **members: Any) -> dict[str, Any]:
    """Make a point as the client writes it; `members` may replace epoch, context and dtype."""
    defaults = {"epoch": None, "context": None, "dtype": "float", "client_datetime": moment(seconds)}
    return message("log_metric", run, **{"name": name, "value": value, "step": step, **defaults, **members})


def moment(seconds: float) -> str:
    """Return the client time `seconds` after EPOCH in the client's format."""
    return (EPOCH + timedelta(seconds=seconds)).isoformat()


def upload(
    origin: str, run: str, path: str, data: bytes | Iterator[bytes], content_type: str = "application/octet-stream"
) -> str:
    """Presign and upload as the client does, pieces as a stream; return the key that a `blob_ref` names."""
    body = {"run_id": run, "artifact_path": path, "content_type": content_type}
    with loopback.client() as client:
        signed = client.post(f"{origin}/api/v1/rest/artifacts/presign", json=body).raise_for_status().json()
        headers = {"Content-Type": content_type, **(signed.get("headers") or {})}
        client.put(signed["upload_url"], content=data, headers=headers).raise_for_status()
    return f"{run}/{path}"


def frames(messages: Sequence[Mapping[str, Any]], size: int = 100) -> list[str]:
    """Cut messages into frames of at most `size`, as text."""
    cut = [messages[start : start + size] for start in range(0, len(messages), size)]
    return [json.dumps(batch if len(batch) > 1 else batch[0]) for batch in cut]
