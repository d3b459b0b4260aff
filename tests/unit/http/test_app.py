"""The app around the routes: mounts, dialects, errors, CORS, gzip, base path."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from litestar import Litestar, Response, delete, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery, JSONBody
from litestar.testing import TestClient
from litestar.types import Receive, Scope, Send

from matyan.errors import ConflictError, InvalidArgumentError, NotFoundError, QuerySyntaxError, UnavailableError
from matyan.http.answers import json_response
from matyan.http.app import REFUSED_WHEN_READ_ONLY, make_app
from matyan.http.dialect import Dialect
from matyan.http.edge import EdgeOptions
from matyan.http.health import Health
from matyan.http.origins import OriginPolicy
from matyan.http.params import StepRange, flag, integer, step_range, texts, timezone_offset


class Trace(msgspec.Struct):
    name: str
    context: dict[str, Any]


class Pins(msgspec.Struct):
    sequences: list[Trace]
    is_new: bool = False


ERRORS = {
    "missing": NotFoundError("Run not found."),
    "taken": ConflictError("Tag with name 'x' already exists."),
    "bad": InvalidArgumentError("Invalid range format"),
    "down": UnavailableError("disk full"),
    "query": QuerySyntaxError("bad", statement="(a ==)", line=1, offset=6, end_offset=7),
    "bug": ValueError("secret text"),
}


@get("/things/{run_id:str}/info", dependencies={"skip_system": flag("skip_system", default=False)})
async def info(
    run_id: FromPath[str],
    skip_system: NamedDependency[bool],
    dialect: NamedDependency[Dialect],
    greeting: NamedDependency[str],
) -> Response[bytes]:
    return json_response([run_id, skip_system, dialect.name, greeting, float("nan")])


@get(
    "/things/params",
    dependencies={
        "record_range": step_range("record_range"),
        "limit": integer("limit", default=7),
        "sequence": texts("sequence"),
        "offset": timezone_offset(),
    },
)
async def params(
    record_range: NamedDependency[StepRange],
    limit: NamedDependency[int],
    sequence: NamedDependency[list[str]],
    offset: NamedDependency[int],
) -> Response[bytes]:
    return json_response([record_range, limit, sequence, offset])


@get("/things/native")
async def native(p: FromQuery[int] = 50) -> Response[bytes]:
    return json_response(p)


@get("/things/raise/{which:str}")
async def fail(which: FromPath[str]) -> Response[bytes]:
    raise ERRORS[which]


@post("/things/pins", status_code=200)
async def pins(data: JSONBody[Pins]) -> Response[bytes]:
    return json_response(data.sequences)


@post("/things/batch", status_code=200)
async def batch(data: JSONBody[list[Trace]]) -> Response[bytes]:
    return json_response([trace.name for trace in data])


@post("/things/hashes", status_code=200)
async def hashes(data: JSONBody[list[str]]) -> Response[bytes]:
    return json_response(data)


@delete("/things/{run_id:str}", status_code=200, opt=dict(REFUSED_WHEN_READ_ONLY))
async def remove(run_id: FromPath[str]) -> Response[bytes]:
    return json_response(run_id)


@get("/things/long")
async def long() -> Response[bytes]:
    return json_response(["é" * 400])


THINGS = [info, params, native, fail, pins, batch, hashes, remove, long]


async def page(scope: Scope, _: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/html")]})
    await send({"type": "http.response.body", "body": b"page " + scope["path"].encode(), "more_body": False})


def make_client(**kwargs: Any) -> TestClient[Any]:
    return TestClient(make_app(THINGS, services={"greeting": "hello"}, **kwargs), raise_server_exceptions=False)


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient[Any]]:
    with make_client() as client:
        yield client


@pytest.mark.parametrize("slash", ["", "/"])
@pytest.mark.parametrize(("prefix", "name"), [("/api", "aim"), ("/api/v1/rest", "matyan")])
def test_a_route_answers_under_both_prefixes_with_and_without_slash(
    client: TestClient[Any], prefix: str, name: str, slash: str
) -> None:
    answer = client.get(f"{prefix}/things/abc/info{slash}", follow_redirects=False)

    assert answer.status_code == 200
    assert answer.json() == ["abc", False, name, "hello", None]


@pytest.mark.parametrize("text", ["true", "True", "1", "yes", "ON", "t", "Y"])
def test_a_flag_reads_every_word_for_true(client: TestClient[Any], text: str) -> None:
    assert client.get(f"/api/things/a/info?skip_system={text}").json()[1] is True


def test_a_flag_that_is_no_boolean_is_422_in_the_recorded_shape(client: TestClient[Any]) -> None:
    answer = client.get("/api/things/a/info?skip_system=maybe")

    assert answer.status_code == 422
    assert answer.json() == {
        "detail": [
            {
                "type": "bool_parsing",
                "loc": ["query", "skip_system"],
                "msg": "Input should be a valid boolean, unable to interpret input",
                "input": "maybe",
            }
        ]
    }


@pytest.mark.parametrize("path", ["/api/things/params?limit=x", "/api/things/native?p=x"])
def test_an_integer_that_is_none_is_422_by_dependency_and_by_litestar_alike(client: TestClient[Any], path: str) -> None:
    answer = client.get(path)

    assert answer.status_code == 422
    [fault] = answer.json()["detail"]
    assert (fault["type"], fault["input"], fault["loc"][0]) == ("int_parsing", "x", "query")


def test_parameters_have_their_defaults_and_values(client: TestClient[Any]) -> None:
    assert client.get("/api/things/params").json() == [[None, None], 7, [], 0]
    found = client.get(
        "/api/things/params?record_range= 3:9&limit=2&sequence=a&sequence=b", headers={"X-Timezone-Offset": "-60"}
    )

    assert found.json() == [[3, 9], 2, ["a", "b"], -60]


def test_a_bare_range_means_what_the_dialect_says(client: TestClient[Any]) -> None:
    assert client.get("/api/things/params?record_range=5").json()[0] == [5, None]
    assert client.get("/api/v1/rest/things/params?record_range=5").json()[0] == [None, None]


def test_a_bad_header_names_the_header(client: TestClient[Any]) -> None:
    answer = client.get("/api/things/params", headers={"X-Timezone-Offset": "abc"})

    assert answer.status_code == 422
    assert answer.json()["detail"][0]["loc"] == ["header", "x-timezone-offset"]


BODY_FAULTS = [
    ("pins", {}, ["body", "sequences"], "missing"),
    ("pins", {"sequences": [{"name": "x"}]}, ["body", "sequences", 0, "context"], "missing"),
    ("pins", {"sequences": [], "is_new": "perhaps"}, ["body", "is_new"], "bool_parsing"),
    ("pins", [1], ["body"], "dict_type"),
    ("batch", [{"name": "loss"}], ["body", 0, "context"], "missing"),
    ("batch", {"name": "loss", "context": {}}, ["body"], "list_type"),
    ("hashes", "x", ["body"], "list_type"),
    ("hashes", [1], ["body", 0], "string_type"),
]


@pytest.mark.parametrize(("route", "body", "loc", "kind"), BODY_FAULTS)
def test_a_body_of_the_wrong_shape_is_422_and_says_where(
    client: TestClient[Any], route: str, body: Any, loc: list[Any], kind: str
) -> None:
    answer = client.post(f"/api/things/{route}/", json=body)

    assert answer.status_code == 422
    [fault] = answer.json()["detail"]
    assert (fault["loc"], fault["type"]) == (loc, kind)


def test_a_missing_field_shows_the_object_that_lacks_it(client: TestClient[Any]) -> None:
    [fault] = client.post("/api/things/pins/", json={"sequences": [{"name": "x"}]}).json()["detail"]

    assert fault["input"] == {"name": "x"}
    assert fault["msg"] == "Field required"


@pytest.mark.parametrize("content", [b"{oops", b'["\xff"]', b"[" * 100_000])
def test_a_body_that_is_no_json_is_422(client: TestClient[Any], content: bytes) -> None:
    answer = client.post("/api/things/hashes", content=content)

    assert answer.status_code == 422
    assert answer.json()["detail"][0]["type"] == "json_invalid"


def test_a_missing_body_is_422(client: TestClient[Any]) -> None:
    answer = client.post("/api/things/hashes")

    assert answer.status_code == 422
    assert answer.json()["detail"][0]["type"] == "missing"


def test_a_body_is_json_whatever_its_content_type_and_unknown_fields_are_ignored(client: TestClient[Any]) -> None:
    body = json.dumps({"sequences": [], "more": 1})
    answer = client.post("/api/things/pins", content=body, headers={"content-type": "text/plain"})

    assert answer.status_code == 200


AIM_ERRORS = [
    ("missing", 404, {"message": "Run not found.", "detail": "404: Run not found."}),
    (
        "taken",
        400,
        {"message": "Tag with name 'x' already exists.", "detail": "400: Tag with name 'x' already exists."},
    ),
    ("bad", 400, {"message": "Invalid range format", "detail": "400: Invalid range format"}),
    ("down", 503, {"message": "disk full", "detail": "503: disk full"}),
    (
        "query",
        400,
        {"message": "SyntaxError", "detail": {"statement": "(a ==)", "line": 1, "offset": 6, "end_offset": 7}},
    ),
]


@pytest.mark.parametrize(("which", "status", "body"), AIM_ERRORS)
def test_an_error_of_ours_has_the_recorded_body(
    client: TestClient[Any], which: str, status: int, body: dict[str, Any]
) -> None:
    answer = client.get(f"/api/things/raise/{which}")

    assert answer.status_code == status
    assert answer.json() == body


def test_the_matyan_dialect_adds_its_error_codes(client: TestClient[Any]) -> None:
    answer = client.get("/api/v1/rest/things/raise/taken")

    assert answer.status_code == 409
    assert answer.json()["error"] == {"code": "conflict", "message": "Tag with name 'x' already exists."}
    assert answer.json()["detail"] == "Tag with name 'x' already exists."


def test_an_unexpected_exception_is_500_and_keeps_its_text_to_itself(client: TestClient[Any]) -> None:
    answer = client.get("/api/things/raise/bug")

    assert answer.status_code == 500
    assert answer.json()["message"] == "'<class 'ValueError'>' exception raised!"
    assert "secret" not in answer.text


@pytest.mark.parametrize("path", ["/api/nope", "/api/", "/api//things/a/info", "/api/things//info"])
def test_an_unknown_route_is_404(client: TestClient[Any], path: str) -> None:
    answer = client.get(path)

    assert answer.status_code == 404
    assert answer.json() == {"detail": "Not Found"}


@pytest.mark.parametrize(("method", "path", "allow"), [("GET", "pins", "POST"), ("HEAD", "long", "GET")])
def test_a_wrong_method_is_405_and_says_which_are_right(
    client: TestClient[Any], method: str, path: str, allow: str
) -> None:
    answer = client.request(method, f"/api/things/{path}")

    assert answer.status_code == 405
    assert answer.headers["allow"] == allow or allow in answer.headers["allow"].split(", ")
    assert "OPTIONS" not in answer.headers["allow"]


def test_a_read_only_server_refuses_marked_routes() -> None:
    with make_client(read_only=True) as client:
        answer = client.delete("/api/things/abc/")

        assert answer.status_code == 403
        assert answer.json() == {"message": "Forbidden", "detail": "403: Forbidden"}
        assert client.post("/api/things/hashes", json=[]).status_code == 200


def test_an_app_is_made_without_loading_libraries_of_models_that_no_handler_has() -> None:
    code = "import sys; from matyan.http.app import make_app; make_app([]); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)

    assert "litestar" in loaded.stdout.split()
    assert not {"pydantic", "attr", "attrs"} & set(loaded.stdout.split())


# ---- origins


def test_a_preflight_from_this_machine_is_answered_as_recorded(client: TestClient[Any]) -> None:
    headers = {
        "Origin": "http://localhost:3000",
        "Access-Control-Request-Method": "GET",
        "Access-Control-Request-Headers": "x-timezone-offset,content-type",
    }
    answer = client.options("/api/things/a/info", headers=headers)

    assert (answer.status_code, answer.text) == (200, "OK")
    assert answer.headers["access-control-allow-origin"] == "http://localhost:3000"
    assert answer.headers["access-control-allow-credentials"] == "true"
    assert answer.headers["access-control-allow-methods"] == "GET, POST, PUT, DELETE, OPTIONS, HEAD"
    assert "X-Timezone-Offset" in answer.headers["access-control-allow-headers"]
    assert answer.headers["access-control-max-age"] == "86400"


def test_an_answer_to_this_machine_may_be_read_by_its_page_and_one_to_a_foreign_page_may_not(
    client: TestClient[Any],
) -> None:
    own = client.get("/api/things/a/info", headers={"Origin": "http://127.0.0.1:8000"})
    foreign = client.get("/api/things/a/info", headers={"Origin": "https://evil.example"})

    assert own.headers["access-control-allow-origin"] == "http://127.0.0.1:8000"
    assert "access-control-allow-origin" not in foreign.headers


@pytest.mark.parametrize("prefix", ["/api", "/api/v1/rest"])
def test_a_refusal_under_a_base_path_has_the_words_of_its_dialect(prefix: str) -> None:
    foreign = {"Origin": "https://evil.example"}
    with TestClient(make_app([])) as plain, TestClient(make_app([], edge=EdgeOptions(base_path="/tracker"))) as based:
        expected = plain.post(f"{prefix}/things", headers=foreign)

        answer = based.post(f"/tracker{prefix}/things", headers=foreign)

    assert (answer.status_code, answer.json()) == (403, expected.json())


def test_a_foreign_page_may_not_change_anything(client: TestClient[Any]) -> None:
    answer = client.post("/api/things/hashes", json=[], headers={"Origin": "https://evil.example"})

    assert answer.status_code == 403
    assert answer.json()["message"] == "this origin may not change anything"


def test_a_listed_origin_may_do_everything() -> None:
    edge = EdgeOptions(policy=OriginPolicy(origins=["https://ui.example"]))
    with make_client(edge=edge) as client:
        answer = client.post("/api/things/hashes", json=[], headers={"Origin": "https://ui.example"})

        assert answer.status_code == 200
        assert answer.headers["access-control-allow-origin"] == "https://ui.example"


def test_an_unknown_host_name_is_refused_where_host_names_are_known() -> None:
    with make_client(edge=EdgeOptions(policy=OriginPolicy(hosts=[]))) as client:
        refused = client.get("/api/things/a/info", headers={"Host": "evil.example:53800"})
        served = client.get("/api/things/a/info", headers={"Host": "localhost:53800"})

        assert (refused.status_code, served.status_code) == (403, 200)


# ---- gzip, base path, pages, health


def test_a_long_json_answer_is_compressed_when_asked(client: TestClient[Any]) -> None:
    with client.stream("GET", "/api/things/long", headers={"Accept-Encoding": "gzip"}) as answer:
        raw = b"".join(answer.iter_raw())

    assert answer.headers["content-encoding"] == "gzip"
    assert int(answer.headers["content-length"]) == len(raw)
    assert json.loads(gzip.decompress(raw)) == ["é" * 400]


@pytest.mark.parametrize(("path", "encoding"), [("/api/things/a/info", "gzip"), ("/api/things/long", "identity")])
def test_a_short_answer_and_one_not_asked_for_is_not_compressed(
    client: TestClient[Any], path: str, encoding: str
) -> None:
    assert "content-encoding" not in client.get(path, headers={"Accept-Encoding": encoding}).headers


def test_a_base_path_moves_everything_but_the_probes() -> None:
    with make_client(edge=EdgeOptions(base_path="/foo/", page=page)) as client:
        assert client.get("/foo/api/things/a/info").status_code == 200
        assert client.get("/api/things/a/info").status_code == 404
        assert client.get("/health/live/").status_code == 200
        assert client.get("/foo/runs/abc").text == "page /runs/abc"
        moved = client.get("/foo", follow_redirects=False)
        assert (moved.status_code, moved.headers["location"]) == (307, "/foo/")


PAGES = ["/", "/runs", "/runs/abc/overview", "/api", "/metrics", "/static-files/x.js"]


@pytest.mark.parametrize("path", PAGES)
def test_every_path_that_is_nothing_else_is_a_page(path: str) -> None:
    with make_client(edge=EdgeOptions(page=page)) as client:
        assert client.get(path).text == f"page {path}"


def test_metrics_is_prometheus_with_a_slash_and_for_scrapers_and_a_page_for_browsers() -> None:
    with make_client(edge=EdgeOptions(page=page)) as client:
        client.get("/api/things/a/info")
        text = client.get("/metrics/").text

        assert 'path_template="/api/things/{run_id}/info"' in text
        assert client.get("/metrics", headers={"Accept": "text/html,*/*;q=0.8"}).text.startswith("page")
        scraped = client.get("/metrics", headers={"Accept": "application/openmetrics-text,text/plain;q=0.5"})
        assert scraped.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"


def test_readiness_names_what_does_not_work() -> None:
    health = Health()
    health.add("kv", lambda: None)
    health.add("log", lambda: (_ for _ in ()).throw(UnavailableError("disk full")))
    with make_client(health=health) as client:
        answer = client.get("/health/ready/")

        assert answer.status_code == 503
        assert answer.json() == {"status": "degraded", "checks": {"kv": "ok", "log": "disk full"}}
        assert client.get("/health/live").json() == {"status": "ok"}


def test_a_check_that_is_not_essential_is_told_and_leaves_the_server_ready() -> None:
    health = Health()
    health.add("kv", lambda: None)
    health.add("blob", lambda: (_ for _ in ()).throw(UnavailableError("no answer")), is_essential=False)
    with make_client(health=health) as client:
        answer = client.get("/health/ready/")

    assert answer.status_code == 200
    assert answer.json() == {"status": "degraded", "checks": {"kv": "ok", "blob": "no answer"}}


def test_a_stopping_server_is_not_ready() -> None:
    health = Health()
    health.draining = True
    with make_client(health=health) as client:
        assert client.get("/health/ready").status_code == 503


def test_the_version_is_told(client: TestClient[Any]) -> None:
    assert client.get("/api/v1/rest/version/").json()["component"] == "backend"


def test_an_app_has_all_plugins_of_litestar_but_those_for_models_that_no_handler_has() -> None:
    usual = {type(plugin).__name__ for plugin in Litestar._get_default_plugins([])}

    ours = {type(plugin).__name__ for plugin in type(make_app([]))._get_default_plugins([])}

    assert {name for name in usual if not name.startswith(("Pydantic", "Attrs"))} == ours
