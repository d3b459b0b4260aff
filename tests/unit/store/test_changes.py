"""The change feed tells every committed change, in the order of commits, until it is trimmed."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from matyan.catalog import repository as catalog
from matyan.engines.kv.embedded import EmbeddedKv
from matyan.engines.kv.protocol import KvEngine, KvTransaction
from matyan.ids import DEFAULT_PROJECT, Project, RunNumber
from matyan.runs import repository as runs
from matyan.store import changes
from matyan.store.subspaces import Subspace
from tests.support.store import make_experiment, make_run, make_tag

OTHER = Project("other")
KEEP_SECONDS = 60.0


def note(kv: KvEngine, *numbers: int, project: Project = DEFAULT_PROJECT) -> None:
    """Commit some notes in one transaction."""

    def write(tx: KvTransaction) -> None:
        for number in numbers:
            changes.note(tx, project, Subspace.RUNS, number)

    kv.write(write, durable=False)


def read(kv: KvEngine, since: bytes | None = None, *, project: Project = DEFAULT_PROJECT) -> list[changes.Change]:
    return kv.read(lambda reader: changes.read(reader, project, since=since, rows_max=1000))


def told(kv: KvEngine, since: bytes | None = None) -> list[tuple[Subspace, int | str]]:
    return [(one.space, one.id) for one in read(kv, since)]


def test_notes_come_in_the_order_of_commits_those_of_one_by_number(kv: KvEngine) -> None:
    note(kv, 300, 2)
    note(kv, 2**40, 2, 2)
    note(kv, 1)

    assert [one.id for one in read(kv)] == [2, 300, 2, 2**40, 1]


def test_a_project_has_a_feed_of_its_own(kv: KvEngine) -> None:
    note(kv, 1)
    note(kv, 2, project=OTHER)

    assert [one.id for one in read(kv, project=OTHER)] == [2]


def test_reading_on_begins_with_the_note_seen_last(kv: KvEngine) -> None:
    note(kv, 1)
    place = kv.read(lambda reader: changes.newest(reader, DEFAULT_PROJECT))
    note(kv, 2)

    found = read(kv, place)

    assert [one.id for one in found] == [1, 2]
    assert found[0].place == place


def test_a_feed_without_notes_has_no_newest_one(kv: KvEngine) -> None:
    assert kv.read(lambda reader: changes.newest(reader, DEFAULT_PROJECT)) is None
    assert read(kv) == []


def test_what_is_rolled_back_was_no_change(kv: KvEngine) -> None:
    def write(tx: KvTransaction) -> None:
        changes.note(tx, DEFAULT_PROJECT, Subspace.RUNS, 1)
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        kv.write(write)

    assert read(kv) == []


# ---- who notes


def change_run(kv: KvEngine, number: RunNumber, change: Callable[..., None]) -> None:
    def write(tx: KvTransaction) -> None:
        (document,) = runs.read_documents(tx, DEFAULT_PROJECT, [number])
        assert document is not None
        change(tx, DEFAULT_PROJECT, number, document)

    kv.write(write, durable=False)


def test_runs_note_that_they_are_made_changed_and_deleted(kv: KvEngine) -> None:
    number = make_run(kv, "a", experiment=None)
    change_run(kv, number, runs.put)
    change_run(kv, number, runs.clear)

    assert told(kv) == [(Subspace.RUNS, number)] * 3


def test_experiments_and_tags_note_that_they_are_made_renamed_and_deleted(kv: KvEngine) -> None:
    made = make_experiment(kv, "e"), make_tag(kv, "t")
    renamed = made[0].__class__(id=made[0].id, name="f")
    kv.write(lambda tx: catalog.experiments.replace(tx, DEFAULT_PROJECT, made[0], renamed))
    kv.write(lambda tx: catalog.tags.begin_deletion(tx, DEFAULT_PROJECT, made[1], deletes_runs=False))

    experiment, tag = (Subspace.EXPERIMENTS, made[0].id), (Subspace.TAGS, made[1].id)
    assert told(kv) == [experiment, tag, experiment, tag]


# ---- trimming


def trim(kv: KvEngine, now_seconds: float) -> int:
    return changes.trim(kv, DEFAULT_PROJECT, now_seconds=now_seconds, keep_seconds=KEEP_SECONDS)


def test_notes_are_trimmed_once_they_are_old_and_not_before(kv: KvEngine) -> None:
    note(kv, 1, 2)
    note(kv, 3)
    trim(kv, 1000.0)
    note(kv, 4)

    assert trim(kv, 1059.0) == 0
    assert trim(kv, 1060.0) == 2
    assert [one.id for one in read(kv)] == [3, 4]
    assert trim(kv, 1119.0) == 0
    assert trim(kv, 1120.0) == 1
    assert [one.id for one in read(kv)] == [4]


def test_the_newest_note_stays_for_ever(kv: KvEngine) -> None:
    note(kv, 1)
    for seconds in range(0, 10_000, 1000):
        trim(kv, float(seconds))

    assert [one.id for one in read(kv)] == [1]


def test_nothing_is_trimmed_of_a_feed_that_has_not_begun(kv: KvEngine) -> None:
    assert trim(kv, 0.0) == trim(kv, 1000.0) == 0


def test_a_clock_that_was_set_back_delays_trimming_but_does_not_end_it(kv: KvEngine) -> None:
    note(kv, 1)
    trim(kv, 1e6)
    note(kv, 2)

    assert trim(kv, 1000.0) == 0
    assert trim(kv, 1059.0) == 0
    assert trim(kv, 1061.0) == 1


def test_a_long_feed_is_trimmed_in_several_transactions(engine: EmbeddedKv, kv: KvEngine) -> None:
    for begin in range(0, 25_000, 5000):
        note(engine, *range(begin, begin + 5000))
    trim(engine, 0.0)

    assert trim(engine, KEEP_SECONDS) == 24_999
    assert [one.id for one in read(kv)] == [24_999]
