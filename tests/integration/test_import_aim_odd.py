"""`matyan import aim` against Aim's own reading: odd data, written by Aim, read by Aim and compared with the store.

The other tests know what the golden dataset holds; here nobody but Aim says what a repository holds.
"""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest

from matyan.engines.blob.protocol import BlobEngine
from matyan.ids import DEFAULT_PROJECT
from matyan.sequences.model import BUCKET_OF_WORD, Bucket, Item, SequenceKey, canonical_context
from matyan.sequences.repository import list_summaries
from matyan.transfer.aim_import import Report
from tests.support.aim_repository import needs_aim, run_with_aim
from tests.support.imported import Store, import_aim, opened

pytestmark = [needs_aim, pytest.mark.one_python]  # Aim takes most of the time, under every Python alike

COMMON = """
import base64, json, os, sys
import aim, numpy
from aim.sdk.sequence import Sequence
from aim.storage.context import Context
from aim.storage.object import CustomObject

repo = aim.Repo.from_path(sys.argv[1], init=not os.path.exists(sys.argv[1] + "/.aim"))
OPTIONS = dict(repo=repo, system_tracking_interval=None, log_system_params=False, capture_terminal_logs=False)

@CustomObject.alias("mine.box")
class Box(CustomObject):
    AIM_NAME = "mine.box"

    def __init__(self, width, label):
        super().__init__()
        self.storage["width"], self.storage["label"] = width, label
"""

WRITE = f"""{COMMON}
def picture(number, shade):
    return aim.Image(numpy.full((2, 3 + number, 3), shade, numpy.uint8), caption=f"bild {{number}} ü")

run = aim.Run(experiment="проба", **OPTIONS)
run.name, run.description = "naïve 名 🎉", "zwei\\nZeilen"
run["odd"] = {{"ü": [1, (2, [3.5, None]), {{"x": []}}], 7: {{"on": True, -1: "minus"}}, "tiny": 1e-300, "empty": {{}}}}
run["large"] = {{"max": 2**63 - 1, "min": -2**63, "nan": float("nan"), "inf": float("inf"), "text": "a/b.c \\" '"}}
run.set_artifacts_uri("file://" + sys.argv[2])
run.log_artifact(aim.__file__, name="папка/one.py")
for step, value in ((5, float("nan")), (2, float("inf")), (2, 1.25), (-3, -float("inf")), (9, -0.0), (1, 5), (9, 0.5)):
    run.track(value, name="wild", step=step, epoch=step % 4)
run.track(1.0, name="nested", step=0, context={{"a": {{"b": [1, {{"c": None}}]}}, "e": {{}}, "t": True, "f": 0.1}})
run.track(2.0, name="nested", step=0, context={{"a": {{"b": [1, {{"c": 0}}]}}}})
run.track(3, name='pér/те ст 🎉"', step=2**40, context={{"ключ": "зна чение"}})
run.track(7, name="whole")
for count in (2, 0, 3, 1):
    run.track([picture(number, 40 * count) for number in range(count)], name="lists", step=10 - count)
run.track(picture(0, 9), name="single", step=4, context={{"subset": "val"}})
run.track([aim.Text("a"), aim.Text("ß\\n")], name="words", step=0, context={{"x": 1}})
run.track([aim.Text("")], name="words", step=1, context={{"x": 1}})
run.track(Box(3, "größe"), name="boxes", step=1)
run.close()
nothing = aim.Run(**OPTIONS)
nothing.close()
"""

READ = f"""{COMMON}
def tagged(tree):
    if isinstance(tree, dict):
        pairs = ([type(key).__name__, str(key), tagged(value)] for key, value in tree.items())
        return {{"dict": sorted(pairs, key=str)}}
    return [tagged(each) for each in tree] if isinstance(tree, (list, tuple)) else [type(tree).__name__, repr(tree)]

def objects(value):
    return [shown(each) for each in (value if isinstance(value, list) else [value])]

def shown(value):
    if isinstance(value, aim.Image):
        data = base64.b64encode(value.storage["data"].load()).decode()
        return {{"caption": value.caption, "width": value.width, "height": value.height, "data": data}}
    return value.data if isinstance(value, aim.Text) else {{name: value.storage[name] for name in ("label", "width")}}

def points(run, name, context):
    steps, columns = run.get_metric(name, context).data.items_list()
    return sorted(zip(map(int, steps), *(map(float, column) for column in columns)))

def items(run, infos):
    for name, context, *_ in infos:
        rows = [[step, isinstance(value, list), objects(value), epoch, time]
                for step, (value, epoch, time) in Sequence(name, context, run).data.items()]
        if rows:
            yield [name, context.to_dict(), rows]

found = {{}}
for hash in os.listdir(sys.argv[1] + "/.aim/meta/chunks"):
    run = aim.Run(run_hash=hash, **OPTIONS)
    try:
        params = run.meta_run_attrs_tree.collect()
    except KeyError:
        params = {{}}
    found[hash] = dict(
        name=run.name, description=run.description, experiment=run.experiment, created_at=run.creation_time,
        params=tagged(params),
        artifacts=sorted([each.name, each.uri] for each in run.artifacts.values()),
        metrics=[[name, context.to_dict(), points(run, name, context)]
                 for name, context, _ in run.iter_metrics_info()],
        images=list(items(run, run.iter_sequence_info_by_type(("aim.image", "list(aim.image)")))),
        texts=list(items(run, run.iter_sequence_info_by_type(("aim.text", "list(aim.text)")))),
        boxes=list(items(run, [("boxes", Context({{}}))])),
    )
print(json.dumps(found))
"""


