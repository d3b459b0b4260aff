"""The served web UIs: nothing from outside, static files with their types, pages everywhere else."""

from __future__ import annotations

import asyncio
import gzip
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from litestar.testing import TestClient

from matyan.errors import ConfigurationError
from matyan.http.app import make_app
from matyan.http.edge import EdgeOptions
from matyan.http.ui import WebUi
from matyan.http.ui_bundles import INTERFACES, Bundle, find_bundle, render
from tests.support.matyan_ui import unpacked_wheel

NAMESPACES = {"http://www.w3.org/2000/svg"}


@pytest.fixture(scope="module", params=INTERFACES)
def bundle(request: pytest.FixtureRequest) -> Bundle:
    return find_bundle(request.param, str(unpacked_wheel()) if request.param == "matyan" else "")


@pytest.fixture(scope="module")
def client(bundle: Bundle) -> Iterator[TestClient[Any]]:
    with TestClient(make_app([], edge=EdgeOptions(page=WebUi(bundle)))) as client:
        yield client


def test_the_page_names_no_address_outside_but_those_that_the_shim_answers(bundle: Bundle) -> None:
    page = render(bundle, base_path="")

    repository = bundle.interface.repository
    answered = {f"https://github.com/{repository}/releases/tag/v", f"https://api.github.com/repos/{repository}/"}
    found = {re.sub(r"[\d.]+$", "", url) for url in re.findall(r"https?://[^\"' )]+", page)}
    assert found == answered | NAMESPACES


def test_the_page_runs_no_analytics_and_is_titled_matyan(bundle: Bundle) -> None:
    page = render(bundle, base_path="")

    assert "segment" not in page
    assert page.count("window.analytics") == 1  # ours, which switches it off
    assert "<title>Matyan</title>" in page


def test_the_shim_comes_before_every_other_script_of_the_page(bundle: Bundle) -> None:
    page = render(bundle, base_path="")

    assert page.index("window.analytics = false") < page.index("<script>document.write")
    assert page.index("window.analytics = false") < page.index("static/js/main.js")


def test_the_base_path_reaches_the_api_path_and_every_asset(bundle: Bundle) -> None:
    page = render(bundle, base_path="/foo")

    assert 'window.API_BASE_PATH="/foo"' in page
    assert "{{" not in page
    assert set(re.findall(r'(?:src|href)="(/[^/"]+)/', page)) == {"/foo"}


def test_every_asset_that_the_page_names_is_served(client: TestClient[Any]) -> None:
    page = client.get("/").text
    assets = set(re.findall(r'(?:src|href)="(/static-files/[^"]+)"', page))

    assert len(assets) >= 10
    assert {asset: client.get(asset).status_code for asset in assets} == dict.fromkeys(assets, 200)


TYPES = [
    ("manifest.json", "application/json"),
    ("favicon.ico", "image/vnd.microsoft.icon"),
    ("static/js/main.js", "text/javascript; charset=utf-8"),
    ("static/css/main.css", "text/css; charset=utf-8"),
    ("assets/icomoon/fonts/icomoon.woff", "font/woff"),
]


@pytest.mark.parametrize(("name", "content_type"), TYPES)
def test_a_file_has_its_content_type(client: TestClient[Any], name: str, content_type: str) -> None:
    answer = client.get(f"/static-files/{name}")

    assert answer.status_code == 200
    assert answer.headers["content-type"] == content_type


def test_a_slash_at_the_end_of_a_file_is_allowed(client: TestClient[Any]) -> None:
    assert client.get("/static-files/manifest.json/").json() == client.get("/static-files/manifest.json").json()


def test_a_compressed_variant_is_sent_to_those_who_take_it(client: TestClient[Any], bundle: Bundle) -> None:
    plain = (bundle.build / "static/js/main.js").read_bytes()
    with client.stream("GET", "/static-files/static/js/main.js", headers={"Accept-Encoding": "gzip"}) as answer:
        packed = b"".join(answer.iter_raw())
    other = client.get("/static-files/static/js/main.js", headers={"Accept-Encoding": "identity"})

    assert answer.headers["content-encoding"] == "gzip"
    assert gzip.decompress(packed) == plain
    assert "content-encoding" not in other.headers
    assert other.content == plain


TRAVERSALS = ["../__init__.py", "../../secret", "static/../../__init__.py", "/etc/passwd", "nope.js", "", "static"]


@pytest.mark.parametrize("name", TRAVERSALS)
def test_a_path_outside_the_bundle_and_a_missing_file_are_404(name: str, bundle: Bundle) -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        raise AssertionError("a GET needs no body")

    # Called below any client, which would clean the path.
    scope: Any = {"method": "GET", "path": f"/static-files/{name}", "headers": [], "query_string": b""}
    asyncio.run(WebUi(bundle)(scope, receive, send))

    assert sent[0]["status"] == 404
    assert sent[1]["body"] == b'{"detail":"Not Found"}'


def test_files_are_revalidated_and_versioned_ones_kept(client: TestClient[Any]) -> None:
    first = client.get("/static-files/manifest.json")
    again = client.get("/static-files/manifest.json", headers={"If-None-Match": first.headers["etag"]})
    versioned = client.get("/static-files/manifest.json?version=1")

    assert first.headers["cache-control"] == "no-cache"
    assert (again.status_code, again.content) == (304, b"")
    assert "immutable" in versioned.headers["cache-control"]


def test_a_page_takes_only_reads(client: TestClient[Any]) -> None:
    answer = client.post("/runs")

    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD")


def test_the_page_may_connect_to_its_own_origin_only(client: TestClient[Any]) -> None:
    assert "default-src 'self' data: blob:" in client.get("/").headers["content-security-policy"]


@pytest.mark.parametrize(("base_path", "address"), [("", 'origin+"",'), ("/foo", 'origin+"/foo",')])
def test_the_matyan_ui_finds_its_api_where_the_browser_found_the_page(base_path: str, address: str) -> None:
    page = render(find_bundle("matyan", str(unpacked_wheel())), base_path=base_path)

    assert f"window.API_HOST_BASE=window.location.{address}" in page
    assert 'window.API_BASE_PATH_SUFFIX="/api/v1",' in page
    assert 'window.API_AUTH_TOKEN="",' in page


def test_the_shim_names_the_release_that_is_served(bundle: Bundle) -> None:
    page = render(bundle, base_path="")

    assert f'tag_name: "v{bundle.version}"' in page
    assert f'name: "{bundle.interface.name} {bundle.version}, served by Matyan"' in page


@pytest.mark.parametrize("name", INTERFACES)
def test_a_directory_without_the_wheel_is_refused_with_what_to_do(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as error:
        find_bundle(name, str(tmp_path))

    assert error.value.message.startswith(f"http.ui_path is {tmp_path}, which holds no unpacked wheel of {name}-ui; ")
    assert f"{name}-ui==" in error.value.message


def test_a_web_ui_that_is_not_installed_is_refused_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.path", [])
    with pytest.raises(ConfigurationError, match=r"^there is no package matyan-ui; run `pip install .*http\.ui_path"):
        find_bundle("matyan")


def test_what_is_no_file_in_the_bundle_is_left_out(bundle: Bundle, tmp_path: Path) -> None:
    build = shutil.copytree(bundle.build, tmp_path / "build")
    (build / "dangling.js").symlink_to(tmp_path / "nowhere")

    ui = WebUi(bundle._replace(build=build))

    with TestClient(make_app([], edge=EdgeOptions(page=ui))) as client:
        assert client.get("/static-files/dangling.js").status_code == 404
