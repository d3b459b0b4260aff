"""The OpenAPI document is true: every route is in it, and every answer of the real app is as it says.

Schemathesis makes requests out of the document, a few for every operation and always the same ones, sends them to the
whole app over a store that holds the golden dataset, and compares the answers with the document.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from typing import Any, Final

import jsonschema_rs
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from litestar.testing import TestClient
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from matyan.http.dialect import DIALECTS
from tests.support.dataset import golden_runs
from tests.support.document import Operation, operations
from tests.support.golden_store import fill
from tests.support.replay import load
from tests.support.whole_app import WholeApp, whole_app

ORIGIN: Final = "http://127.0.0.1:53800"
CHECKS: Final = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
NOT_IN_AIM: Final = (17, 305)
"""Recordings that show that Aim has no such route, while Matyan has."""
EXAMPLES: Final = 4
"""Requests for each operation, twice; making bodies of free JSON is what takes the time."""
ORDER: Final = ("GET", "POST", "PUT", "DELETE")
"""What takes things away comes last, so that there is something to read before."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WholeApp]:
    with whole_app(tmp_path_factory.mktemp("whole")) as whole:
        fill(whole.context.kv)
        yield whole


@pytest.fixture(scope="module")
def client(whole: WholeApp) -> Iterator[TestClient[Any]]:
    with TestClient(whole.app, base_url=ORIGIN) as client:
        yield client


@pytest.fixture(scope="module")
def document(client: TestClient[Any]) -> dict[str, Any]:
    found: dict[str, Any] = client.get("/openapi/openapi.json").json()
    return found


@pytest.fixture(scope="module")
def known(client: TestClient[Any]) -> Mapping[str, str]:
    """Something that is there for every parameter of a path."""
    return {
        "run_id": golden_runs()[0].run.hash,
        "experiment_id": client.get("/api/experiments/").json()[0]["id"],
        "tag_id": client.get("/api/tags/").json()[0]["id"],
        "note": "1",
    }


def complaints(client: TestClient[Any], document: dict[str, Any], **fixed: str) -> list[str]:
    """Send requests to every operation; return what was wrong, one text for each operation.

    Args:
        client: of the app.
        document: what the requests are made from.
        fixed: parameters of paths that are not invented; then only operations that have one of them are called.
    """
    found = [result.ok() for result in schemathesis.openapi.from_dict(document).get_all_operations()]  # type: ignore[union-attr]  # an operation that makes no sense fails here
    texts = []
    for operation in sorted(found, key=lambda each: ORDER.index(each.method.upper())):
        names = {parameter.name for parameter in operation.path_parameters}
        known = {name: value for name, value in fixed.items() if name in names}
        if fixed and not known:
            continue

        @settings(
            max_examples=EXAMPLES,
            derandomize=True,
            database=None,
            deadline=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy(path_parameters=known or None))
        def check(case: Any) -> None:
            sent = case.as_transport_kwargs(base_url=ORIGIN)
            sent["content"] = sent.pop("data", None)  # the one name in which requests and httpx differ
            del sent["cookies"]
            answer = client.request(**sent)
            case.validate_response(answer, checks=CHECKS)

        try:
            check()
        except BaseException as error:  # noqa: BLE001 - failures come as groups; all operations are to be seen
            texts.append(f"{operation.label}: {error}: {getattr(error, 'exceptions', '')}")
    return texts


def test_every_route_is_in_the_document_with_the_parameters_of_its_path(
    whole: WholeApp, document: dict[str, Any]
) -> None:
    routes = {(method, re.sub(r":\w+}", "}", path)) for method, path in whole.operations()}
    shown = {(each.method, each.path.removesuffix("/")): each for each in operations(document)}

    assert set(shown) == routes
    for dialect in DIALECTS:
        assert sum(path.startswith(f"{dialect.prefix}/runs/") for _, path in routes) > 30
    for (_, path), operation in shown.items():
        assert set(operation.parameters("path")) == set(re.findall(r"{(\w+)}", path))


def test_every_operation_says_what_it_answers_and_what_it_is_for(document: dict[str, Any]) -> None:
    for operation in operations(document):
        responses = operation.description["responses"]
        told = [answer["description"] for status, answer in responses.items() if status < "300"]

        assert len(told) == 1, operation
        assert told[0] != HTTPStatus(200).description, f"{operation.path} declares no answer"
        assert operation.description["summary"].endswith("."), operation.path


def test_the_recorded_answers_of_aim_are_as_the_document_says(document: dict[str, Any]) -> None:
    faults, compared = [], 0
    for recording in (*load("read"), *load("write")):
        operation = recorded_operation(document, recording)
        if operation is None or recording["status"] >= 500 or recording["id"] in NOT_IN_AIM:
            continue
        compared += 1
        answer = operation.description["responses"].get(str(recording["status"]))
        if answer is None:
            faults.append(f"{recording['id']}: {operation.method} {operation.path} has no {recording['status']}")
        elif "json" in recording:
            schema = answer["content"]["application/json"]["schema"]
            faults += [f"{recording['id']}: {fault}" for fault in faults_in(document, schema, recording["json"])]
        if "body" in recording and recording["status"] < 300 and operation.takes_body:
            schema = operation.description["requestBody"]["content"]["application/json"]["schema"]
            faults += [f"{recording['id']}: {fault}" for fault in faults_in(document, schema, recording["body"])]

    assert faults == []
    assert compared > 350


def recorded_operation(document: dict[str, Any], recording: Mapping[str, Any]) -> Operation | None:
    """Return the operation that a recorded request was sent to; literal paths come before those with parameters."""
    path = f"/api{recording['path']}".removesuffix("/")
    found = [
        each
        for each in operations(document)
        if each.method == recording["method"] and re.fullmatch(re.sub(r"{\w+}", "[^/]+", each.path), path)
    ]
    return min(found, key=lambda each: each.path.count("{"), default=None)


def faults_in(document: dict[str, Any], schema: Mapping[str, Any], value: Any) -> list[str]:
    """Return where `value` is not as `schema` says."""
    validator = jsonschema_rs.validator_for({**schema, "components": document["components"]})
    return [f"{error.instance_path}: {error.message}"[:300] for error in validator.iter_errors(value)]


@pytest.mark.slow
def test_whatever_is_asked_the_answer_is_in_the_document(client: TestClient[Any], document: dict[str, Any]) -> None:
    assert complaints(client, document) == []


@pytest.mark.slow
def test_what_is_asked_of_things_that_exist_is_in_the_document(
    client: TestClient[Any], document: dict[str, Any], known: Mapping[str, str]
) -> None:
    assert complaints(client, document, **known) == []
