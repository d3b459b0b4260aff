"""RunService: what is known of one run, its notes and files, and edits of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple, TypeVar

import msgspec

from matyan.blobs.service import BlobService
from matyan.catalog import repository as catalog
from matyan.catalog.model import Experiment
from matyan.catalog.notes import Note, run_notes
from matyan.clock import Clock, SystemClock
from matyan.engines.blob.protocol import BlobStream
from matyan.engines.kv.protocol import KvEngine, KvReader, KvTransaction
from matyan.errors import InvalidArgumentError, NotFoundError
from matyan.ids import DEFAULT_PROJECT, Project, RunId, RunNumber, make_id
from matyan.limits import LABEL_BYTES_MAX
from matyan.runs import repository
from matyan.runs.model import EditMark, Run, RunDocument
from matyan.sequences import repository as sequences
from matyan.sequences.model import Bucket, Summary

T = TypeVar("T")

MarkOf = Callable[[Project, RunId], EditMark]
"""Where the log of a run ends now; handed in, since the log's topics are not known here."""


QUEUED_PROPERTIES: Final = ("name", "description", "archived", "experiment")
"""What a run itself may have queued in the log when somebody edits it."""


class RunDetails(NamedTuple):
    """A run with the summaries of its sequences."""

    run: Run
    summaries: Sequence[Summary]


class RunEdit(msgspec.Struct, frozen=True, kw_only=True):
    """The properties to change; None leaves one as it is."""

    name: str | None = None
    description: str | None = None
    archived: bool | None = None
    active: bool | None = None
    experiment: str | None = None
    """A name; the experiment is made when unknown."""


class RunService:
    """Reads and edits of single runs. Every method raises NotFoundError for a run that is not there."""

    def __init__(
        self,
        *,
        kv: KvEngine,
        blobs: BlobService,
        clock: Clock | None = None,
        mark_of: MarkOf | None = None,
    ) -> None:
        self._kv = kv
        self._blobs = blobs
        self._clock = clock or SystemClock()
        self._mark_of = mark_of

    def details(
        self,
        run_id: RunId,
        *,
        buckets: Sequence[Bucket],
        system_params: bool,
        project: Project = DEFAULT_PROJECT,
    ) -> RunDetails:
        """Return a run and the summaries of its sequences of the given kinds."""

        def read(reader: KvReader) -> RunDetails:
            run = repository.find(reader, project, run_id, system_params=system_params)
            if run is None:
                raise NotFoundError("Run not found.")
            found: list[Summary] = []
            for bucket in buckets:
                found += sequences.list_summaries(reader, project, [run.number], bucket)[0]
            return RunDetails(run, found)

        return self._kv.read(read)

    def open_artifact(self, run_id: RunId, path: str, *, project: Project = DEFAULT_PROJECT) -> BlobStream:
        """Open a file of a run. Raises NotFoundError also when it has no such file."""
        self._kv.read(lambda reader: _number_of(reader, project, run_id))
        return self._blobs.open(run_id, path, project=project)

    # ---- notes

    def list_notes(self, run_id: RunId, *, project: Project = DEFAULT_PROJECT) -> list[Note]:
        """Return the notes of a run, the newest first."""
        return self._kv.read(lambda reader: run_notes.list(reader, project, _number_of(reader, project, run_id)))

    def get_note(self, run_id: RunId, number: int, *, project: Project = DEFAULT_PROJECT) -> Note:
        """Return a note. Raises NotFoundError also when the run has none of that number."""
        return self._kv.read(lambda reader: _note(reader, project, _number_of(reader, project, run_id), number))

    def create_note(self, run_id: RunId, content: str, *, project: Project = DEFAULT_PROJECT) -> Note:
        """Leave a note on a run."""
        now = self._clock.now_seconds()

        def write(tx: KvTransaction) -> Note:
            return run_notes.create(tx, project, _number_of(tx, project, run_id), content.strip(), now)

        return self._kv.write(write)

    def edit_note(self, run_id: RunId, number: int, content: str, *, project: Project = DEFAULT_PROJECT) -> Note:
        """Replace the text of a note."""
        now = self._clock.now_seconds()

        def write(tx: KvTransaction) -> Note:
            run_number = _number_of(tx, project, run_id)
            before = _note(tx, project, run_number, number)
            note = msgspec.structs.replace(before, content=content.strip(), updated_at_seconds=now)
            run_notes.put(tx, project, run_number, note)
            return note

        return self._kv.write(write)

    def delete_note(self, run_id: RunId, number: int, *, project: Project = DEFAULT_PROJECT) -> None:
        """Take a note away."""

        def write(tx: KvTransaction) -> None:
            run_number = _number_of(tx, project, run_id)
            _note(tx, project, run_number, number)
            run_notes.clear(tx, project, run_number, number)

        self._kv.write(write)

    # ---- edits

    def edit(self, run_id: RunId, edit: RunEdit, *, project: Project = DEFAULT_PROJECT) -> None:
        """Change properties of a run. Properties that the run itself queued before this are older and do not undo it.

        Raises:
            InvalidArgumentError: a name is too long.
        """
        for label in (edit.name, edit.experiment):
            if label is not None and len(label.encode(errors="surrogatepass")) > LABEL_BYTES_MAX:
                raise InvalidArgumentError(f"a name has more than {LABEL_BYTES_MAX} bytes")
        now, fresh_id = self._clock.now_seconds(), make_id()
        mark = None if self._mark_of is None else self._mark_of(project, run_id)

        def write(tx: KvTransaction) -> None:
            number = _number_of(tx, project, run_id)
            (document,) = repository.read_documents(tx, project, [number])
            if document is None:
                raise NotFoundError("Not Found")
            _apply_edit(document, edit, now)
            if edit.experiment is not None:
                fresh = Experiment(id=fresh_id, name=edit.experiment.strip(), created_at_seconds=now)
                _move(tx, project, number, document, fresh)
            if mark is not None:
                document.edits |= {name: mark for name in QUEUED_PROPERTIES if getattr(edit, name) is not None}
            repository.put(tx, project, number, document)

        self._kv.write(write)


def _number_of(reader: KvReader, project: Project, run_id: RunId) -> RunNumber:
    number = repository.get_number(reader, project, run_id)
    if number is None:
        raise NotFoundError("Not Found")
    return number


def _note(reader: KvReader, project: Project, owner: RunNumber, number: int) -> Note:
    note = run_notes.get(reader, project, owner, number)
    if note is None:
        raise NotFoundError(f"Note with id {number} is not found in this run.")
    return note


def _apply_edit(document: RunDocument, edit: RunEdit, now_seconds: float) -> None:
    document.updated_at_seconds = now_seconds
    if edit.name is not None:
        document.name = edit.name.strip()
    if edit.description is not None:
        document.description = edit.description.strip()
    if edit.archived is not None:
        document.archived = edit.archived
    if edit.active is not None:
        document.active = edit.active
        if edit.active:
            document.end_time_seconds = None
        elif document.end_time_seconds is None:
            document.end_time_seconds = now_seconds


def _move(tx: KvTransaction, project: Project, number: RunNumber, document: RunDocument, fresh: Experiment) -> None:
    """Move a run to the experiment of the name of `fresh`, which is stored when there is none."""
    experiment = catalog.experiments.find(tx, project, fresh.name)
    if experiment is None:
        experiment = fresh
        catalog.experiments.put(tx, project, experiment)
    if document.experiment_id not in (None, experiment.id):
        catalog.experiments.unlink(tx, project, document.experiment_id, number)
    document.experiment_id = experiment.id
    catalog.experiments.link(tx, project, experiment.id, number)
