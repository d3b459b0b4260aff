"""What a slice needs of the store, read for all its runs at once.

A round trip for each run and each of its sequences would be most of a slice's time on a cluster, and the time of a
transaction is limited. Nothing is decided here: what is not foreseen is read when it is needed.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from matyan.catalog import repository as catalog
from matyan.ids import Project, RunNumber
from matyan.ingestion.batches import RunGroup
from matyan.ingestion.editing import DEFAULT_EXPERIMENT
from matyan.ingestion.objects import TERMINAL, Prepared
from matyan.runs import repository as runs
from matyan.runs.model import SYSTEM_PARAMS
from matyan.runs.repository import RunState
from matyan.sequences import repository as sequences
from matyan.sequences.repository import SequenceRef
from matyan.store import keyspace
from matyan.store.records import head_key
from matyan.store.remembered import RememberingTransaction
from matyan.wire.messages import AddTag, CreateRun, LogHparams, RemoveTag, SetRunProperty


class Member(NamedTuple):
    """A run of a slice, with what is known of it."""

    found: RunGroup
    prepared: Sequence[Prepared]
    state: RunState

    @property
    def is_sign(self) -> bool:
        """Whether the slice holds a sign of life and no more."""
        return not (self.found.events or self.found.points or self.prepared)

    @property
    def is_edited(self) -> bool:
        """Whether the run's document may change."""
        return self.state.number is None or self.state.is_crashed or bool(self.found.events)


def prefetch(tx: RememberingTransaction, members: Sequence[Member]) -> None:
    """Read what applying the groups will ask for, in a few round trips a project, however many runs there are.

    Args:
        members: without signs of life of unknown runs.
    """
    wanted: list[bytes] = []
    for project in dict.fromkeys(member.found.project for member in members):
        own = [member for member in members if member.found.project == project]
        catalog.experiments.find_many(tx, project, _experiment_names(own))
        catalog.tags.find_many(tx, project, _tag_names(own))
        for member, number in _numbered(tx, project, own):
            wanted += _keys(member, number)
    tx.get_many(wanted)


def _numbered(
    tx: RememberingTransaction, project: Project, members: Sequence[Member]
) -> Iterator[tuple[Member, RunNumber]]:
    """Yield each run with its number, new ones with the one that they are about to get."""
    upcoming: Iterator[RunNumber] | None = None
    for member in members:
        number = member.state.number
        if number is None:
            if upcoming is None:
                upcoming = map(RunNumber, itertools.count(runs.next_number(tx, project)))
            number = next(upcoming)
        yield member, number


def _keys(member: Member, number: RunNumber) -> list[bytes]:
    found, prepared, state = member
    project, kinds = found.project, {type(event.command) for event in found.events}
    items = dict.fromkeys(item.key for item in prepared)
    keys = sequences.open_keys(project, [SequenceRef(number, key) for key in found.points])
    keys += sequences.summary_keys(project, [SequenceRef(number, key) for key in items])
    if member.is_edited and state.number is not None:
        keys.append(head_key(keyspace.run_document(project, number)))
    if CreateRun in kinds or TERMINAL in items:
        keys.append(keyspace.terminal(project, number))
    if LogHparams in kinds and _has_system_params(found):
        keys.append(head_key(keyspace.system_params(project, number)))
    return keys


def _has_system_params(found: RunGroup) -> bool:
    return any(isinstance(event.command, LogHparams) and SYSTEM_PARAMS in event.command.value for event in found.events)


def _experiment_names(members: Sequence[Member]) -> list[str]:
    names = {
        event.command.experiment
        for member in members
        for event in member.found.events
        if isinstance(event.command, SetRunProperty) and event.command.experiment is not None
    }
    if any(member.state.number is None for member in members):
        names.add(DEFAULT_EXPERIMENT)
    return sorted(names)


def _tag_names(members: Sequence[Member]) -> list[str]:
    names = {
        event.command.tag_name
        for member in members
        for event in member.found.events
        if isinstance(event.command, AddTag | RemoveTag)
    }
    return sorted(names)