class Odd(NamedTuple):
    """The repository twice: as Aim reads it, and as it arrived."""

    by_aim: dict[str, dict[str, Any]]
    """By run."""
    store: Store
    report: Report


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Odd]:
    path = tmp_path_factory.mktemp("odd")
    run_with_aim(WRITE, path / "aim", path / "artifacts")
    with opened(path / "home") as store:
        report = import_aim(store, path / "aim")
        # Aim reads last: it may write, and what it writes must not be what is imported.
        yield Odd(json.loads(run_with_aim(READ, path / "aim")), store, report)


def tagged(tree: Any) -> Any:
    """Return a tree in which keys and leaves of different types differ, as the script makes it too."""
    if isinstance(tree, dict):
        return {"dict": sorted(([type(key).__name__, str(key), tagged(value)] for key, value in tree.items()), key=str)}
    return [tagged(each) for each in tree] if isinstance(tree, list | tuple) else [type(tree).__name__, repr(tree)]


def shown(item: Item, blobs: BlobEngine) -> list[Any]:
    """Return the objects of a step as the script shows them."""
    return [_SHOWN[each["type"]](each, blobs) for each in item.value]


def shown_image(found: dict[str, Any], blobs: BlobEngine) -> dict[str, Any]:
    data = blobs.get(f"{DEFAULT_PROJECT}/{found['s3_key']}")
    assert data is not None
    return {**{name: found[name] for name in ("caption", "width", "height")}, "data": b64encode(data).decode()}


_SHOWN: dict[str, Callable[[dict[str, Any], BlobEngine], Any]] = {
    "image": shown_image,
    "text": lambda found, _: found["data"],
}


def test_odd_data_arrives_without_a_complaint(odd: Odd) -> None:
    assert (odd.report.created, odd.report.verified, odd.report.problems) == (2, 2, [])


def test_odd_names_and_times_are_those_that_aim_shows(odd: Odd) -> None:
    found = {run_id: odd.store.run(run_id) for run_id in odd.by_aim}

    for run_id, by_aim in odd.by_aim.items():
        run = found[run_id]
        assert run.experiment is not None
        assert run.experiment.name == by_aim["experiment"]
        assert (run.document.name or f"Run: {run_id}") == by_aim["name"]
        assert run.document.description == by_aim["description"]
        assert run.document.created_at_seconds == by_aim["created_at"]


def test_odd_params_and_artifacts_are_those_that_aim_shows(odd: Odd) -> None:
    found = {run_id: odd.store.run(run_id) for run_id in odd.by_aim}

    assert {run_id: tagged(run.params) for run_id, run in found.items()} == {
        run_id: by_aim["params"] for run_id, by_aim in odd.by_aim.items()
    }
    assert {run_id: [[each.path, each.uri] for each in run.document.artifacts] for run_id, run in found.items()} == {
        run_id: by_aim["artifacts"] for run_id, by_aim in odd.by_aim.items()
    }


def test_odd_metrics_are_those_that_aim_shows(odd: Odd) -> None:
    compared = 0
    for run_id, by_aim in odd.by_aim.items():
        for name, context, points in by_aim["metrics"]:
            stored = odd.store.points(run_id, SequenceKey(Bucket.METRIC, name, canonical_context(context)))
            assert stored.steps.tolist() == [step for step, *_ in points]
            np.testing.assert_array_equal(stored.values, [value for _, value, *_ in points])
            np.testing.assert_array_equal(stored.epochs, [epoch for _, _, epoch, _ in points])
            assert stored.times.tolist() == [round(time * 1000) for *_, time in points]
            compared += 1

    assert compared == 5


@pytest.mark.parametrize(("bucket", "sequences"), [("images", 2), ("texts", 1)])
def test_odd_objects_are_those_that_aim_shows(odd: Odd, bucket: str, sequences: int) -> None:
    compared = 0
    for run_id, by_aim in odd.by_aim.items():
        for name, context, rows in by_aim[bucket]:
            stored = odd.store.items(run_id, SequenceKey(BUCKET_OF_WORD[bucket], name, canonical_context(context)))
            assert [
                [step, not item.single, shown(item, odd.store.blobs), item.epoch, item.time_ms]
                for step, item in stored.items()
            ] == [[*row[:-1], round(row[-1] * 1000)] for row in sorted(rows)]
            compared += 1

    assert compared == sequences


def test_objects_of_an_own_class_keep_the_fields_that_aim_shows(odd: Odd) -> None:
    ((run_id, by_aim),) = ((run_id, each["boxes"]) for run_id, each in odd.by_aim.items() if each["boxes"])

    stored = odd.store.items(run_id, SequenceKey(Bucket.TEXTS, "boxes"))

    ((_, _, ((step, _, objects, _, _),)),) = by_aim
    assert {step: [json.loads(each["data"]) for each in item.value] for step, item in stored.items()} == {step: objects}


def test_a_run_without_anything_arrives_empty(odd: Odd) -> None:
    (run_id,) = (run_id for run_id, by_aim in odd.by_aim.items() if not by_aim["metrics"])

    run = odd.store.run(run_id)

    (summaries,) = odd.store.kv.read(lambda reader: list_summaries(reader, DEFAULT_PROJECT, [run.number]))
    assert list(summaries) == []
    assert run.params == {}
