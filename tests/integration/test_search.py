"""Searches over HTTP: the app on an embedded store, answers decoded by an independent decoder."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, TypeVar, cast

import pytest
from litestar.testing import TestClient
from litestar.types import ASGIApp

from matyan import threads
from matyan.clock import ManualClock
from matyan.engines.kv.protocol import KvEngine, KvReader
from matyan.engines.kv.wrapper import KvWrapper
from matyan.errors import UnavailableError
from matyan.http.app import make_app
from matyan.observe.metrics import Metrics
from matyan.query import routes as query_routes
from matyan.query.sandbox import QueryBudgetError
from matyan.query.service import RunSearch, SearchService
from matyan.runs import repository as runs
from matyan.sequences import routes as sequence_routes
from matyan.sequences.service import MetricReads
from tests.support import store, treestream
from tests.support.stores import opened_store

T = TypeVar("T")
SYSTEM: Final = {"packages": {"numpy": "1.26.4"}}

Client = TestClient[Any]


def make_client(kv: KvEngine, **options: Any) -> Client:
    """Return a client of an app that searches `kv`."""
    services = {
        "search": SearchService(kv=kv, **options),
        "metric_reads": MetricReads(kv=kv, numbers_of=runs.get_numbers),
    }
    app = make_app([*query_routes.ROUTES, *sequence_routes.ROUTES], services=services)
    return TestClient(app, raise_server_exceptions=False)


@pytest.fixture
def kv(tmp_path: Path) -> Iterator[KvEngine]:
    with opened_store(tmp_path / "kv") as store:
        yield store


@pytest.fixture
def client(kv: KvEngine) -> Iterator[Client]:
    with make_client(kv) as opened:
        yield opened


def search(client: Client, kind: str = "run", **params: Any) -> bytes:
    """Return the stream of a search, which must succeed."""
    answer = client.get(f"/api/runs/search/{kind}/", params=params)
    assert answer.status_code == 200, answer.text
    return answer.content


# ---- search of runs


def test_run_tree_has_props_params_and_traces_in_order(kv: KvEngine, client: Client) -> None:
    number = store.make_run(kv, "a", params={"lr": 0.1, "__system_params": SYSTEM}, tags=("prod",), name="first")
    store.make_metric(kv, number, "loss", [2, 7, 3], context={"subset": "train"}, dtype="int")

    ((key, tree), *_) = treestream.trees(search(client))

    assert key == "a"
    assert list(tree) == ["props", "params", "traces"]
    props = tree["props"]
    order = ["name", "description", "experiment", "tags", "archived", "creation_time", "end_time", "active"]
    assert list(props) == order
    assert (props["name"], props["active"], props["end_time"]) == ("first", True, None)
    assert [tag["name"] for tag in props["tags"]] == ["prod"]
    assert tree["params"] == {"lr": 0.1}
    values = {"dtype": "int", "first_step": 0, "first": 2, "last_step": 2, "last": 3, "max": 7, "min": 2, "version": 2}
    assert tree["traces"] == {"metric": [{"context": {"subset": "train"}, "name": "loss", "values": values}]}
    assert type(tree["traces"]["metric"][0]["values"]["last"]) is int


def test_run_without_experiment_still_has_an_experiment_object(kv: KvEngine, client: Client) -> None:
    store.make_run(kv, "a", experiment=None)

    tree = treestream.runs(search(client))["a"]

    assert tree["props"]["experiment"] == {"id": None, "name": None, "description": None}


def test_system_params_are_sent_when_wanted_and_queried_either_way(kv: KvEngine, client: Client) -> None:
    store.make_run(kv, "a", params={"__system_params": SYSTEM})
    q = "run['__system_params']['packages']['numpy'] == '1.26.4'"

    without = treestream.runs(search(client, q=q))
    whole = treestream.runs(search(client, q=q, skip_system="no"))

    assert without["a"]["params"] == {}
    assert whole["a"]["params"] == {"__system_params": SYSTEM}


def test_excluded_params_are_left_out_or_empty_by_dialect(kv: KvEngine, client: Client) -> None:
    store.make_run(kv, "a", params={"lr": 1})
    params = {"exclude_params": "true", "exclude_traces": "true"}

    aim = treestream.runs(client.get("/api/runs/search/run", params=params).content)
    matyan = treestream.runs(client.get("/api/v1/rest/runs/search/run/", params=params).content)

    assert list(aim["a"]) == ["props"]
    assert matyan["a"]["params"] == {}


def test_pages_by_offset_visit_every_run_once_newest_first(kv: KvEngine, client: Client) -> None:
    made = [f"run-{i}" for i in range(150)]
    for i, run_id in enumerate(made):
        store.make_run(kv, run_id, created_at_seconds=1e9 + i)

    seen: list[str] = []
    while True:
        page = list(treestream.runs(search(client, limit=40, **({"offset": seen[-1]} if seen else {}))))
        seen += page
        if len(page) < 40:
            break

    assert seen == made[::-1]


def test_limit_counts_matching_runs_beyond_the_first_read(kv: KvEngine, client: Client) -> None:
    for i in range(300):
        store.make_run(kv, f"run-{i}", created_at_seconds=1e9 + i, params={"i": i})

    data = search(client, q="run.i % 100 == 0", limit=2)

    assert list(treestream.runs(data)) == ["run-200", "run-100"]
    assert treestream.progress(data) == [[100, 300], [200, 300], [200, 300]]


def test_query_may_look_at_sequences_of_any_kind(kv: KvEngine, client: Client) -> None:
    for run_id, last in (("a", 0.5), ("b", 2.0)):
        number = store.make_run(kv, run_id)
        store.make_metric(kv, number, "loss", [3.0, last])
        store.make_objects(kv, number, "text", "prompts", [{"type": "text", "data": "x"}] * 4)

    data = search(client, q="run.metrics['loss'].last < 1 and run.metrics['prompts'].last_step == 3")

    tree = treestream.runs(data)
    assert list(tree) == ["a"]
    assert [trace["name"] for trace in tree["a"]["traces"]["metric"]] == ["loss"]


def test_answers_are_streams_of_octets(client: Client) -> None:
    answer = client.get("/api/runs/search/run/")

    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.content == b""


def test_active_runs_come_with_their_metrics_and_progress(kv: KvEngine, client: Client) -> None:
    for i in range(3):
        number = store.make_run(kv, f"run-{i}", end_time_seconds=2e9 if i == 1 else None)
        store.make_metric(kv, number, "loss", [1.0])

    data = client.get("/api/runs/active").content

    assert list(treestream.runs(data)) == ["run-2", "run-0"]
    assert treestream.runs(data)["run-0"]["traces"]["metric"][0]["name"] == "loss"
    assert treestream.progress(data) == [[1, 2], [2, 2]]


# ---- budgets, silence, and clients that leave


class TickingClock(ManualClock):
    """A clock that goes on by itself whenever it is read."""

    def __init__(self, tick_seconds: float) -> None:
        super().__init__()
        self._tick_seconds = tick_seconds

    def monotonic_seconds(self) -> float:
        self.advance(self._tick_seconds)
        return super().monotonic_seconds()


class CountingKv(KvWrapper):
    """Counts the transactions of an engine."""

    def __init__(self, engine: KvEngine) -> None:
        super().__init__(engine)
        self.reads = 0

    def read(self, fn: Callable[[KvReader], T]) -> T:
        self.reads += 1
        return self.engine.read(fn)


class BreakingKv(CountingKv):
    """An engine whose reads fail from some moment on."""

    is_broken = False

    def read(self, fn: Callable[[KvReader], T]) -> T:
        if self.is_broken:
            raise UnavailableError("the disk is on fire")
        return super().read(fn)


def make_runs(kv: KvEngine, count: int, **fields: Any) -> None:
    for i in range(count):
        store.make_run(kv, f"run-{i}", created_at_seconds=1e9 + i, **fields)


def test_search_out_of_time_fails_instead_of_looking_complete(kv: KvEngine) -> None:
    make_runs(kv, 200)
    metrics = Metrics()
    stream = SearchService(kv=kv, clock=TickingClock(0.1), metrics=metrics).runs(RunSearch())
    taken: list[bytes] = []

    with pytest.raises(QueryBudgetError):
        taken.extend(stream)

    assert 0 < len(treestream.runs(b"".join(taken))) < 200
    assert stopped(metrics, "deadline") == 1


@pytest.mark.parametrize("report_progress", [True, False])
def test_search_out_of_time_says_so_last(kv: KvEngine, *, report_progress: bool) -> None:
    make_runs(kv, 200)
    stream = SearchService(kv=kv, clock=TickingClock(0.1)).runs(RunSearch(report_progress=report_progress))
    taken: list[bytes] = []

    with pytest.raises(QueryBudgetError):
        taken.extend(stream)

    key, (checked, total, reason, message) = treestream.trees(b"".join(taken))[-1]
    assert cast("str", key).startswith("progress_")
    assert 0 < checked < 200
    assert total == (200 if report_progress else checked)
    assert reason == "deadline"
    assert "longer than it may" in message


def test_search_that_breaks_in_the_middle_says_so_and_no_more(kv: KvEngine) -> None:
    make_runs(kv, 100)
    breaking = BreakingKv(kv)
    stream = SearchService(kv=breaking).runs(RunSearch(exclude_traces=True))
    taken = [next(stream)]
    breaking.is_broken = True

    with pytest.raises(UnavailableError):
        taken.extend(stream)

    _, (*_, reason, message) = treestream.trees(b"".join(taken))[-1]
    assert reason == "error"
    assert "on fire" not in message


def test_search_out_of_time_before_its_first_tree_is_an_error_answer(kv: KvEngine) -> None:
    make_runs(kv, 200)
    with make_client(kv, clock=TickingClock(1.0)) as client:
        answer = client.get("/api/runs/search/run/", params={"q": "run.nothing == 1", "report_progress": "false"})

    assert answer.status_code == 400
    assert "longer than it may" in answer.json()["message"]


def test_waiting_for_the_client_is_not_counted_as_work(kv: KvEngine) -> None:
    make_runs(kv, 100)
    clock = ManualClock()
    stream = SearchService(kv=kv, clock=clock).runs(RunSearch())

    taken = []
    for chunk in stream:
        clock.advance(60.0)
        taken.append(chunk)

    assert len(treestream.runs(b"".join(taken))) == 100


def test_silent_search_sends_progress_with_rising_numbers(kv: KvEngine) -> None:
    make_runs(kv, 100)
    clock = TickingClock(0.02)

    data = b"".join(SearchService(kv=kv, clock=clock).runs(RunSearch(q="run.nothing == 1")))

    keys = [key for key, _ in treestream.trees(data)]
    assert len(keys) > 2
    assert keys == [f"progress_{n}" for n in range(len(keys))]
    checked = [pair[0] for pair in treestream.progress(data)]
    assert checked == sorted(checked)
    assert treestream.progress(data)[-1] == [100, 100]


def test_client_that_leaves_stops_the_search(kv: KvEngine) -> None:
    make_runs(kv, 600, params={"text": "x" * 10_000})
    whole, counting = CountingKv(kv), CountingKv(kv)
    for _ in SearchService(kv=whole).runs(RunSearch()):
        pass
    metrics = Metrics()
    app = make_app(query_routes.ROUTES, services={"search": SearchService(kv=counting, metrics=metrics)})
    threads.configure(query_threads=1)

    asyncio.run(asyncio.wait_for(leave_after_the_first_bytes(app), timeout=20))

    # The only thread of the pool is free again when the search has ended.
    threads.query_pool().submit(lambda: None).result(timeout=10)
    threads.close()
    assert 0 < counting.reads < whole.reads
    assert stopped(metrics, "disconnect") == 1


def stopped(metrics: Metrics, reason: str) -> float | None:
    return metrics.registry.get_sample_value("matyan_query_stopped_total", {"reason": reason})


async def leave_after_the_first_bytes(app: ASGIApp) -> None:
    """Ask for all runs, take the beginning of the answer, hang up."""
    has_bytes = asyncio.Event()
    request: list[Any] = [{"type": "http.request", "body": b"", "more_body": False}]

    async def receive() -> Any:
        if request:
            return request.pop()
        await has_bytes.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        if message["type"] == "http.response.body":
            has_bytes.set()
            await asyncio.Event().wait()  # nobody takes more

    await app(cast("Any", SCOPE), receive, send)


SCOPE: Final = {
    "type": "http",
    "asgi": {"version": "3.0", "spec_version": "2.3"},
    "http_version": "1.1",
    "method": "GET",
    "scheme": "http",
    "path": "/api/runs/search/run/",
    "raw_path": b"/api/runs/search/run/",
    "root_path": "",
    "query_string": b"",
    "headers": [(b"host", b"test")],
    "client": ("127.0.0.1", 1),
    "server": ("127.0.0.1", 80),
    "extensions": {},
}


# ---- plans


def test_the_plan_of_a_search_is_told_to_who_asks_for_it(kv: KvEngine, client: Client) -> None:
    store.make_run(kv, "a", params={"é": 1})

    told = client.get("/api/runs/search/run/", params={"q": "run.é == 1"}, headers={"X-Matyan-Explain": "1"})
    untold = client.get("/api/runs/search/run/", params={"q": "run.é == 1"})
    metric = client.get("/api/runs/search/metric/", params={"q": "()"}, headers={"X-Matyan-Explain": "1"})

    assert told.headers["x-matyan-plan"] == r"not run.archived and run['\xe9'] == 1"
    assert told.content == untold.content
    assert "x-matyan-plan" not in untold.headers
    assert metric.headers["x-matyan-plan"] == "nothing"


def test_a_query_that_is_none_has_no_plan(client: Client) -> None:
    answer = client.get("/api/runs/search/run/", params={"q": "run.a =="}, headers={"X-Matyan-Explain": "1"})

    assert answer.status_code == 400
    assert answer.json()["message"] == "SyntaxError"


@pytest.mark.parametrize(
    ("q", "path", "reason"),
    [
        ("run.i >= 0", "newest", "enough"),
        ("run.i == 3", "index", "plan"),
        ("run.name.startswith('Run: run-1')", "newest", "enough"),
        ("run.name.startswith('Run: run-2') or run.i == 3", "index", "plan"),
        ("run.archived", "index", "plan"),
        ("run.i != 3", "newest", "enough"),
        ("run.i + 1 == 3", "scan", "no_term"),
        ("not run.archived and run.i != 3 and run.i + 1 == 3", "scan", "no_term"),
        ("run.i + 1 == 3 or run.archived", "scan", "no_term"),
    ],
)
def test_how_the_runs_of_a_search_were_found_is_counted(kv: KvEngine, q: str, path: str, reason: str) -> None:
    for i in range(200):
        store.make_run(kv, f"run-{i}", created_at_seconds=1e9 + i, params={"i": i})
    metrics = Metrics()

    b"".join(SearchService(kv=kv, metrics=metrics).runs(RunSearch(q=q, limit=20)))

    labels = {"path": path, "endpoint": "run", "reason": reason}
    assert metrics.registry.get_sample_value("matyan_planner_path_total", labels) == 1


def test_progress_of_a_planned_search_names_the_places_among_all_runs(kv: KvEngine, client: Client) -> None:
    for i in range(300):
        store.make_run(kv, f"run-{i}", created_at_seconds=1e9 + i, params={"i": i})

    data = search(client, q="run.i in (7, 100)")
    page = search(client, q="run.i in (7, 100, 295)", offset="run-250", limit=1)
    nothing = search(client, q="run.i == 1000")

    assert treestream.progress(data) == [[200, 300], [293, 300], [300, 300]]
    assert treestream.progress(page) == [[150, 300], [150, 300]]
    assert treestream.progress(nothing) == [[300, 300]]
