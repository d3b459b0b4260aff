"""The OpenAPI document and its page: what handlers declare, what is added, lazily made."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from litestar import Litestar, Response, delete, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery, JSONBody
from litestar.testing import TestClient
from litestar.types import Receive, Scope, Send

from matyan.http.answers import json_response
from matyan.http.app import make_app
from matyan.http.edge import EdgeOptions
from matyan.http.openapi import Document, answers, deletes, streams
from matyan.http.params import (
    StepRange,
    flag,
    integer,
    optional_integer,
    step_range,
    texts,
    timezone_offset,
)


class Thing(msgspec.Struct):
    name: str
    size: int | None = None


@get(
    "/things/{thing_id:str}",
    operation_id="getThing",
    dependencies={
        "is_deep": flag("deep", default=True),
        "limit": integer("limit", default=7),
        "step": optional_integer("step"),
        "record_range": step_range("record_range"),
        "words": texts("words"),
        "timezone": timezone_offset(),
    },
    responses=answers(Thing, "The thing."),
)
async def get_thing(
    thing_id: FromPath[str],
    is_deep: NamedDependency[bool],
    limit: NamedDependency[int],
    step: NamedDependency[int | None],
    record_range: NamedDependency[StepRange],
    words: NamedDependency[list[str]],
    timezone: NamedDependency[int],
    q: FromQuery[str] = "",
) -> Response[bytes]:
    """Return a thing.

    And more of it.
    """
    return json_response([thing_id, is_deep, limit, step, record_range, words, timezone, q])


@post("/things", operation_id="createThing", responses=answers(list[Thing], "All things.", status=201))
async def create_thing(data: JSONBody[Thing]) -> Response[bytes]:
    """Make a thing."""
    return json_response([data], status=201)


@delete("/things/{thing_id:str}", status_code=200, operation_id="deleteThing", responses=deletes("It is gone."))
async def delete_thing(thing_id: FromPath[str]) -> Response[bytes]:
    """Delete a thing."""
    return json_response(thing_id)


@get("/stream", operation_id="readStream", responses=streams("Trees."))
async def read_stream() -> Response[bytes]:
    """Stream trees."""
    return json_response(None)


async def page(_: Scope, __: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/html")]})
    await send({"type": "http.response.body", "body": b"page of the UI", "more_body": False})


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient[Any]]:
    edge = EdgeOptions(base_path="/base", page=page)
    with TestClient(make_app([get_thing, create_thing, delete_thing, read_stream], edge=edge)) as client:
        yield client


@pytest.fixture(scope="module")
def document(client: TestClient[Any]) -> dict[str, Any]:
    answer = client.get("/base/openapi/openapi.json")
    assert answer.headers["content-type"] == "application/json"
    found: dict[str, Any] = answer.json()
    return found


@pytest.mark.parametrize("prefix", ["/api", "/api/v1/rest"])
def test_each_prefix_has_the_document_too(client: TestClient[Any], document: dict[str, Any], prefix: str) -> None:
    assert client.get(f"/base{prefix}/openapi.json").json() == document


def operation(document: dict[str, Any], method: str, path: str) -> dict[str, Any]:
    found: dict[str, Any] = document["paths"][path][method]
    return found


def test_the_document_says_where_the_server_is(document: dict[str, Any]) -> None:
    assert document["servers"] == [{"url": "/base"}]
    assert document["openapi"].startswith("3.1")


def test_parameters_of_dependencies_are_declared_with_the_types_that_clients_send(document: dict[str, Any]) -> None:
    parameters = operation(document, "get", "/api/things/{thing_id}")["parameters"]
    found = {
        (each["in"], each["name"]): (each["schema"].get("type"), each["schema"].get("default")) for each in parameters
    }

    assert found == {
        ("path", "thing_id"): ("string", None),
        ("query", "deep"): ("boolean", True),
        ("query", "limit"): ("integer", 7),
        ("query", "step"): ("integer", None),
        ("query", "record_range"): ("string", ""),
        ("query", "words"): ("array", []),
        ("header", "X-Timezone-Offset"): ("integer", 0),
        ("query", "q"): ("string", ""),
    }
    assert {each["name"] for each in parameters if each["required"]} == {"thing_id"}


def test_declared_parameters_are_read_as_before(client: TestClient[Any]) -> None:
    query = "deep=no&limit=3&step=-4&record_range=5:&words=a&words=b&q=x"
    answer = client.get(f"/base/api/things/a?{query}", headers={"X-Timezone-Offset": "-60"})

    assert answer.json() == ["a", False, 3, -4, [5, None], ["a", "b"], -60, "x"]


@pytest.mark.parametrize("name", ["limit", "step"])
def test_an_integer_beyond_64_bits_is_422(client: TestClient[Any], name: str) -> None:
    for text in (str(2**63), str(-(2**63) - 1), "9" * 400):
        answer = client.get(f"/base/api/things/a?{name}={text}")

        assert answer.status_code == 422
        [fault] = answer.json()["detail"]
        assert (fault["type"], fault["input"]) == ("int_parsing_size", text)


def test_a_range_beyond_64_bits_is_400(client: TestClient[Any]) -> None:
    assert client.get(f"/base/api/things/a?record_range=0:{10**30}").json()["message"] == "Invalid range format"


def test_of_a_repeated_parameter_the_last_one_counts(client: TestClient[Any]) -> None:
    assert client.get("/base/api/things/a?limit=1&limit=2").json()[2] == 2


def test_operation_ids_are_unique_and_name_the_dialect(document: dict[str, Any]) -> None:
    found = [each["operationId"] for item in document["paths"].values() for each in item.values()]

    assert len(set(found)) == len(found)
    assert {"aim_getThing", "matyan_getThing"} <= set(found)


def test_an_answer_is_what_the_handler_declares(document: dict[str, Any]) -> None:
    made = operation(document, "post", "/api/things")["responses"]["201"]
    streamed = operation(document, "get", "/api/stream")["responses"]["200"]

    assert made["description"] == "All things."
    schema = made["content"]["application/json"]["schema"]
    assert (schema["type"], schema["items"]) == ("array", {"$ref": "#/components/schemas/Thing"})
    assert list(streamed["content"]) == ["application/octet-stream"]


@pytest.mark.parametrize(
    ("path", "status", "other"), [("/api", "200", "204"), ("/api/v1/rest", "204", "200")], ids=["aim", "matyan"]
)
def test_a_deletion_answers_as_the_dialect_has_it(document: dict[str, Any], path: str, status: str, other: str) -> None:
    responses = operation(document, "delete", f"{path}/things/{{thing_id}}")["responses"]

    assert status in responses
    assert other not in responses
    assert ("content" in responses[status]) == (status == "200")


@pytest.mark.parametrize(("prefix", "name"), [("/api", "Aim"), ("/api/v1/rest", "Matyan")])
def test_errors_have_the_shape_of_the_dialect(document: dict[str, Any], prefix: str, name: str) -> None:
    responses = operation(document, "post", f"{prefix}/things")["responses"]
    shapes = {
        status: answer["content"]["application/json"]["schema"].get("$ref", "").rpartition("/")[2]
        for status, answer in responses.items()
        if status != "201"
    }

    conflict = {"409": "MatyanError"} if name == "Matyan" else {}
    expected = dict.fromkeys(("400", "403", "404", "413", "503"), f"{name}Error")
    assert shapes == expected | conflict | {"422": f"{name}Faults"}
    assert set(expected.values()) < set(document["components"]["schemas"])


def test_an_operation_is_summed_up_by_its_first_line(document: dict[str, Any]) -> None:
    found = operation(document, "get", "/api/v1/rest/things/{thing_id}")

    assert found["summary"] == "Return a thing."
    assert found["description"].endswith("And more of it.")
    assert found["tags"] == ["matyan things"]


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    names = set(re.findall(r'"#/components/schemas/([^"]+)"', json.dumps(document)))

    assert names
    assert names <= set(document["components"]["schemas"])


@pytest.mark.parametrize("slash", ["", "/"])
def test_the_page_loads_only_files_of_this_server(client: TestClient[Any], slash: str) -> None:
    answer = client.get(f"/base/openapi{slash}", follow_redirects=False)

    assert answer.status_code == 200
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'self';")
    assert "unsafe" not in policy
    files = re.findall(r'(?:src|href)="(/[^"]+)"', answer.text)
    assert len(files) == 3
    for file in files:
        assert file.startswith("/base/openapi/files/")
        found = client.get(file)
        assert (found.status_code, found.headers["x-content-type-options"]) == (200, "nosniff")
        assert "immutable" in found.headers["cache-control"]


@pytest.mark.parametrize("name", ["__init__.py", "..%2Fapp.py", "app.py", "%2Fetc%2Fpasswd"])
def test_no_other_file_is_given_out(client: TestClient[Any], name: str) -> None:
    assert client.get(f"/base/openapi/files/x/{name}").status_code == 404


def test_the_document_is_made_once_and_not_before_it_is_asked_for() -> None:
    made = []

    def make() -> Litestar:
        made.append(1)
        return Litestar([get_thing])

    document = Document(make, base_path="")
    before = len(made)

    assert document.encoded() is document.encoded()
    assert (before, len(made)) == (0, 1)
