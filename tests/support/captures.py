"""Replay a recorded session of the real client (tests/golden/ingest) against a running tracker."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urlsplit

import httpx

from tests.support import loopback
from tests.support.oracle import ExpectedRun
from tests.support.server import MatyanServer
from tests.support.writer import RawWriter

INGEST: Final = Path(__file__).parents[1] / "golden" / "ingest"
_SOCKETS: Final = "/api/v1/ws/runs/"


class Replay:
    """One capture: its connections, frames and uploads in their recorded order."""

    def __init__(self, server: MatyanServer, capture: str) -> None:
        self.expected: dict[str, ExpectedRun] = {}
        self.uploads: dict[str, bytes] = {}
        """Blob key -> bytes uploaded last."""
        self.refused: list[str] = []
        """Frames that were answered with an error although the contract lets no item of them be refused."""
        self._server = server
        self._http = loopback.client(server.url)
        self._upload_urls: dict[str, str] = {}
        self._open: dict[int, tuple[str, RawWriter]] = {}
        self._entries = [json.loads(line) for line in (INGEST / f"{capture}.jsonl").read_text().splitlines()]

    def play(self) -> None:
        """Send everything; each frame waits for its reply, as the client does."""
        for entry in self._entries:
            if entry["ch"] == "ws":
                self._play_socket(entry)
            elif entry["ch"] == "http":
                self._play_request(entry["req"], entry["res"])
        for _, writer in self._open.values():
            writer.__exit__()
        self._http.close()

    def _play_socket(self, entry: dict[str, Any]) -> None:
        number, event = entry["conn"], entry["ev"]
        if event == "handshake":
            run = unquote(urlsplit(entry["target"]).path.removeprefix(_SOCKETS))
            if "/" not in run:  # an id that no URL of the REST side could name
                self._open[number] = (run, RawWriter(self._server.websocket_url, run).__enter__())
        elif number not in self._open:
            return
        elif event == "c2s":
            run, writer = self._open[number]
            reply = writer.send_text(entry["raw"])
            is_clean = self.expected.setdefault(run, ExpectedRun(run)).feed_text(entry["raw"])
            if is_clean and reply["status"] != "ok":
                self.refused.append(f"{reply['error']}: {entry['raw'][:200]}")
        elif event == "tcp_end":
            self._open.pop(number)[1].__exit__()

    def _play_request(self, request: dict[str, Any], recorded: dict[str, Any]) -> None:
        """Repeat presigns and uploads that succeeded; reads are compared by `CapturedReads`."""
        if not httpx.codes.is_success(recorded["status"]):
            return
        if request["target"].endswith("/artifacts/presign"):
            body = json.loads(request["body"])
            answer = self._http.post(request["target"], json=body).raise_for_status().json()
            self._upload_urls[f"{body['run_id']}/{body['artifact_path']}"] = answer["upload_url"]
        elif request["method"] == "PUT":
            key = unquote(urlsplit(request["target"]).path).removeprefix("/_blob/")
            data = base64.b64decode(request.get("body_b64", "")) or request.get("body", "").encode()
            headers = dict(header for header in request["headers"] if header[0] == "Content-Type")
            self._http.put(self._upload_urls[key], content=data, headers=headers).raise_for_status()
            self.uploads[key] = data
