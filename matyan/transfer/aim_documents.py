"""What people see and edit of an imported run: its document, experiment, tags and notes; made once, then merged.

A repeated import compares three states: what the source said last time, what it says now, and what is stored here. A
property that changed in the source since is taken over, unless it was edited here; everything else stays.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

import msgspec

from matyan.catalog import repository as catalog
from matyan.catalog.model import Experiment, Tag
from matyan.catalog.notes import Note, Notes, Owner, experiment_notes, run_notes
from matyan.catalog.repository import E, Entities
from matyan.engines.kv.protocol import KvReader, KvTransaction
from matyan.errors import MatyanError
from matyan.ids import Project, RunId, RunNumber, check_label
from matyan.runs import repository as runs
from matyan.runs import tombstones
from matyan.runs.entries import shape_digest
from matyan.runs.model import Artifact, RunDocument
from matyan.transfer import progress as progresses
from matyan.transfer.aim_catalog import AimExperiment, AimNote, AimTag
from matyan.transfer.aim_runs import AimRun
from matyan.transfer.progress import AIM, CATALOG, ImportProgress, NoteSeen, Seen
from matyan.wire.codec import encode_tree

DEFAULT_EXPERIMENT: Final = "default"
_MERGED: Final = ("name", "description", "archived")
_ALL: Final = frozenset(RunDocument.__struct_fields__)
_ENTITIES: Final[Mapping[type, Entities[Any]]] = {Experiment: catalog.experiments, Tag: catalog.tags}


class NotImportedError(MatyanError):
    """The run stays as it is here."""

    code = "conflict"


class DeletedHereError(NotImportedError):
    """It was deleted here, which an import does not undo."""


class Names(NamedTuple):
    """Experiments and tags of the source by name, with the ids under which they are made where they are unknown."""

    experiments: Mapping[str, AimExperiment]
    tags: Mapping[str, AimTag]
    default: AimExperiment
    """Where a run goes that belongs nowhere."""


class Begun(NamedTuple):
    """A run whose document is stored."""

    number: RunNumber
    created: bool
    progress: ImportProgress
    written: frozenset[str]
    """Fields of the document that are the source's since now; the others may have been edited here."""


def put_experiment(tx: KvTransaction, project: Project, experiment: AimExperiment) -> None:
    """Make an experiment that is unknown here, unless it was deleted here, and bring its notes."""
    known = progresses.get(tx, project, AIM, CATALOG) or ImportProgress()
    if _is_deleted(tx, project, catalog.experiments, experiment, known):
        return
    stored = _made(tx, project, Experiment, experiment)
    prefix = f"{experiment.id}/"
    seen = {key.removeprefix(prefix): note for key, note in known.notes.items() if key.startswith(prefix)}
    now = _put_notes(tx, project, experiment_notes, stored.id, experiment.notes, seen)
    notes = {**known.notes, **{f"{prefix}{key}": note for key, note in now.items()}}
    _put_catalog(tx, project, known, notes=notes, named=_with(known.named, [experiment.id]))


def put_tags(tx: KvTransaction, project: Project, tags: Iterable[AimTag]) -> None:
    """Make the tags that are unknown here, but for those that were deleted here."""
    known = progresses.get(tx, project, AIM, CATALOG) or ImportProgress()
    wanted = [tag for tag in tags if not _is_deleted(tx, project, catalog.tags, tag, known)]
    for tag in wanted:
        _made(tx, project, Tag, tag)
    _put_catalog(tx, project, known, named=_with(known.named, [tag.id for tag in wanted]))


def _with(named: Iterable[str], more: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted({*named, *more}))


def _put_catalog(tx: KvTransaction, project: Project, known: ImportProgress, **changes: Any) -> None:
    now = msgspec.structs.replace(known, **changes)
    if now != known:
        progresses.put(tx, project, AIM, CATALOG, now)


