"""RunService: what is known of one run, its notes and files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import msgspec

from matyan.blobs.service import BlobService
from matyan.catalog.notes import Note, run_notes
from matyan.clock import Clock, SystemClock
from matyan.engines.blob.protocol import BlobStream
from matyan.engines.kv.protocol import KvEngine, KvReader, KvTransaction
from matyan.errors import NotFoundError
from matyan.ids import DEFAULT_PROJECT, Project, RunId, RunNumber
from matyan.runs import repository
from matyan.runs.artifacts import entry_names, zip_pieces
from matyan.runs.model import Run
from matyan.sequences import repository as sequences
from matyan.sequences.model import Bucket, Summary


class RunDetails(NamedTuple):
    """A run with the summaries of its sequences."""

    run: Run
    summaries: Sequence[Summary]


class RunService:
    """Reads of single runs, and their notes. Every method raises NotFoundError for a run that is not there."""

    def __init__(
        self,
        *,
        kv: KvEngine,
        blobs: BlobService,
        clock: Clock | None = None,
    ) -> None:
        self._kv = kv
        self._blobs = blobs
        self._clock = clock or SystemClock()

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

    def zip_artifacts(self, run_id: RunId, *, project: Project = DEFAULT_PROJECT) -> Iterator[bytes]:
        """Return the files of a run as the pieces of a ZIP; files that the store does not hold are listed in it.

        Raises:
            NotFoundError: also when there is no file to send; raised by the first piece at the latest.
        """
        run = self._kv.read(lambda reader: repository.find(reader, project, run_id))
        if run is None:
            raise NotFoundError("Run not found.")
        paths = sorted(artifact.path for artifact in run.document.artifacts)
        if not paths:
            raise NotFoundError("the run has no artifacts")
        return zip_pieces(self._blobs.open_many(run_id, paths, project=project), entry_names(paths))

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
