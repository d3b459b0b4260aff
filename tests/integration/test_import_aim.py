"""`matyan import aim`: the golden dataset, made by Aim itself, arrives value by value; repeats, edits, faults."""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pytest

from matyan.catalog import repository as catalog
from matyan.catalog.model import Experiment
from matyan.catalog.notes import experiment_notes, run_notes
from matyan.engines.kv.protocol import KvTransaction
from matyan.errors import ConfigurationError, UnavailableError
from matyan.ids import DEFAULT_PROJECT, RunId, RunNumber
from matyan.runs import repository as runs
from matyan.runs import tombstones
from matyan.runs.model import EditMark, RunDocument
from matyan.runs.tombstones import Tombstone
from matyan.sequences import repository
from matyan.sequences.model import BUCKET_OF_WORD, Bucket, Points, SequenceKey, canonical_context
from matyan.sequences.repository import SequenceRef
from matyan.transfer import progress
from matyan.transfer.aim_catalog import AimRunRow
from matyan.transfer.aim_import import AimImport, Report, Selection
from matyan.transfer.aim_source import AimRepository, AimRunReader
from matyan.transfer.reporting import ProgressLine
from matyan.wire.codec import encode_tree
from tests.golden import expand
from tests.support.aim_repository import golden_aim_repository, needs_aim, run_with_aim
from tests.support.dataset import GOLDEN, make_summary
from tests.support.golden_import import import_golden
from tests.support.imported import Store, import_aim, opened

pytestmark = [needs_aim, pytest.mark.one_python]

DATASET = expand.load(GOLDEN / "dataset.json")
RUNS: dict[str, dict[str, Any]] = {run["hash"]: run for run in DATASET["runs"]}
LOSS = SequenceKey(Bucket.METRIC, "loss", '{"subset":"train"}')
SWEEP = "eb9a2c9ef45b447d0241dd25"
IMAGES = "b150fb39b0021e1f0d4d896b"
LINES = SequenceKey(Bucket.LOGS, "logs")
RECORDS = SequenceKey(Bucket.LOG_RECORDS, "log_records")