def begin_run(tx: KvTransaction, project: Project, run_id: RunId, run: AimRun, names: Names) -> Begun:
    """Store the document of a run, new or brought up to date, with its experiment, tags and notes.

    Raises:
        DeletedHereError: the run was deleted here.
        NotImportedError: a run of this hash is here and was not imported.
        InvalidArgumentError: a name is too long.
    """
    number, known = _state(tx, project, run_id)
    seen = seen_of(run)
    digest = params_digest(run)
    if number is None or known is None:
        document = _new_document(tx, project, run, names)
        number = runs.create(tx, project, document)
        _link(tx, project, number, document)
        _put_system_params(tx, project, number, run)
        notes = _put_notes(tx, project, run_notes, number, run.row.notes, {})
        written = _ALL
    else:
        (document_or_none,) = runs.read_documents(tx, project, [number])
        assert document_or_none is not None, "a run's number and document come and go together"
        changes = _merge(tx, project, document_or_none, run, known.seen, names)
        # Tags from here stay among those from there, so all of them together are nobody's.
        written = frozenset(changes) - {"tag_ids"}
        document = _replace(tx, project, number, document_or_none, changes)
        if digest != known.params_digest:
            document = _with_params(document, run)
            _put_system_params(tx, project, number, run)
        runs.put(tx, project, number, document)
        notes = _put_notes(tx, project, run_notes, number, run.row.notes, known.notes)
    progress = ImportProgress(number=number, seen=seen, params_digest=digest, notes=notes)
    progresses.put(tx, project, AIM, run_id, progress)
    return Begun(number, known is None, progress, written)


def seen_of(run: AimRun) -> Seen:
    """Return what a later import compares with."""
    row = run.row
    return Seen(row.name, row.description, row.archived, row.experiment, row.tags, run.end_time_seconds)


def params_digest(run: AimRun) -> bytes:
    """Return a digest of what the program said of the run: params and artifacts."""
    artifacts = [[each.path, each.uri, each.origin] for each in run.artifacts]
    return hashlib.blake2b(encode_tree([run.params, run.system_params, artifacts]), digest_size=16).digest()


def _state(tx: KvTransaction, project: Project, run_id: RunId) -> tuple[RunNumber | None, ImportProgress | None]:
    """Return the number of a run that was imported before, and how; two times None for a new one."""
    tombstone = tombstones.get(tx, project, run_id)
    number = runs.get_number(tx, project, run_id)
    known = progresses.get(tx, project, AIM, run_id)
    if number is None:
        if (known is None and tombstone is None) or (tombstone is not None and tombstone.is_cleared):
            return None, None
        raise DeletedHereError("deleted here, so it is left out")
    if known is None or known.number != number:
        raise NotImportedError("a run of this hash is here already and did not come from Aim: nothing was changed")
    return number, known


# ---- documents


def _new_document(tx: KvTransaction, project: Project, run: AimRun, names: Names) -> RunDocument:
    row = run.row
    if row.name is not None:
        check_label(row.name, "run name")
    experiment = _made(tx, project, Experiment, _named_experiment(row.experiment, names))
    document = RunDocument(
        hash=row.hash,
        name=row.name,
        description=row.description,
        experiment_id=experiment.id,
        tag_ids=tuple(dict.fromkeys(_made(tx, project, Tag, names.tags[name]).id for name in row.tags)),
        created_at_seconds=run.created_at_seconds,
        updated_at_seconds=row.updated_at_seconds or run.created_at_seconds,
        end_time_seconds=run.end_time_seconds,
        archived=row.archived,
        active=run.end_time_seconds is None,
    )
    return _with_params(document, run)


def _with_params(document: RunDocument, run: AimRun) -> RunDocument:
    artifacts: dict[str, Artifact] = {each.path: each for each in (*document.artifacts, *run.artifacts)}
    return msgspec.structs.replace(
        document,
        params=encode_tree(run.params),
        has_system_params=run.system_params is not None,
        system_shape=b"" if run.system_params is None else shape_digest(run.system_params),
        artifacts=tuple(artifacts.values()),
    )


def _put_system_params(tx: KvTransaction, project: Project, number: RunNumber, run: AimRun) -> None:
    if run.system_params is not None:
        runs.put_system_params(tx, project, number, encode_tree(run.system_params))


def _link(tx: KvTransaction, project: Project, number: RunNumber, document: RunDocument) -> None:
    place = document.place(number)
    if document.experiment_id is not None:
        catalog.experiments.link(tx, project, document.experiment_id, place)
    for tag_id in document.tag_ids:
        catalog.tags.link(tx, project, tag_id, place)


def _merge(
    tx: KvTransaction, project: Project, stored: RunDocument, run: AimRun, seen: Seen, names: Names
) -> dict[str, Any]:
    """Return the fields of the stored document that the source changes, with their values."""
    now = seen_of(run)
    changes: dict[str, Any] = {
        name: getattr(now, name)
        for name in _MERGED
        if getattr(now, name) != getattr(seen, name) and getattr(stored, name) == getattr(seen, name)
    }
    if now.end_time_seconds != seen.end_time_seconds:
        changes |= {"end_time_seconds": now.end_time_seconds, "active": now.end_time_seconds is None}
    changes |= _merge_experiment(tx, project, stored, seen, now, names)
    return changes | _merge_tags(tx, project, stored, seen, now, names)


