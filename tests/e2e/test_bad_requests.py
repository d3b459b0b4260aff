"""Whatever a request holds, the answer is the contract's 4xx with a JSON body of the dialect, at once.

The operations come from the server's own OpenAPI document, which lists every route, so a new route is covered without a
word here. Each table is sent to every operation that it fits, over one raw connection to a real server.
"""

from __future__ import annotations

import json
import re
import socket
import time
from collections.abc import Iterator, Mapping
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import urlsplit

import pytest

from tests.support import loopback
from tests.support.document import Operation, operations
from tests.support.rest import Rest, eventually
from tests.support.server import MatyanServer
from tests.support.writer import RawWriter, create, metric

SECONDS_MAX: Final = 5.0
MEGABYTE: Final = 1024 * 1024
HUGE: Final = "1" + "0" * 400
NOTE_ID: Final = "00000000-0000-0000-0000-000000000001"
"""An id that a note could have: one that none can have is 404 whatever the body."""
ODD_NAMES: Final = {
    "slash": "a%2Fb",
    "emoji": "%F0%9F%8C%8A",
    "300 bytes": "x" * 300,
    "8 kB": "x" * 8000,
    "NUL": "a%00b",
    "lone byte": "%FF",
    "lone surrogate": "%ED%A0%80",
    "newline": "a%0D%0Ab",
    "not encoded": "%zz",
    "unknown": "0123456789abcdef01234567",
    "unknown UUID": "00000000-0000-4000-8000-000000000000",
    "negative": "-1",
    "huge number": HUGE,
    "dots": "%2E%2E",
    "blank": "%20",
}
ODD_TEXTS: Final = {
    **ODD_NAMES,
    "empty": "",
    "brackets": "((((((((",
    "20 kB": "a" * 20_000,
    "json": "%5B%7B%7D%5D",
    "no json": "%7Boops",
}
NO_INTEGERS: Final = (
    "x",
    "",
    "1.5",
    "1e3",
    "0x10",
    HUGE,
    "99999999999999999999",
    "-99999999999999999999",
    "%FF",
    "1%00",
)
NO_BOOLEANS: Final = ("maybe", "", "2", "tru", "%FF", "%00", HUGE)
NO_RANGES: Final = ("a:b", "1:x", "x", "1.5:", f"0:{HUGE}", "%FF:")
NO_HEADERS: Final = ("abc", "1.5", HUGE, "\xff", "", "-87074499851530", "1441")
ODD_BODIES: Final[Mapping[str, bytes]] = {
    "nothing": b"",
    "no json": b"{oops",
    "trailing": b"{} {}",
    "bytes": b'{"name": "\xff\xfe"}',
    "NUL": b"\x00",
    "deep array": b"[" * 100_000,
    "deep object": b'{"a":' * 50_000 + b"1" + b"}" * 50_000,
    "null": b"null",
    "number": b"5",
    "text": b'"text"',
    "empty array": b"[]",
    "empty object": b"{}",
    "array of null": b"[null]",
    "array of numbers": b"[1, 2.5]",
    "huge integer": b"[" + HUGE.encode() + b"]",
    "too many digits": b'{"name": ' + b"9" * 5000 + b"}",
    "not a number": b'[NaN, Infinity, {"name": -Infinity}]',
    "huge float": b'{"name": 1e999}',
    "names of wrong types": b'{"name": 5, "content": [], "tag_name": {}, "type": null, "state": "x", "archived": "?"}',
    "lone surrogates": b'{"name": "\\ud800", "content": "\\udfff", "tag_name": "\\ud800", "description": "\\ud800"}',
    "NUL in names": b'{"name": "a\\u0000b", "content": "\\u0000", "tag_name": "\\u0000"}',
    "long names": json.dumps(dict.fromkeys(("name", "content", "tag_name", "description"), "n" * MEGABYTE)).encode(),
    "odd hashes": json.dumps(["", "a/b", "\x00", "🌊", "x" * 300, "\ud800"]).encode(),
    "odd traces": b'[{"name": "\\ud800", "context": {"a": 1e999}}, {"name": "", "context": {"\\u0000": NaN}}]',
    "deep context": b'[{"name": "x", "context": ' + b'{"a":' * 500 + b"1" + b"}" * 501 + b"]",
}
ODD_TYPES: Final = (
    "text/plain",
    "multipart/form-data",
    "application/x-www-form-urlencoded",
    "application/msgpack",
    "application/json; charset=utf-16",
    "\xff",
    "",
)


