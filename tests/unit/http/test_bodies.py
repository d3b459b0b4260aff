"""Bodies of requests: what is thrown away before an error, what is no JSON, what no JSON can hold."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from matyan.http.answers import json_bytes
from matyan.http.bodies import DISCARD_BYTES_MAX, IncomingBody
from matyan.http.faults import RequestFaultError
from matyan.http.requests import decode_body

PIECE = b"x" * 1024 * 1024


class Client:
    """Sends `pieces` of a body, endlessly when there is no number of them."""

    def __init__(self, pieces: int | None) -> None:
        self.left = pieces
        self.taken = 0

    async def receive(self) -> Any:
        self.taken += 1
        if self.left is None:
            return {"type": "http.request", "body": PIECE, "more_body": True}
        self.left -= 1
        if self.left < 0:
            await asyncio.Event().wait()
        return {"type": "http.request", "body": PIECE, "more_body": self.left > 0}


def discard(client: Client, headers: dict[bytes, bytes], *, read: int = 0) -> int:
    """Read some messages, discard the rest and return how many messages were taken."""

    async def scenario() -> None:
        body = IncomingBody(client.receive, headers)
        for _ in range(read):
            await body()
        await body.discard()

    asyncio.run(asyncio.wait_for(scenario(), 10))
    return client.taken


@pytest.mark.parametrize("headers", [{b"content-length": b"3"}, {b"transfer-encoding": b"chunked"}])
@pytest.mark.parametrize("read", [0, 1, 3])
def test_what_was_not_read_of_a_body_is_discarded(headers: dict[bytes, bytes], read: int) -> None:
    assert discard(Client(3), headers, read=read) == 3


@pytest.mark.parametrize(
    "headers", [{}, {b"content-length": b"0"}, {b"content-length": b"9", b"expect": b"100-continue"}]
)
def test_nothing_is_waited_for_where_nothing_comes(headers: dict[bytes, bytes]) -> None:
    assert discard(Client(0), headers) == 0


def test_a_body_without_end_is_discarded_up_to_a_bound() -> None:
    assert discard(Client(None), {b"transfer-encoding": b"chunked"}) == DISCARD_BYTES_MAX // len(PIECE)


def test_a_client_that_stops_sending_is_not_waited_for_long() -> None:
    client = Client(0)
    assert discard(client, {b"content-length": b"9"}) == 1


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"{oops", "Expecting property name"),
        (b'["\xff"]', "not UTF-8"),
        (b"[" * 100_000, "nested too deeply"),
        (b"9" * 5000, "too many digits"),
    ],
)
def test_what_is_no_json_says_why(body: bytes, words: str) -> None:
    with pytest.raises(RequestFaultError) as error:
        decode_body(body)

    [fault] = error.value.faults
    assert fault.type == "json_invalid"
    assert isinstance(fault.ctx, dict)
    assert words in fault.ctx["error"]


def test_an_answer_can_show_what_no_utf_8_can_hold() -> None:
    encoded = json_bytes({"a\ud800": ["\udfff", {"b": ("é", 1.5, None)}]})

    assert json.loads(encoded) == {"a?": ["?", {"b": ["é", 1.5, None]}]}