def _replace(
    tx: KvTransaction, project: Project, number: RunNumber, stored: RunDocument, changes: Mapping[str, Any]
) -> RunDocument:
    """Return the changed document, with its experiment and tags linked to it."""
    document = msgspec.structs.replace(stored, **changes)
    place = document.place(number)
    if stored.experiment_id is not None and stored.experiment_id != document.experiment_id:
        catalog.experiments.unlink(tx, project, stored.experiment_id, place)
    for tag_id in set(stored.tag_ids) - set(document.tag_ids):
        catalog.tags.unlink(tx, project, tag_id, place)
    _link(tx, project, number, document)
    return document


def _merge_experiment(
    tx: KvTransaction, project: Project, stored: RunDocument, seen: Seen, now: Seen, names: Names
) -> dict[str, Any]:
    if now.experiment == seen.experiment:
        return {}
    before = None if seen.experiment is None else catalog.experiments.find(tx, project, seen.experiment)
    if before is None or before.id != stored.experiment_id:
        return {}  # moved or renamed here
    return {"experiment_id": _made(tx, project, Experiment, _named_experiment(now.experiment, names)).id}


def _merge_tags(
    tx: KvTransaction, project: Project, stored: RunDocument, seen: Seen, now: Seen, names: Names
) -> dict[str, Any]:
    attached = [_made(tx, project, Tag, names.tags[name]).id for name in now.tags if name not in seen.tags]
    gone = [catalog.tags.find(tx, project, name) for name in seen.tags if name not in now.tags]
    detached = {tag.id for tag in gone if tag is not None}
    tag_ids = dict.fromkeys((*(tag_id for tag_id in stored.tag_ids if tag_id not in detached), *attached))
    return {"tag_ids": tuple(tag_ids)}


# ---- names


def _named_experiment(name: str | None, names: Names) -> AimExperiment:
    return names.default if name is None else names.experiments[name]


def _made(tx: KvTransaction, project: Project, kind: type[E], source: AimExperiment | AimTag) -> E:
    """Return the experiment or tag of this name, else the one of this id, which was renamed here, else a new one."""
    entities: Entities[E] = _ENTITIES[kind]
    found = _find(tx, project, entities, source)
    if found is None:
        found = kind(**{name: getattr(source, name) for name in kind.__struct_fields__})
        entities.put(tx, project, found)
    return found


def find_known(reader: KvReader, project: Project, entities: Entities[E], source: AimExperiment | AimTag) -> E | None:
    """Return what an experiment or tag of the source is here: the one of its name, else the one of its id, or None."""
    return entities.find(reader, project, source.name) or entities.get(reader, project, source.id)


def _find(tx: KvTransaction, project: Project, entities: Entities[E], source: AimExperiment | AimTag) -> E | None:
    """Return what stands here for an experiment or tag of the source, None for nothing.

    Raises:
        NotImportedError: it was deleted here a moment ago, and runs may still be linked to its id.
    """
    check_label(source.name, "name of an experiment or tag")
    found = find_known(tx, project, entities, source)
    if found is None and entities.get_deletion(tx, project, source.id) is not None:
        raise NotImportedError(f"{source.name!r} is being deleted here: import again when that is done")
    return found


def _is_deleted(
    tx: KvTransaction, project: Project, entities: Entities[E], source: AimExperiment | AimTag, known: ImportProgress
) -> bool:
    if source.id not in known.named:
        return False
    return find_known(tx, project, entities, source) is None


# ---- notes


def _put_notes(
    tx: KvTransaction,
    project: Project,
    notes: Notes,
    owner: Owner,
    source: Iterable[AimNote],
    seen: Mapping[str, NoteSeen],
) -> dict[str, NoteSeen]:
    """Store notes that are new, and take over those that changed in the source and not here; return what was seen."""
    now = dict(seen)
    for note in source:
        known = seen.get(note.identity)
        if known is None:
            made = notes.create(tx, project, owner, note.content, note.created_at_seconds)
            if note.updated_at_seconds != made.updated_at_seconds:
                notes.put(tx, project, owner, _updated(made, note))
            now[note.identity] = NoteSeen(made.number, note.updated_at_seconds)
        elif note.updated_at_seconds != known.updated_at_seconds:
            stored = notes.get(tx, project, owner, known.number)
            if stored is not None and stored.updated_at_seconds == known.updated_at_seconds:
                notes.put(tx, project, owner, _updated(stored, note))
            now[note.identity] = NoteSeen(known.number, note.updated_at_seconds)
    return now


def _updated(stored: Note, note: AimNote) -> Note:
    return msgspec.structs.replace(stored, content=note.content, updated_at_seconds=note.updated_at_seconds)