class Answer(NamedTuple):
    status: int
    content_type: str
    body: bytes


class Sender:
    """One connection that is opened again when the server closes it."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._connection = self._open()
        self.complaints: list[str] = []

    def send(self, operation: Operation, target: str, body: bytes = b"", **headers: str) -> Answer | None:
        """Send a request; complain of what is no proper answer."""
        named = {name.replace("_", "-"): value.encode("latin-1") for name, value in headers.items()}
        began = time.monotonic()
        try:
            self._connection.putrequest(operation.method, target, skip_accept_encoding=True)
            for name, value in named.items():
                self._connection.putheader(name, value)
            self._connection.putheader("content-length", str(len(body)))
            self._connection.endheaders(body)
            response = self._connection.getresponse()
            answer = Answer(response.status, response.getheader("content-type", ""), response.read())
        except (HTTPException, OSError) as error:
            self.close()
            self._connection = self._open()
            self.complaints.append(f"{operation.method} {target[:200]} {body[:60]!r}: {error!r}")
            return None
        complaint = fault_of(operation, answer)
        if time.monotonic() - began > SECONDS_MAX:
            complaint = "took too long"
        if complaint:
            sent = f"{operation.method} {target[:200]} {body[:60]!r} {headers}"
            self.complaints.append(f"{sent}: {answer.status} {complaint}: {answer.body[:200]!r}")
        return answer

    def expect(self, status: int, answer: Answer | None, what: str) -> None:
        """Complain when the answer has another status."""
        if answer is not None and answer.status != status:
            self.complaints.append(f"{what}: {answer.status}, not {status}: {answer.body[:200]!r}")

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _open(self) -> HTTPConnection:
        return HTTPConnection("127.0.0.1", self._port, timeout=30)


def fault_of(operation: Operation, answer: Answer) -> str:
    """Return what is wrong with the form of an answer, or nothing."""
    if answer.status < 400:
        return ""
    if answer.status >= 500:
        return "an error of the server"
    if answer.content_type != "application/json":
        return "not JSON"
    body = json.loads(answer.body)
    is_bare = not operation.is_matyan and answer.status in (404, 405, 422)  # no route, no method, faults
    texts = [body.get("message") or is_bare, body.get("detail")]
    if operation.is_matyan:
        texts += [body["error"]["code"], body["error"]["message"]]
    if answer.status == 422:
        texts += [fault[name] for fault in body["detail"] for name in ("type", "loc", "msg")]
    return "" if all(texts) else "something is missing"


@pytest.fixture(scope="module")
def routes(server: MatyanServer) -> list[Operation]:
    """Every operation of a server that holds a run with a metric, which the requests do not name."""
    with RawWriter(server.websocket_url, "there") as writer:
        writer.send(create("there"), metric("there", "loss", 1.0, 0))
    with Rest(server.url) as rest:
        assert eventually(lambda: rest.metrics("there"), bool)
    return operations(loopback.get(f"{server.url}/openapi/openapi.json", timeout=30).json())


@pytest.fixture
def sender(server: MatyanServer) -> Iterator[Sender]:
    sender, logged = Sender(server.port), len(server.log)
    yield sender
    sender.close()
    assert sender.complaints == [], "\n".join(["", *sender.complaints])
    assert loopback.get(f"{server.url}/health/ready/", timeout=5).status_code == 200
    assert "request raised" not in server.log[logged:]


def test_there_are_routes_of_both_dialects(routes: list[Operation]) -> None:
    assert len([each for each in routes if each.is_matyan]) > 50
    assert len([each for each in routes if not each.is_matyan]) > 50


def test_names_in_the_path_may_be_anything(routes: list[Operation], sender: Sender) -> None:
    for operation in routes:
        if operation.parameters("path"):
            for name in ODD_NAMES.values():
                sender.send(operation, operation.target(name), b"{}" if operation.takes_body else b"")


def test_query_texts_may_be_anything(routes: list[Operation], sender: Sender) -> None:
    for operation in routes:
        for parameter, schema in operation.parameters("query").items():
            if schema.get("type") not in ("integer", "boolean"):
                for text in ODD_TEXTS.values():
                    sender.send(operation, f"{operation.target()}?{parameter}={text}")
                sender.send(operation, f"{operation.target()}?{parameter}=a&{parameter}=%FF&{parameter}=b")


@pytest.mark.parametrize(
    ("kind", "texts", "status"), [("integer", NO_INTEGERS, 422), ("boolean", NO_BOOLEANS, 422)], ids=["int", "bool"]
)
def test_what_is_no_number_or_boolean_is_422(
    routes: list[Operation], sender: Sender, kind: str, texts: tuple[str, ...], status: int
) -> None:
    asked = 0
    for operation in routes:
        body = b"[]" if operation.takes_body else b""
        for parameter, schema in operation.parameters("query").items():
            if schema.get("type") == kind:
                for text in texts:
                    target = f"{operation.target()}?{parameter}={text}"
                    sender.expect(status, sender.send(operation, target, body), f"{operation.method} {target[:200]}")
                    asked += 1
    assert asked > 0


def test_negative_and_repeated_numbers_are_no_errors_of_the_server(routes: list[Operation], sender: Sender) -> None:
    for operation in routes:
        body = b"[]" if operation.takes_body else b""
        for parameter, schema in operation.parameters("query").items():
            if schema.get("type") == "integer":
                for text in ("-1", "0", "9223372036854775807", "-9223372036854775808", f"5&{parameter}=-7"):
                    sender.send(operation, f"{operation.target()}?{parameter}={text}", body)


def test_what_is_no_range_is_400(routes: list[Operation], sender: Sender) -> None:
    asked = 0
    for operation in routes:
        body = b"[]" if operation.takes_body else b""
        for parameter in operation.parameters("query"):
            if parameter.endswith("_range"):
                for text in NO_RANGES:
                    target = f"{operation.target()}?{parameter}={text}"
                    sender.expect(400, sender.send(operation, target, body), f"{operation.method} {target[:200]}")
                    asked += 1
    assert asked > 0


def test_a_time_zone_that_is_no_integer_is_422(routes: list[Operation], sender: Sender) -> None:
    asked = 0
    for operation in routes:
        if "X-Timezone-Offset" in operation.parameters("header"):
            for text in NO_HEADERS:
                answer = sender.send(operation, operation.target(), x_timezone_offset=text)
                sender.expect(422, answer, f"{operation.path} {text[:20]!r}")
                asked += 1
    assert asked > 0


def test_unknown_and_malformed_parameters_are_ignored(routes: list[Operation], sender: Sender) -> None:
    for operation in routes:
        for query in ("nope=1", "%FF=%FF", "=", "&&&", "a=b=c", "%", "q", "q[]=1", ";"):
            sender.send(operation, f"{operation.target()}?{query}", b"{}" if operation.takes_body else b"")


def test_bodies_may_be_anything(routes: list[Operation], sender: Sender) -> None:
    for operation in routes:
        if operation.takes_body:
            for body in ODD_BODIES.values():
                sender.send(operation, operation.target(), body, content_type="application/json")


@pytest.mark.parametrize("name", ["nothing", "no json", "deep array", "bytes", "NUL", "null", "number"])
def test_a_body_of_the_wrong_form_is_422(routes: list[Operation], sender: Sender, name: str) -> None:
    for operation in routes:
        if operation.takes_body:
            target = operation.target(NOTE_ID)
            answer = sender.send(operation, target, ODD_BODIES[name], content_type="application/json")
            sender.expect(422, answer, f"{operation.method} {operation.path}")


def test_the_content_type_of_a_body_does_not_matter(routes: list[Operation], sender: Sender) -> None:
    for operation in routes:
        if operation.takes_body:
            for content_type in ODD_TYPES:
                sender.send(operation, operation.target(), b"[{}]", content_type=content_type)


def test_a_wrong_method_is_405(routes: list[Operation], sender: Sender) -> None:
    known = {(operation.method, operation.path) for operation in routes}
    for operation in routes:
        for method in ("PUT", "PATCH", "DELETE", "POST"):
            if (method, operation.path) not in known:
                wrong = Operation(method, operation.path, operation.description)
                sender.expect(405, sender.send(wrong, wrong.target()), f"{method} {operation.path}")


# ---- bodies that are too large


def peak_megabytes(pid: int) -> float:
    """Return the most memory that a process has had."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1]) / 1024


