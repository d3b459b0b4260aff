"""Images, texts, distributions, audios and figures over HTTP, in both dialects."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from matyan.blobs.service import blob_key
from matyan.ids import DEFAULT_PROJECT, RunNumber
from matyan.query.objects import ObjectSearch
from matyan.sequences import items, repository
from matyan.sequences.model import BUCKET_OF_KIND, Bucket, Item, SequenceKey, Summary
from matyan.sequences.objects import ITEMS_PER_READ
from tests.support import store, treestream
from tests.support.search_app import SearchApp, search_app

AIM, MATYAN = "/api", "/api/v1/rest"
KINDS = ("images", "texts", "distributions", "audios", "figures")
TRACE = {"name": "s", "context": {}}


@pytest.fixture
def app(tmp_path: Path) -> Iterator[SearchApp]:
    with search_app(tmp_path) as opened:
        yield opened


def track(
    app: SearchApp, number: RunNumber, kind: str, records: Mapping[int, Sequence[Any]], *, name: str = "s"
) -> SequenceKey:
    """Store records by step, each a list of objects, in the order given."""
    key = SequenceKey(BUCKET_OF_KIND[kind], name)
    summary = Summary(
        bucket=int(key.bucket),
        name=name,
        context=key.context,
        dtype=kind,
        count=len(records),
        first_step=next(iter(records)),
        step_min=min(records),
        last_step=max(records),
        record_length_max=max(map(len, records.values())),
    )
    for step, objects in records.items():
        put(app, number, key, step, Item(list(objects), epoch=1.0, time_ms=2500, single=len(objects) == 1))
    app.kv.write(lambda tx: repository.put_summary(tx, DEFAULT_PROJECT, number, summary), durable=False)
    return key


def put(app: SearchApp, number: RunNumber, key: SequenceKey, step: int, item: Item) -> None:
    app.kv.write(lambda tx: items.put(tx, DEFAULT_PROJECT, number, key, step, items.encode(item)), durable=False)


def texts(*data: str) -> list[dict[str, str]]:
    return [{"type": "text", "data": each} for each in data]


def search(app: SearchApp, kind: str, *, prefix: str = AIM, **params: Any) -> dict[str, Any]:
    """Return run -> tree of a search, which must succeed."""
    return treestream.runs(search_bytes(app, kind, prefix=prefix, **params))


def search_bytes(app: SearchApp, kind: str, *, prefix: str = AIM, **params: Any) -> bytes:
    answer = app.client.get(f"{prefix}/runs/search/{kind}/", params=params)
    assert answer.status_code == 200, answer.text
    return answer.content


def read(app: SearchApp, kind: str, what: str = "get-batch", *, prefix: str = AIM, **params: Any) -> dict[Any, Any]:
    """Return the flat answer about the trace TRACE of run `a`, which must succeed."""
    answer = app.client.post(f"{prefix}/runs/a/{kind}/{what}/", json=[TRACE], params=params)
    assert answer.status_code == 200, answer.text
    return dict(treestream.trees(answer.content))


def blobs(app: SearchApp, uris: Sequence[str], kind: str = "images") -> dict[Any, Any]:
    answer = app.client.post(f"{AIM}/runs/{kind}/get-batch", content=json.dumps(uris))
    assert answer.status_code == 200, answer.text
    return dict(treestream.trees(answer.content))


def image(s3_key: object) -> dict[str, Any]:
    return {"type": "image", "format": "PNG", "caption": "c", "width": 1, "height": 1, "s3_key": s3_key}


# ---- searches


def test_a_search_tells_ranges_params_traces_and_props_in_order(app: SearchApp) -> None:
    number = store.make_run(app.kv, "a", params={"lr": 1})
    track(app, number, "text", {0: texts("x"), 4: texts("y", "z")})

    tree = search(app, "texts")["a"]

    assert list(tree) == ["ranges", "params", "traces", "props"]
    assert tree["params"] == {"lr": 1}
    assert tree["traces"] == [
        {
            "name": "s",
            "context": {},
            "values": [[{"data": "x", "index": 0}], [{"data": "y", "index": 0}, {"data": "z", "index": 1}]],
            "iters": [0, 4],
            "epochs": [[1.0, 1.0]],
            "timestamps": [[2.5, 2.5]],
        }
    ]


@pytest.mark.parametrize("prefix", [AIM, MATYAN])
def test_ranges_are_those_of_all_runs_of_the_answer(app: SearchApp, prefix: str) -> None:
    first = store.make_run(app.kv, "a", created_at_seconds=1.0)
    track(app, first, "text", {5: texts("x"), 2: texts("x", "x", "x")})
    track(app, store.make_run(app.kv, "b", created_at_seconds=2.0), "text", {40: texts("y")})
    track(app, store.make_run(app.kv, "c", created_at_seconds=3.0), "text", {900: texts("z")}, name="other")

    found = search(app, "texts", prefix=prefix, q="texts.name == 's'", record_range="3:")

    assert list(found) == ["b", "a"]
    for tree in found.values():
        assert tree["ranges"] == {
            "record_range_used": [3, 41],
            "record_range_total": [2, 41],
            "index_range_used": [0, 3],
            "index_range_total": [0, 3],
        }
    assert [trace["iters"] for run in ("b", "a") for trace in found[run]["traces"]] == [[40], [5]]


@pytest.mark.parametrize("kind", ["distributions", "figures"])
def test_kinds_without_lists_have_one_object_a_record_and_no_positions(app: SearchApp, kind: str) -> None:
    track(app, store.make_run(app.kv, "a"), kind[:-1], {0: [{"data": [1, 2]}]})

    tree = search(app, kind, index_range="nonsense", index_density="-5")["a"]

    assert set(tree["ranges"]) == {"record_range_used", "record_range_total"}
    (value,) = tree["traces"][0]["values"]
    assert isinstance(value, dict)
    assert "index" not in value


@pytest.mark.parametrize(
    ("params", "status"),
    [
        ({"record_range": "a:b"}, 400),
        ({"index_range": "x"}, 400),
        ({"record_density": "0"}, 400),
        ({"index_density": "-1"}, 400),
        ({"record_density": ""}, 422),
        ({"q": "images.name =="}, 400),
        ({"q": "SELECT images IF True"}, 400),
    ],
)
@pytest.mark.parametrize("prefix", [AIM, MATYAN])
def test_what_makes_no_sense_is_refused_before_any_byte(
    app: SearchApp, prefix: str, params: dict[str, str], status: int
) -> None:
    answer = app.client.get(f"{prefix}/runs/search/images/", params=params)

    assert answer.status_code == status
    assert answer.json()["detail"]


@pytest.mark.parametrize("record_range", ["4:2", "-3:", "10:"])
def test_a_range_without_records_leaves_the_trace_with_empty_lists(app: SearchApp, record_range: str) -> None:
    track(app, store.make_run(app.kv, "a"), "text", {0: texts("x")})

    (trace,) = search(app, "texts", record_range=record_range)["a"]["traces"]

    assert (trace["values"], trace["iters"]) == ([], [])


def test_progress_counts_the_place_of_each_run_and_ends_with_all(app: SearchApp) -> None:
    for moment, run_id in enumerate("abc"):
        number = store.make_run(app.kv, run_id, created_at_seconds=float(moment))
        if run_id == "b":
            track(app, number, "text", {0: texts("x")})

    data = search_bytes(app, "texts")

    assert treestream.progress(data) == [[2, 3], [3, 3]]
    assert treestream.progress(search_bytes(app, "texts", report_progress="no")) == []
    assert search_bytes(app, "texts", q="()") == b""


def test_system_params_are_sent_when_wanted(app: SearchApp) -> None:
    number = store.make_run(app.kv, "a", params={"__system_params": {"cpu": 1}})
    track(app, number, "text", {0: texts("x")})

    assert search(app, "texts")["a"]["params"] == {}
    assert search(app, "texts", skip_system="false")["a"]["params"] == {"__system_params": {"cpu": 1}}


def test_a_run_deleted_during_a_search_is_left_out(app: SearchApp) -> None:
    numbers = [store.make_run(app.kv, run_id, created_at_seconds=float(run_id == "b")) for run_id in "ab"]
    for number in numbers:
        track(app, number, "text", {0: texts("x")})
    stream = app.searches.objects(ObjectSearch(bucket=Bucket.TEXTS, report_progress=False))
    begun = next(stream)

    store.clear_run(app.kv, numbers[1])

    assert list(treestream.runs(begun + b"".join(stream))) == ["a"]


# ---- sampling


def test_long_sequences_are_thinned_evenly_with_first_and_last(app: SearchApp) -> None:
    track(app, store.make_run(app.kv, "a"), "text", {3 * n: texts(str(n)) for n in range(500)})

    found = read(app, "texts", record_density=7)

    rows = [*range(0, 500, 71), 499]
    assert found["iters"] == [3 * n for n in rows]
    assert [value[0]["data"] for value in found["values"]] == [str(n) for n in rows]


def test_records_in_pieces_count_once(app: SearchApp) -> None:
    long = "x" * 200_000
    track(app, store.make_run(app.kv, "a"), "text", {n: texts(f"{n}{long}") for n in range(40)})

    found = read(app, "texts", record_density=4)

    assert found["iters"] == [0, 10, 20, 30, 39]
    assert [value[0]["data"][:1] for value in found["values"]] == ["0", "1", "2", "3", "3"]


@pytest.mark.parametrize("steps", [[-(2**63), 0, 2**63 - 1], [-5, -1, 7]])
def test_steps_are_any_integers_of_64_bits(app: SearchApp, steps: list[int]) -> None:
    track(app, store.make_run(app.kv, "a"), "text", {step: texts("x") for step in steps})

    found = read(app, "texts")

    assert found["iters"] == steps
    assert read(app, "texts", record_range=f"{steps[1]}:")["iters"] == steps[1:]


def test_an_answer_is_made_piece_by_piece(app: SearchApp) -> None:
    large = "x" * 400_000
    track(app, store.make_run(app.kv, "a"), "text", {n: texts(large) for n in range(3 * ITEMS_PER_READ)})

    sizes = [len(chunk) for chunk in app.searches.objects(ObjectSearch(bucket=Bucket.TEXTS))]

    assert sum(sizes) > 3 * ITEMS_PER_READ * len(large)
    assert max(sizes) < len(large) + 1000


# ---- batches and steps of one run


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("what", ["get-batch", "get-step"])
def test_keys_of_a_flat_answer_by_dialect(app: SearchApp, kind: str, what: str) -> None:
    track(app, store.make_run(app.kv, "a"), kind[:-1], {0: [{"data": "x"}]})
    has_lists = kind in ("images", "texts", "audios")

    aim, matyan = (read(app, kind, what, prefix=prefix) for prefix in (AIM, MATYAN))

    common = ["name", "context", "values", "iters", "record_range_used", "record_range_total"]
    assert list(aim) == [*common, *(("index_range", "index_range_total") if has_lists else ())]
    assert list(matyan) == [*common, "index_range_used", "index_range_total"]
    assert matyan["index_range_used"] == ([0, 1] if has_lists else None)


def test_traces_come_in_the_order_asked_and_unknown_ones_do_not(app: SearchApp) -> None:
    number = store.make_run(app.kv, "a")
    for name in "xyz":
        track(app, number, "text", {0: texts(name)}, name=name)
    asked: list[dict[str, Any]] = [{"name": name, "context": {}} for name in ("z", "nope", "x")]

    content = app.client.post(f"{AIM}/runs/a/texts/get-batch", json=asked).content

    assert [tree for key, tree in treestream.trees(content) if key == "name"] == ["z", "x"]
    assert app.client.post(f"{AIM}/runs/a/texts/get-batch", json=asked[1:2]).content == b""


@pytest.mark.parametrize("what", ["get-batch", "get-step"])
def test_an_unknown_run_is_404(app: SearchApp, what: str) -> None:
    answer = app.client.post(f"{AIM}/runs/nope/images/{what}/", json=[TRACE])

    assert (answer.status_code, answer.json()["message"]) == (404, "Run not found.")


@pytest.mark.parametrize(
    ("step", "iters", "used"),
    [
        (None, [9], [9, 10]),
        (-1, [9], [9, 10]),
        (-6, [4], [4, 5]),
        (4, [4], [4, 5]),
        (5, [], [5, 6]),
        (70, [], [70, 71]),
    ],
)
def test_a_step_of_a_run(app: SearchApp, step: int | None, iters: list[int], used: list[int]) -> None:
    track(app, store.make_run(app.kv, "a"), "text", {0: texts("x"), 4: texts("y"), 9: texts("z")})

    params: dict[str, Any] = {} if step is None else {"record_step": step}
    found = read(app, "texts", "get-step", **params)

    assert found["iters"] == iters
    assert found["record_range_used"] == used
    assert found["record_range_total"] == [0, 10]


def test_positions_of_a_range_that_a_record_does_not_reach_are_not_there(app: SearchApp) -> None:
    track(app, store.make_run(app.kv, "a"), "text", {0: texts("x"), 1: texts("0", "1", "2", "3")})

    found = read(app, "texts", index_range="1:4", index_density=2)

    assert found["values"] == [[], [{"data": f"{n}", "index": n} for n in (1, 2, 3)]]


# ---- blobs


def test_images_are_fetched_by_the_uri_of_their_record(app: SearchApp) -> None:
    number = store.make_run(app.kv, "a")
    track(app, number, "image", {0: [image("a/seq/s/0.png")]})
    app.blobs.put(blob_key(DEFAULT_PROJECT, "a", "seq/s/0.png"), [b"picture"], content_type="image/png")

    uri = read(app, "images")["values"][0][0]["blob_uri"]

    assert search(app, "images")["a"]["traces"][0]["values"][0][0]["blob_uri"] == uri
    assert blobs(app, [uri]) == {uri: b"picture"}


def test_an_image_whose_blob_is_not_there_yet_is_shown_and_breaks_no_batch(app: SearchApp) -> None:
    number = store.make_run(app.kv, "a")
    track(app, number, "image", {0: [image("a/seq/s/0.png")], 1: [image("a/seq/s/1.png")]})
    app.blobs.put(blob_key(DEFAULT_PROJECT, "a", "seq/s/1.png"), [b"picture"], content_type="image/png")

    pending, there = (value[0]["blob_uri"] for value in read(app, "images")["values"])

    assert blobs(app, [pending, there]) == {there: b"picture"}


@pytest.mark.parametrize(
    "s3_key", [None, 5, "", "a", "a/", "b/seq/s/0.png", "../b/seq/s/0.png", "a/../b/seq/s/0.png", "ab/seq/s/0.png"]
)
def test_a_key_that_is_no_file_of_the_run_leads_nowhere(app: SearchApp, s3_key: object) -> None:
    track(app, store.make_run(app.kv, "a"), "image", {0: [image(s3_key)]})
    app.blobs.put(blob_key(DEFAULT_PROJECT, "b", "seq/s/0.png"), [b"of another"], content_type="image/png")

    (found,) = read(app, "images")["values"][0]

    assert found["caption"] == "c"
    assert blobs(app, [found["blob_uri"]]) == {}


def test_a_large_blob_arrives_whole(app: SearchApp) -> None:
    content = bytes(range(256)) * 20_000
    track(app, store.make_run(app.kv, "a"), "audio", {0: [{**image("a/x.wav"), "type": "audio"}]})
    app.blobs.put(blob_key(DEFAULT_PROJECT, "a", "x.wav"), [content], content_type="audio/wav")

    uri = read(app, "audios")["values"][0][0]["blob_uri"]

    assert blobs(app, [uri, uri], "audios") == {uri: content}


# ---- values that lie in blobs


def test_a_record_too_large_for_the_store_is_read_from_its_blob(app: SearchApp) -> None:
    number = store.make_run(app.kv, "a")
    key = track(app, number, "figure", {step: [{}] for step in range(4)})
    spilled = []
    for step, letter in enumerate("xyz"):
        encoded = items.encode(Item([{"type": "figure", "data": {"data": [letter * 600_000]}}]))
        spilled.append(items.spilled(items.decode(encoded), encoded, "default/a/"))
        app.blobs.put(str(spilled[step].blob_key), [encoded], content_type="application/x-matyan-item")
        put(app, number, key, step, spilled[step])
    put(app, number, key, 3, Item(None, blob_key="gone"))
    app.blobs.put(str(spilled[1].blob_key), [b"of a client"], content_type="text/plain")
    app.blobs.put(str(spilled[2].blob_key), [items.encode(Item([{"data": "forged"}]))], content_type="text/plain")

    there, replaced, forged, gone = read(app, "figures")["values"]

    assert json.loads(there["data"]) == {"data": ["x" * 600_000]}
    assert [json.loads(each["data"]) for each in (replaced, forged, gone)] == [{}, {}, {}]