@pytest.fixture(scope="module")
def golden(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with opened(import_golden(tmp_path_factory.mktemp("golden") / "home")) as store:
        yield store


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return golden_aim_repository(tmp_path / "aim")


class Unfinished(NamedTuple):
    """A repository with one run that Aim has not finished."""

    source: Path
    run_id: str


@pytest.fixture(scope="module")
def left_by_aim(tmp_path_factory: pytest.TempPathFactory) -> Unfinished:
    source = tmp_path_factory.mktemp("unfinished") / "aim"
    return Unfinished(source, run_with_aim(UNFINISHED, source).strip())


@pytest.fixture
def unfinished(left_by_aim: Unfinished, tmp_path: Path) -> Unfinished:
    """A copy, which a test may change: Aim takes four seconds of processor time to make one."""
    return left_by_aim._replace(source=shutil.copytree(left_by_aim.source, tmp_path / "aim"))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with opened(tmp_path / "home") as store:
        yield store


def sequences_of(*kinds: str) -> list[Any]:
    return [
        pytest.param(run["hash"], sequence, id=f"{run['name']}-{sequence['name']}-{sequence['context']}")
        for run in DATASET["runs"]
        for sequence in run["sequences"]
        if sequence["type"] in kinds
    ]


def key_of(sequence: Mapping[str, Any]) -> SequenceKey:
    return SequenceKey(BUCKET_OF_WORD[sequence["type"]], sequence["name"], canonical_context(sequence["context"]))


def latest(sequence: Mapping[str, Any]) -> dict[int, expand.Point]:
    """Return the points that count: of a step the last one tracked."""
    return {point.step: point for point in sequence["points"]}


# ---- everything arrives


@pytest.mark.parametrize("run", DATASET["runs"], ids=lambda run: run["name"] or "unnamed")
def test_a_run_keeps_names_times_and_flags(golden: Store, run: Mapping[str, Any]) -> None:
    found = golden.run(run["hash"])

    assert (found.document.name, found.document.description) == (run["name"], run["description"])
    assert found.document.created_at_seconds == run["created_at"]
    assert found.document.end_time_seconds == run["end_time"]
    assert found.document.active == (run["end_time"] is None)
    assert found.document.archived == run["archived"]
    assert found.experiment is not None
    assert found.experiment.name == run["experiment"]


@pytest.mark.parametrize("run", DATASET["runs"], ids=lambda run: run["name"] or "unnamed")
def test_params_keep_every_type_and_integer_keys(golden: Store, run: Mapping[str, Any]) -> None:
    params = golden.run(run["hash"]).params

    assert exact(params) == exact(run["params"])


def exact(tree: Any) -> Any:
    """Return a tree in which 1, 1.0 and True differ, NaN equals itself and tuples are lists, as they are stored."""
    if isinstance(tree, dict):
        return {(type(key).__name__, key): exact(value) for key, value in tree.items()}
    return [exact(value) for value in tree] if isinstance(tree, list | tuple) else (type(tree).__name__, repr(tree))


@pytest.mark.parametrize("run", DATASET["runs"], ids=lambda run: run["name"] or "unnamed")
def test_tags_stay_in_the_order_of_attachment(golden: Store, run: Mapping[str, Any]) -> None:
    ids = golden.run(run["hash"]).document.tag_ids
    tags = golden.kv.read(lambda reader: catalog.tags.get_many(reader, DEFAULT_PROJECT, ids))

    assert [tags[tag_id].name for tag_id in ids] == run["tags"]


def test_experiments_and_tags_keep_ids_descriptions_colours_and_flags(golden: Store) -> None:
    experiments = golden.kv.read(lambda reader: catalog.experiments.list(reader, DEFAULT_PROJECT))
    tags = golden.kv.read(lambda reader: catalog.tags.list(reader, DEFAULT_PROJECT))

    fields = ("id", "name", "description", "archived")
    assert {tuple(getattr(each, field) for field in fields) for each in experiments} == {
        tuple(each[field] for field in fields) for each in DATASET["experiments"]
    }
    assert {(each.color, *(getattr(each, field) for field in fields)) for each in tags} == {
        (each["color"], *(each[field] for field in fields)) for each in DATASET["tags"]
    }


def test_notes_keep_their_texts_times_and_order(golden: Store) -> None:
    vision = next(each for each in DATASET["experiments"] if each["name"] == "vision")
    first = DATASET["experiments"][0]["created_at"] + 1000

    of_experiment = golden.kv.read(lambda reader: experiment_notes.list(reader, DEFAULT_PROJECT, vision["id"]))
    of_run = golden.kv.read(lambda reader: run_notes.list(reader, DEFAULT_PROJECT, golden.number(SWEEP)))

    assert [(note.number, note.content) for note in reversed(of_experiment)] == list(enumerate(vision["notes"], 1))
    assert [(note.content, note.created_at_seconds) for note in reversed(of_run)] == [
        (text, first + number) for number, text in enumerate(RUNS[SWEEP]["notes"], 3)
    ]


@pytest.mark.parametrize(("run_id", "sequence"), sequences_of("metric"))
def test_points_of_a_metric_are_the_same_bit_for_bit(golden: Store, run_id: str, sequence: Mapping[str, Any]) -> None:
    stored = golden.points(run_id, key_of(sequence))

    points = sorted(latest(sequence).values(), key=lambda point: point.step)
    assert stored.steps.tolist() == [point.step for point in points]
    np.testing.assert_array_equal(stored.values, np.array([float(point.value) for point in points]))
    epochs = [np.nan if point.epoch is None else float(point.epoch) for point in points]
    np.testing.assert_array_equal(stored.epochs, np.array(epochs))
    assert stored.times.tolist() == [round(point.time * 1000) for point in points]


@pytest.mark.parametrize(("run_id", "sequence"), sequences_of("metric"))
def test_the_record_of_a_metric_is_what_tracking_leaves(
    golden: Store, run_id: str, sequence: Mapping[str, Any]
) -> None:
    found = golden.summary(run_id, key_of(sequence))

    wanted = make_summary(sequence)
    for field in ("dtype", "count", "first_step", "last_step", "step_min", "minimum", "maximum", "time_first_ms"):
        assert getattr(found, field) == getattr(wanted, field), field
    np.testing.assert_equal([found.first, found.last], [wanted.first, wanted.last])


@pytest.mark.parametrize(("run_id", "sequence"), sequences_of("images", "audios", "texts", "distributions", "figures"))
def test_objects_keep_steps_lists_and_contents(golden: Store, run_id: str, sequence: Mapping[str, Any]) -> None:
    stored = golden.items(run_id, key_of(sequence))

    points = latest(sequence)
    assert sorted(stored) == sorted(points)
    for step, point in points.items():
        item = stored[step]
        assert item.single == (not isinstance(point.value, list))
        assert (item.epoch, item.time_ms) == (point.epoch, round(point.time * 1000))
        objects = [point.value] if item.single else point.value
        assert [readable(each, golden) for each in item.value] == [explicit(each) for each in objects]


def readable(stored: Mapping[str, Any], golden: Store) -> dict[str, Any]:
    """Return a stored object with the bytes it refers to."""
    found = {name: value for name, value in stored.items() if name not in ("s3_key", "rate", "source")}
    if "s3_key" in stored:
        found["data"] = golden.blobs.get(f"{DEFAULT_PROJECT}/{stored['s3_key']}")
    return found


def explicit(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Return an object of the dataset in the same form."""
    found = {name: value for name, value in spec.items() if name not in ("dtype", "source", "weights")}
    if spec["type"] == "distribution":
        found["data"] = np.frombuffer(spec["data"], spec["dtype"]).tolist()
    if spec["type"] == "figure":
        found = {"format": "raw_json", **found}
    return found


@pytest.mark.parametrize(("run_id", "sequence"), sequences_of("images", "audios", "texts", "distributions", "figures"))
def test_the_record_of_objects_is_what_tracking_leaves(golden: Store, run_id: str, sequence: Mapping[str, Any]) -> None:
    found = golden.summary(run_id, key_of(sequence))

    wanted = make_summary(sequence)
    for field in ("dtype", "count", "first_step", "last_step", "step_min", "record_length_max"):
        assert getattr(found, field) == getattr(wanted, field), field


@pytest.mark.parametrize("run", [run for run in DATASET["runs"] if run["log_lines"]], ids=lambda run: run["name"])
def test_terminal_lines_keep_numbers_and_texts(golden: Store, run: Mapping[str, Any]) -> None:
    stored = golden.items(run["hash"], LINES)

    assert [(step, item.value) for step, item in stored.items()] == sorted(run["log_lines"])


@pytest.mark.parametrize("run", [run for run in DATASET["runs"] if run["log_record_list"]], ids=lambda run: run["name"])
def test_log_records_keep_levels_times_and_arguments(golden: Store, run: Mapping[str, Any]) -> None:
    stored = golden.items(run["hash"], RECORDS)

    assert {step: item.value for step, item in stored.items()} == {
        record["step"]: {
            "message": record["message"],
            "log_level": record["level"],
            "timestamp": record["timestamp"],
            "args": record["args"] or None,
            "logger_info": ["train.py", 10],
        }
        for record in run["log_record_list"]
    }


def test_artifacts_keep_names_and_addresses(golden: Store) -> None:
    run = next(run for run in DATASET["runs"] if run.get("artifacts"))

    found = golden.run(run["hash"]).document.artifacts

    assert {(each.path, each.uri) for each in found} == {
        (each["name"], f"{each['base_uri']}/{run['hash']}/{each['name']}") for each in run["artifacts"]
    }


def test_runs_are_numbered_in_order_of_creation(golden: Store) -> None:
    by_number = sorted(RUNS, key=golden.number)

    created = [RUNS[run_id]["created_at"] for run_id in by_number]
    assert created == sorted(created)


# ---- the source


def test_the_source_is_not_touched(store: Store, source: Path) -> None:
    before = files(source)

    import_aim(store, source)

    assert files(source) == before


def files(root: Path) -> dict[str, tuple[int, int, bytes]]:
    found = (path for path in root.rglob("*") if path.is_file())
    return {str(path): (path.stat().st_mtime_ns, path.stat().st_mode, path.read_bytes()) for path in found}


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can act as another user")
def test_a_source_that_nobody_may_write_to_is_read(tmp_path: Path, source: Path) -> None:
    for path in (source, *source.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    for path in (source, *source.parents):
        if path != Path("/tmp") and path.owner() == "root":
            path.chmod(path.stat().st_mode | 0o055)
    script = (
        "import os, sys; from pathlib import Path; from matyan.transfer.aim_source import AimRepository\n"
        "import aimrocks; os.setgid(65534); os.setuid(65534)\n"
        "repository = AimRepository(Path(sys.argv[1]))\n"
        "readers = [repository.open_run(row) for row in repository.runs()]\n"
        "print(sum(len(reader.columns(each)) for reader in readers for each in reader.run.sequences "
        "if each.key.bucket == 1))"
    )

    printed = run_with_aim(script, source)

    assert int(printed) == sum(
        len(latest(each)) for run in DATASET["runs"] for each in run["sequences"] if each["type"] == "metric"
    )


def test_a_source_without_any_index_is_read(store: Store, source: Path) -> None:
    for part in ("meta", "seqs"):
        shutil.rmtree(source / ".aim" / part / "index", ignore_errors=True)

    report = import_aim(store, source)

    assert (report.created, report.problems) == (len(RUNS), [])


def test_a_file_that_vanishes_while_a_run_is_looked_at_changes_its_signature(source: Path) -> None:
    repository = AimRepository(source)
    row = next(row for row in repository.runs() if row.hash == SWEEP)
    before = repository.signature(row)
    # A link to nothing is listed and cannot be looked at: as a file that is deleted in between.
    (source / ".aim" / "meta" / "chunks" / SWEEP / "000999.sst").symlink_to(source / "nowhere")

    signature = repository.signature(row)

    assert signature != before


def test_the_directory_itself_may_be_named(store: Store, source: Path) -> None:
    report = import_aim(store, source / ".aim")

    assert report.created == len(RUNS)


def test_a_run_that_aim_has_not_finished_is_brought_with_all_its_points(store: Store, unfinished: Unfinished) -> None:
    report = import_aim(store, unfinished.source)

    assert report.problems == []
    assert store.run(unfinished.run_id).document.active
    assert store.points(unfinished.run_id, LOSS).values.tolist() == [0.0, 1.0, 2.0, 3.0, 4.0]


UNFINISHED = """
import os, sys, aim
run = aim.Run(repo=aim.Repo.from_path(sys.argv[1], init=True), system_tracking_interval=None, log_system_params=False,
              capture_terminal_logs=False)
for step in range(5):
    run.track(float(step), name="loss", step=step, context={"subset": "train"})
print(run.hash, flush=True)
os._exit(0)
"""


def test_a_run_that_the_catalog_does_not_know_is_brought(store: Store, source: Path) -> None:
    (source / ".aim" / "run_metadata.sqlite").unlink()

    report = import_aim(store, source)

    assert (report.created, report.problems) == (len(RUNS), [])
    run = store.run(SWEEP)
    assert run.experiment is not None
    assert (run.experiment.name, run.document.name, run.document.end_time_seconds) == (
        "default",
        None,
        RUNS[SWEEP]["end_time"],
    )
    assert run.experiment.created_at_seconds == min(store.run(each).document.created_at_seconds for each in RUNS)


# ---- repeats


def test_a_repeat_changes_nothing(store: Store, source: Path) -> None:
    import_aim(store, source)
    before = store.everything()

    report = import_aim(store, source)

    assert (report.created, report.updated, report.unchanged, report.problems) == (0, 0, len(RUNS), [])
    assert store.everything() == before


def test_a_repeat_after_the_source_was_copied_changes_nothing(store: Store, source: Path, tmp_path: Path) -> None:
    import_aim(store, source)
    points = store.points(SWEEP, LOSS)
    moved = shutil.copytree(source, tmp_path / "elsewhere", copy_function=shutil.copy)

    report = import_aim(store, moved)

    assert (report.created, report.problems) == (0, [])
    np.testing.assert_array_equal(store.points(SWEEP, LOSS), points)
    notes = store.kv.read(lambda reader: run_notes.list(reader, DEFAULT_PROJECT, store.number(SWEEP)))
    assert len(notes) == len(RUNS[SWEEP]["notes"])


GROW = """
import sys, aim
repo = aim.Repo.from_path(sys.argv[1])
run = aim.Run(run_hash=sys.argv[2], repo=repo, system_tracking_interval=None, capture_terminal_logs=False)
for step in range(40, 1040):
    run.track(step / 7, name="loss", step=step, context={"subset": "train"})
run.track(99.5, name="loss", step=3, context={"subset": "train"})
run.track(1, name="fresh")
run.track(aim.Text("new"), name="words", step=0)
run["hparams", "lr"] = 0.75
run.name = "renamed there"
run.add_tag("fresh-tag")
run.props.add_note("written later")
run.close()
"""


def test_what_a_run_gained_in_the_source_arrives_with_a_repeat(store: Store, source: Path) -> None:
    import_aim(store, source)
    run_with_aim(GROW, source, SWEEP)

    report = import_aim(store, source)

    assert (report.created, report.updated, report.problems) == (0, 1, [])
    loss = store.points(SWEEP, LOSS)
    assert loss.steps.tolist() == list(range(1040))
    assert (loss.values[3], loss.values[1039]) == (99.5, 1039 / 7)
    assert store.summary(SWEEP, LOSS).last == 1039 / 7
    assert store.points(SWEEP, SequenceKey(Bucket.METRIC, "fresh")).values.tolist() == [1.0]
    words = store.items(SWEEP, SequenceKey(Bucket.TEXTS, "words"))
    assert words[0].value == [{"type": "text", "data": "new"}]
    run = store.run(SWEEP)
    assert run.params["hparams"]["lr"] == 0.75
    assert run.document.name == "renamed there"
    assert [tag.name for tag in run.tags] == [*RUNS[SWEEP]["tags"], "fresh-tag"]
    assert run.document.end_time_seconds != RUNS[SWEEP]["end_time"]
    notes = store.kv.read(lambda reader: run_notes.list(reader, DEFAULT_PROJECT, run.number))
    assert [note.content for note in notes] == ["written later", *reversed(RUNS[SWEEP]["notes"])]


def test_edits_made_here_outlive_a_repeat(store: Store, source: Path) -> None:
    import_aim(store, source)
    number, document = store.number(SWEEP), store.run(SWEEP).document

    def edit(tx: KvTransaction) -> None:
        document.name, document.archived, document.description = "renamed here", True, "mine"
        tag_id, document.tag_ids = document.tag_ids[0], document.tag_ids[1:]
        catalog.tags.unlink(tx, DEFAULT_PROJECT, tag_id, document.place(number))
        runs.put(tx, DEFAULT_PROJECT, number, document)

    store.kv.write(edit)
    run_with_aim(GROW, source, SWEEP)

    report = import_aim(store, source)

    found = store.run(SWEEP)
    assert report.problems == []
    assert (found.document.name, found.document.archived, found.document.description) == ("renamed here", True, "mine")
    assert [tag.name for tag in found.tags] == [*RUNS[SWEEP]["tags"][1:], "fresh-tag"]
    assert found.params["hparams"]["lr"] == 0.75


def edit_run(tx: KvTransaction, run_id: str, **changes: Any) -> None:
    found = runs.find(tx, DEFAULT_PROJECT, RunId(run_id))
    assert found is not None
    runs.put(tx, DEFAULT_PROJECT, found.number, msgspec.structs.replace(found.document, **changes))


EDITS: dict[str, dict[str, Any]] = {
    "end": {"end_time_seconds": 1.8e9, "active": False},
    "resumed": {"end_time_seconds": None, "active": True},
    "name": {"name": "renamed here"},
    "description": {"description": "mine"},
    "archived": {"archived": True},
    "experiment": {"experiment_id": None},
    "tags": {"tag_ids": ()},
}


@pytest.mark.parametrize("edit", EDITS)
def test_an_edit_made_here_is_nothing_wrong(store: Store, unfinished: Unfinished, edit: str) -> None:
    source, run_id = unfinished
    import_aim(store, source)
    store.kv.write(lambda tx: edit_run(tx, run_id, **EDITS[edit]))

    report = import_aim(store, source)

    assert (report.unchanged, report.verified, report.problems) == (1, 1, [])
    document = store.run(run_id).document
    assert {name: getattr(document, name) for name in EDITS[edit]} == EDITS[edit]


def test_an_edit_made_here_is_nothing_wrong_when_the_source_went_on(store: Store, unfinished: Unfinished) -> None:
    source, run_id = unfinished
    import_aim(store, source)
    store.kv.write(lambda tx: edit_run(tx, run_id, name="renamed here", **EDITS["end"]))
    run_with_aim(TRACK_ONE_MORE, source, run_id)

    report = import_aim(store, source)

    assert (report.updated, report.verified, report.problems) == (1, 1, [])
    assert store.run(run_id).document.name == "renamed here"
    assert store.points(run_id, LOSS).values.tolist() == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]


TRACK_ONE_MORE = """
import os, sys, aim
run = aim.Run(run_hash=sys.argv[2], repo=sys.argv[1], system_tracking_interval=None, log_system_params=False,
              capture_terminal_logs=False)
run.track(5.0, name="loss", step=5, context={"subset": "train"})
run.name = "renamed there"
os._exit(0)
"""


def test_new_runs_of_experiments_and_tags_renamed_here_are_equal(store: Store, source: Path) -> None:
    import_aim(store, source, since_seconds=sorted(run["created_at"] for run in DATASET["runs"])[12])
    store.kv.write(rename_everything)

    report = import_aim(store, source)

    assert (report.created, report.problems) == (12, [])
    renamed = [run for run in map(store.run, RUNS) if run.experiment and run.experiment.name.endswith(" here")]
    assert len(renamed) > 12
    assert any(tag.name.endswith(" here") for run in renamed for tag in run.tags)


def rename_everything(tx: KvTransaction) -> None:
    for entities in (catalog.experiments, catalog.tags):
        for found in entities.list(tx, DEFAULT_PROJECT):
            after = msgspec.structs.replace(found, name=f"{found.name} here")
            entities.replace(tx, DEFAULT_PROJECT, found, after)  # type: ignore[arg-type]  # of one kind each


def test_experiments_and_tags_of_the_same_name_are_merged(store: Store, source: Path) -> None:
    store.kv.write(put_vision)

    report = import_aim(store, source)

    assert report.problems == []
    experiment = store.run(SWEEP).experiment
    assert experiment is not None
    assert (experiment.id, experiment.description) == ("vision-here", "described here")


def put_vision(tx: KvTransaction) -> None:
    made = Experiment(id="vision-here", name="vision", description="described here")
    catalog.experiments.put(tx, DEFAULT_PROJECT, made)


def test_experiments_and_tags_deleted_here_do_not_come_back_by_themselves(store: Store, source: Path) -> None:
    import_aim(store, source)

    def delete(tx: KvTransaction) -> None:
        for entities, name in ((catalog.experiments, "empty-exp"), (catalog.tags, "unused")):
            found = entities.find(tx, DEFAULT_PROJECT, name)
            assert found is not None
            entities.begin_deletion(tx, DEFAULT_PROJECT, found, deletes_runs=False)  # type: ignore[arg-type]  # of one kind each
            entities.end_deletion(tx, DEFAULT_PROJECT, found.id)

    store.kv.write(delete)

    import_aim(store, source)

    experiments = store.kv.read(lambda reader: catalog.experiments.list(reader, DEFAULT_PROJECT))
    tags = store.kv.read(lambda reader: catalog.tags.list(reader, DEFAULT_PROJECT))
    assert {"empty-exp"} == {each["name"] for each in DATASET["experiments"]} - {each.name for each in experiments}
    assert {"unused"} == {each["name"] for each in DATASET["tags"]} - {each.name for each in tags}


def test_items_that_an_interrupted_repeat_left_uncounted_are_counted(store: Store, source: Path) -> None:
    key = SequenceKey(Bucket.IMAGES, "samples", '{"subset":"train"}')
    import_aim(store, source)
    wanted = store.summary(IMAGES, key)
    stale = msgspec.structs.replace(wanted, count=wanted.count - 2, last_step=wanted.last_step - 2)
    number, run_id = store.number(IMAGES), RunId(IMAGES)

    def interrupt(tx: KvTransaction) -> None:
        repository.put_summary(tx, DEFAULT_PROJECT, number, stale)
        known = progress.get(tx, DEFAULT_PROJECT, progress.AIM, run_id)
        assert known is not None
        progress.put(tx, DEFAULT_PROJECT, progress.AIM, run_id, msgspec.structs.replace(known, signature=""))

    store.kv.write(interrupt)

    report = import_aim(store, source)

    assert report.problems == []
    assert store.summary(IMAGES, key) == wanted


# ---- what is not brought


def test_a_run_that_is_here_already_stays_as_it_is(store: Store, source: Path) -> None:
    document = RunDocument(hash=SWEEP, name="mine", params=encode_tree({"mine": 1}))
    store.kv.write(lambda tx: runs.create(tx, DEFAULT_PROJECT, document))

    report = import_aim(store, source)

    (problem,) = report.problems
    assert problem == f"run {SWEEP}: a run of this hash is here already and did not come from Aim: nothing was changed"
    assert report.created == len(RUNS) - 1
    assert store.run(SWEEP).params == {"mine": 1}


def test_a_run_that_was_deleted_here_is_left_out(store: Store, source: Path) -> None:
    tombstone = Tombstone(mark=EditMark("log", 0), deleted_at_seconds=1.0, number=RunNumber(1))
    store.kv.write(lambda tx: tombstones.put(tx, DEFAULT_PROJECT, RunId(SWEEP), tombstone))

    report = import_aim(store, source)

    assert report.left_out == [f"run {SWEEP}: deleted here, so it is left out"]
    assert (report.created, report.problems) == (len(RUNS) - 1, [])


def test_only_the_named_experiments_are_brought(store: Store, source: Path) -> None:
    report = import_aim(store, source, experiments=["vision"])

    wanted = [run for run in DATASET["runs"] if run["experiment"] == "vision"]
    assert report.created == len(wanted)
    experiments = store.kv.read(lambda reader: catalog.experiments.list(reader, DEFAULT_PROJECT))
    assert [each.name for each in experiments] == ["vision"]


def test_only_runs_created_since_a_time_are_brought(store: Store, source: Path) -> None:
    since = sorted(run["created_at"] for run in DATASET["runs"])[20]

    report = import_aim(store, source, since_seconds=since)

    assert report.created == sum(run["created_at"] >= since for run in DATASET["runs"])


def test_an_unknown_experiment_is_named(store: Store, source: Path) -> None:
    with pytest.raises(ConfigurationError, match="has no experiment 'visoin'; it has 'default', 'vision'"):
        import_aim(store, source, experiments=["visoin"])


# ---- faults


def test_a_corrupted_run_costs_itself(store: Store, source: Path) -> None:
    for log in (source / ".aim" / "meta" / "chunks" / SWEEP).glob("MANIFEST-*"):
        log.write_bytes(b"not a manifest")

    report = import_aim(store, source)

    (problem,) = report.problems
    assert problem.startswith(f"run {SWEEP}: cannot open")
    assert (report.created, report.verified) == (len(RUNS) - 1, len(RUNS) - 1)


def test_a_run_whose_points_are_gone_is_named_and_keeps_its_params(store: Store, source: Path) -> None:
    shutil.rmtree(source / ".aim" / "seqs" / "chunks" / SWEEP)

    report = import_aim(store, source)

    assert report.problems
    assert all(problem.startswith(f"run {SWEEP}: ") for problem in report.problems)
    assert store.run(SWEEP).params["hparams"]["batch_size"] == 16


def test_points_that_the_source_has_lost_are_told(store: Store, tmp_path: Path) -> None:
    run_id = run_with_aim(KILLED, tmp_path / "aim").strip()
    (log,) = (tmp_path / "aim" / ".aim" / "seqs" / "chunks" / run_id).glob("*.log")
    os.truncate(log, log.stat().st_size // 2)

    report = import_aim(store, tmp_path / "aim")

    (problem,) = report.problems
    assert "the source is damaged: it noted points up to step 999, and they end at step" in problem
    assert len(store.points(run_id, LOSS)) > 100


KILLED = """
import os, sys, aim
run = aim.Run(repo=aim.Repo.from_path(sys.argv[1], init=True), system_tracking_interval=None, log_system_params=False,
              capture_terminal_logs=False)
for step in range(1000):
    run.track(float(step), name="loss", step=step, context={"subset": "train"})
run.meta_run_tree["end_time"] = 1700000000.0
print(run.hash, flush=True)
os._exit(0)
"""


def test_params_nested_too_deeply_cost_no_more_than_themselves(store: Store, tmp_path: Path) -> None:
    deep, plain = run_with_aim(NESTED, tmp_path / "aim").split()

    reports = [import_aim(store, tmp_path / "aim") for _ in range(2)]

    for report in reports:
        assert report.problems == [f"run {deep}: param 'deep': what is nested deeper than 100 levels was left out"]
        assert report.verified == 1
    assert store.run(deep).params == {"lr": 0.5, "deep": {"here": 1}}
    assert store.points(deep, LOSS).values.tolist() == [1.0]
    assert store.points(plain, LOSS).values.tolist() == [1.0]


NESTED = """
import sys, aim
repo = aim.Repo.from_path(sys.argv[1], init=True)
tree = 1
for _ in range(900):
    tree = {"k": tree}
for param in ({**tree, "here": 1}, 3):
    run = aim.Run(repo=repo, system_tracking_interval=None, log_system_params=False, capture_terminal_logs=False)
    run["lr"], run["deep"] = 0.5, param
    run.track(1.0, name="loss", step=0, context={"subset": "train"})
    run.close()
    print(run.hash)
"""


def test_contexts_that_cannot_be_told_apart_or_carried_are_told_of(store: Store, tmp_path: Path) -> None:
    run_id = run_with_aim(CONTEXTS, tmp_path / "aim").strip()

    report = import_aim(store, tmp_path / "aim")

    deep, twice = sorted(report.problems)
    assert deep == f"run {run_id}: 'deep': left out, the context is nested deeper than 100 levels"
    assert twice.startswith(f"run {run_id}: metric 'loss' of the context {{")
    assert "was left out: contexts are JSON here, whose keys are texts, so it is the same as the context {" in twice
    key = SequenceKey(Bucket.METRIC, "loss", '{"1":"x"}')
    assert store.points(run_id, key).values.tolist() in ([1.0], [2.0])
    assert store.points(run_id, SequenceKey(Bucket.METRIC, "other")).values.tolist() == [3.0]


CONTEXTS = """
import sys, aim
run = aim.Run(repo=aim.Repo.from_path(sys.argv[1], init=True), system_tracking_interval=None, log_system_params=False,
              capture_terminal_logs=False)
deep = "leaf"
for _ in range(150):
    deep = {"k": deep}
run.track(1.0, name="loss", step=0, context={1: "x"})
run.track(2.0, name="loss", step=0, context={"1": "x"})
run.track(3.0, name="other", step=0)
run.track(4.0, name="deep", step=0, context=deep)
run.close()
print(run.hash)
"""


def import_from(store: Store, repository: AimRepository) -> Report:
    work = AimImport(kv=store.kv, blobs=store.blobs, repository=repository, progress=ProgressLine(io.StringIO()))
    return work.run(Selection())


class Failing(AimRepository):
    """A repository one run of which fails as nobody thought of, from its n-th opening on."""

    def __init__(self, path: Path, run_id: str, error: BaseException, opening: int = 1) -> None:
        super().__init__(path)
        self._run_id, self._error, self._left = run_id, error, opening

    def open_run(self, row: AimRunRow) -> AimRunReader:
        self._left -= row.hash == self._run_id
        if self._left <= 0 and row.hash == self._run_id:
            raise self._error
        return super().open_run(row)


@pytest.mark.parametrize(("opening", "created"), [(1, len(RUNS) - 1), (2, len(RUNS))])
def test_an_unexpected_error_costs_its_run_alone(
    store: Store, source: Path, caplog: pytest.LogCaptureFixture, opening: int, created: int
) -> None:
    report = import_from(store, Failing(source, SWEEP, ZeroDivisionError("by nothing"), opening))

    assert report.problems == [f"run {SWEEP}: unexpected ZeroDivisionError: by nothing"]
    assert (report.created, report.verified) == (created, len(RUNS) - 1)
    (record,) = (record for record in caplog.records if record.name == "matyan.transfer.aim_import")
    assert SWEEP in record.message
    assert record.exc_info


@pytest.mark.parametrize("opening", [1, 2])
@pytest.mark.parametrize(
    "error",
    [UnavailableError("full"), ConfigurationError("no"), MemoryError("none left"), KeyboardInterrupt()],
    ids=repr,
)
def test_what_is_not_the_fault_of_a_run_ends_the_import(
    store: Store, source: Path, error: BaseException, opening: int
) -> None:
    with pytest.raises(type(error)):
        import_from(store, Failing(source, SWEEP, error, opening))


@pytest.mark.parametrize("damage", ["garbled", "missing"])
def test_a_damaged_table_costs_the_sequences_in_it(store: Store, source: Path, damage: str) -> None:
    (table,) = (source / ".aim" / "seqs" / "chunks" / SWEEP).glob("*.sst")
    if damage == "garbled":
        data = bytearray(table.read_bytes())
        data[1000:-10_000] = bytes(len(data) - 11_000)
        table.write_bytes(data)
    else:
        table.unlink()

    report = import_aim(store, source)

    assert report.problems
    assert all(problem.startswith(f"run {SWEEP}: ") for problem in report.problems)
    assert report.verified == len(RUNS) - 1
    assert store.run(SWEEP).params["hparams"]["batch_size"] == 16


def test_the_comparison_finds_a_point_that_differs(store: Store, source: Path) -> None:
    import_aim(store, source)
    plant_point(store)

    report = import_aim(store, source)

    (problem,) = report.problems
    assert problem.startswith(
        f'run {SWEEP}: metric \'loss\' {{"subset":"train"}}: 1 points differ, the first at step 3'
    )
    assert report.verified == len(RUNS) - 1


def plant_point(store: Store) -> None:
    ref = SequenceRef(store.number(SWEEP), LOSS)

    def plant(tx: KvTransaction) -> None:
        (opened_sequence,) = repository.open_many(tx, DEFAULT_PROJECT, [ref])
        points = Points([3], [123.0], None, [1])
        repository.append(tx, DEFAULT_PROJECT, ref, opened_sequence, points, dtype="float")

    store.kv.write(plant)


def test_the_comparison_finds_bytes_that_are_gone(store: Store, source: Path) -> None:
    import_aim(store, source)
    key = next(info.key for info in store.blobs.list(f"{DEFAULT_PROJECT}/{IMAGES}/"))
    store.blobs.delete(key)

    report = import_aim(store, source)

    assert [problem for problem in report.problems if "differs in its bytes" in problem]
    assert all(problem.startswith(f"run {IMAGES}: images") for problem in report.problems)