def post_large(port: int, path: str, *, chunked: bool) -> list[bytes]:
    """Send a JSON body of 100 MB, then another request on the same connection; return what came back, head by head."""
    framing = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {100 * MEGABYTE}"
    piece = b"[" * MEGABYTE
    if chunked:
        piece = f"{len(piece):x}\r\n".encode() + piece + b"\r\n"
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{framing}\r\n\r\n".encode())
        for _ in range(100):
            connection.sendall(piece)
        if chunked:
            connection.sendall(b"0\r\n\r\n")
        answers = [connection.recv(65536)]
        connection.sendall(b"GET /health/live/ HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
        answers.append(connection.recv(65536))
        return answers


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
def test_a_body_of_100_megabytes_is_refused_at_once_and_never_held(server: MatyanServer, *, chunked: bool) -> None:
    before = peak_megabytes(server.pid)
    began = time.monotonic()

    refused, after = post_large(server.port, "/api/v1/rest/tags/", chunked=chunked)

    assert refused.startswith(b"HTTP/1.1 413")
    assert json.loads(refused.rpartition(b"\r\n\r\n")[2])["error"]["code"] == "error"
    assert after.startswith(b"HTTP/1.1 200")
    assert time.monotonic() - began < SECONDS_MAX
    assert peak_megabytes(server.pid) - before < 60


def test_a_client_that_asks_first_is_refused_before_it_sends_anything(server: MatyanServer) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as connection:
        head = f"POST /api/tags HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {100 * MEGABYTE}\r\n"
        connection.sendall(f"{head}Expect: 100-continue\r\n\r\n".encode())

        assert connection.recv(4096).startswith(b"HTTP/1.1 413")


def test_a_body_that_never_ends_holds_nobody_up(server: MatyanServer) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as connection:
        connection.sendall(b"POST /api/tags HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100\r\n\r\n{")

        assert loopback.get(f"{server.url}/api/tags/", timeout=5).status_code == 200
    assert loopback.get(f"{server.url}/health/ready/", timeout=5).status_code == 200
    assert "request failed" not in server.log


def test_a_client_that_leaves_in_the_middle_of_its_body_is_no_error_of_the_server(server: MatyanServer) -> None:
    wanted = {"run_id": "left", "artifact_path": "half"}
    with loopback.client(server.url) as client:
        signed = client.post("/api/v1/rest/artifacts/presign", json=wanted).json()
    upload = urlsplit(signed["upload_url"]).path
    for method, path in (("POST", "/api/tags"), ("PUT", upload)):
        with socket.create_connection(("127.0.0.1", server.port), timeout=5) as connection:
            head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {MEGABYTE}\r\n\r\n["
            connection.sendall(head.encode())
            time.sleep(0.2)  # the server reads

    def counted() -> set[str]:
        text = loopback.get(f"{server.url}/metrics/", timeout=5).text
        return set(re.findall(r'method="PUT",path_template="/api/v1/uploads/{token}",status_class="(\dxx)"', text))

    assert "4xx" in eventually(counted, lambda found: "4xx" in found)
    assert "5xx" not in counted()
