"""`matyan import aim`: brings the runs of an Aim repository here, one after another, and compares them in the end."""

from __future__ import annotations

import enum
import logging
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Final, NamedTuple

import msgspec

from matyan.clock import SystemClock
from matyan.engines.blob.protocol import BlobEngine
from matyan.engines.kv.protocol import KvEngine
from matyan.errors import ConfigurationError, InvalidArgumentError, MatyanError, UnavailableError
from matyan.ids import DEFAULT_PROJECT, Project, RunId, RunNumber, check_run_id, make_id
from matyan.runs import repository as runs
from matyan.transfer import aim_documents
from matyan.transfer import progress as progresses
from matyan.transfer.aim_catalog import AimExperiment, AimRunRow
from matyan.transfer.aim_chunks import AimDataError
from matyan.transfer.aim_documents import Begun, DeletedHereError, Names
from matyan.transfer.aim_points import PointImport
from matyan.transfer.aim_source import AimRepository, AimRunReader
from matyan.transfer.progress import AIM
from matyan.transfer.reporting import ProgressLine
from matyan.transfer.verify import DIFFERENCES_MAX, RunCheck
from matyan.transfer.writing import Batch, RunGoneError

logger = logging.getLogger(__name__)

_ATTEMPTS: Final = 3
_FATAL: Final = (UnavailableError, ConfigurationError, MemoryError)
"""What is wrong with the store or the machine, and would be with every other run too."""


class Selection(NamedTuple):
    """Which runs to bring."""

    experiments: Collection[str] = ()
    """Names; none: all."""
    since_seconds: float | None = None
    """Created at this time or later."""

    def wants(self, row: AimRunRow) -> bool:
        """Return whether a run is to be brought."""
        if self.experiments and row.experiment not in self.experiments:
            return False
        return self.since_seconds is None or (row.created_at_seconds or 0.0) >= self.since_seconds

    @property
    def is_all(self) -> bool:
        """Whether every run is wanted."""
        return not self.experiments and self.since_seconds is None


class Report(msgspec.Struct):
    """What an import did."""

    created: int = 0
    updated: int = 0
    unchanged: int = 0
    points: int = 0
    seconds: float = 0.0
    verified: int = 0
    verified_points: int = 0
    left_out: list[str] = msgspec.field(default_factory=list)
    """Runs deleted here, or still being written there: as it should be."""
    problems: list[str] = msgspec.field(default_factory=list)
    """What did not arrive, and what differs."""

    def lines(self) -> list[str]:
        """Return the report for a human."""
        found = self.created + self.updated + self.unchanged
        if not found + len(self.left_out) + len(self.problems):
            return ["no runs to import"]
        imported = (
            f"imported {found:,} runs in {self.seconds:.1f} s: {self.created:,} new, {self.updated:,} brought up to "
            f"date, {self.unchanged:,} as they were; {self.points:,} points and objects read"
        )
        compared = (
            f"compared with the source, row by row: {self.verified:,} of {found:,} runs equal, "
            f"{self.verified_points:,} points and objects"
        )
        left_out = [f"left out: {text}" for text in self.left_out]
        return [imported, *left_out, compared, *(f"wrong: {text}" for text in self.problems)]


class _Outcome(enum.Enum):
    """What became of a run."""

    CREATED = enum.auto()
    UPDATED = enum.auto()
    UNCHANGED = enum.auto()


class _Brought(NamedTuple):
    """A run that is here, or in the batch that waits to be written."""

    row: AimRunRow
    run_id: RunId
    number: RunNumber
    outcome: _Outcome
    written: frozenset[str]
    """Fields of its document that were taken from the source just now."""
    signature: str


class AimImport:
    """One import of one repository into one project."""

    def __init__(
        self,
        *,
        kv: KvEngine,
        blobs: BlobEngine,
        repository: AimRepository,
        progress: ProgressLine,
        project: Project = DEFAULT_PROJECT,
    ) -> None:
        self._kv = kv
        self._blobs = blobs
        self._repository = repository
        self._progress = progress
        self._project = project
        self._batch = Batch(kv, project)
        self._report = Report()

    def run(self, selection: Selection) -> Report:
        """Bring the selected runs, oldest first, then compare them with the source.

        Everything may be interrupted at any moment and repeated: what is here is not written again.

        Raises:
            ConfigurationError: an experiment of that name is not in the repository.
            UnavailableError: an engine cannot work now.
        """
        _check_experiments(self._repository, selection)
        rows = [row for row in self._repository.runs() if selection.wants(row)]
        names = self._bring_names(rows, selection)
        self._progress.begin("imported", len(rows))
        arrived = self._bring_runs(rows, names)
        self._kv.sync()  # what the machine loses with its power before this is the end of the import, and comes again
        self._progress.end()
        self._report.points, self._report.seconds = self._progress.points, self._progress.seconds
        self._progress.begin("verified", len(arrived))
        for run in arrived:
            self._verify(run, names)
            self._progress.count_run()
        self._progress.end()
        self._report.verified_points = self._progress.points
        return self._report

    # ---- bringing

    def _bring_names(self, rows: Sequence[AimRunRow], selection: Selection) -> Names:
        """Make experiments and tags that are unknown here: all of them, or those that the selected runs have."""
        catalog = self._repository.catalog
        wanted = {row.experiment for row in rows} | set(selection.experiments)
        attached = {name for row in rows for name in row.tags}
        experiments = [each for each in catalog.experiments if selection.is_all or each.name in wanted]
        tags = [each for each in catalog.tags if selection.is_all or each.name in attached]
        for experiment in experiments:
            self._put_experiment(experiment)
        self._kv.write(lambda tx: aim_documents.put_tags(tx, self._project, tags), durable=False)
        by_name = {each.name: each for each in catalog.experiments}
        default = by_name.get(aim_documents.DEFAULT_EXPERIMENT) or _make_default(rows)
        return Names(by_name, {each.name: each for each in catalog.tags}, default)

    def _put_experiment(self, experiment: AimExperiment) -> None:
        self._kv.write(lambda tx: aim_documents.put_experiment(tx, self._project, experiment), durable=False)

    def _bring_runs(self, rows: Sequence[AimRunRow], names: Names) -> list[_Brought]:
        """Bring runs and return those that are here."""
        brought = []
        for row in rows:
            with self._costing_only(row):
                brought.append(self._bring_steadily(row, names))
            self._progress.count_run()
        self._batch.flush()
        return [run for run in brought if self._has_arrived(run)]

    def _has_arrived(self, run: _Brought) -> bool:
        """Count a run whose batch is written; False, and told of, when something kept it from that."""
        with self._costing_only(run.row):
            self._batch.check(run.number)
            self._report.created += run.outcome is _Outcome.CREATED
            self._report.updated += run.outcome is _Outcome.UPDATED
            self._report.unchanged += run.outcome is _Outcome.UNCHANGED
            return True
        return False

    @contextmanager
    def _costing_only(self, row: AimRunRow) -> Iterator[None]:
        """Tell of what goes wrong with one run; whatever it holds, it costs no other one."""
        try:
            yield
        except _FATAL:
            raise
        except (DeletedHereError, RunGoneError) as error:
            self._leave_out(row, error.message)
        except Exception as error:  # noqa: BLE001 - what nobody thought of is wrong with this run alone
            self._complain(row, _explain(row, error))

    def _bring_steadily(self, row: AimRunRow, names: Names) -> _Brought:
        """Bring one run; when files vanish because the source writes to it just now, begin again."""
        for _ in range(_ATTEMPTS - 1):
            before = self._repository.signature(row)
            try:
                return self._bring_run(row, names)
            except AimDataError:
                if self._repository.signature(row) == before:
                    raise
                self._batch.flush()  # what was read of it stands, and is compared with what is read next
        return self._bring_run(row, names)

    def _bring_run(self, row: AimRunRow, names: Names) -> _Brought:
        """Bring one run.

        Raises:
            MatyanError: the run cannot be brought at all; a sequence that cannot be read is complained of.
        """
        run_id = check_run_id(row.hash)
        signature = self._repository.signature(row)
        known = self._kv.read(lambda reader: progresses.get(reader, self._project, AIM, run_id))
        if known is not None and known.signature == signature and self._is_here(run_id, known.number):
            return _Brought(row, run_id, known.number, _Outcome.UNCHANGED, frozenset(), signature)
        reader = self._repository.open_run(row)
        begun = self._kv.write(
            lambda tx: aim_documents.begin_run(tx, self._project, run_id, reader.run, names), durable=False
        )
        self._bring_points(reader, row, run_id, begun, signature)
        outcome = _Outcome.CREATED if begun.created else _Outcome.UPDATED
        return _Brought(row, run_id, begun.number, outcome, begun.written, signature)

    def _bring_points(self, reader: AimRunReader, row: AimRunRow, run_id: RunId, begun: Begun, signature: str) -> None:
        points = PointImport(
            kv=self._kv,
            blobs=self._blobs,
            project=self._project,
            run_id=run_id,
            number=begun.number,
            reader=reader,
            count=self._progress.count_points,
            batch=self._batch,
        )
        is_whole = True
        for sequence in reader.run.sequences:
            try:
                points.bring(sequence)
            except (AimDataError, InvalidArgumentError) as error:  # it costs this sequence, not its neighbours
                if isinstance(error, AimDataError) and self._repository.signature(row) != signature:
                    raise
                is_whole = False
                self._complain(row, f"{sequence.key.name!r}: {error.message}")
        done = msgspec.structs.replace(begun.progress, signature=signature if is_whole else "")
        points.writer.add(lambda tx: progresses.put(tx, self._project, AIM, run_id, done), 0)

    def _is_here(self, run_id: RunId, number: int) -> bool:
        return self._kv.read(lambda reader: runs.get_number(reader, self._project, run_id)) == number

    # ---- comparing

    def _verify(self, run: _Brought, names: Names) -> None:
        try:
            found = self._differences(run, names)
        except _FATAL:
            raise
        except Exception as error:  # noqa: BLE001 - as when it was brought
            found = [_explain(run.row, error)]
        if found and self._repository.signature(run.row) != run.signature:
            self._leave_out(run.row, "the source writes to it still, so it was not compared; import again later")
            return
        self._report.verified += not found
        for text in found[:DIFFERENCES_MAX]:
            self._complain(run.row, text)
        if len(found) > DIFFERENCES_MAX:
            self._complain(run.row, "and more differences")

    def _differences(self, run: _Brought, names: Names) -> list[str]:
        check = RunCheck(
            kv=self._kv,
            blobs=self._blobs,
            project=self._project,
            run_id=run.run_id,
            reader=self._repository.open_run(run.row),
            names=names,
            count=self._progress.count_points,
        )
        return list(islice(check.differences(run.written), DIFFERENCES_MAX + 1))

    # ---- telling

    def _leave_out(self, row: AimRunRow, text: str) -> None:
        self._report.left_out.append(f"run {row.hash}: {text}")
        self._progress.note(self._report.left_out[-1])

    def _complain(self, row: AimRunRow, text: str) -> None:
        self._report.problems.append(f"run {row.hash}: {text}")
        self._progress.note(self._report.problems[-1])


def _explain(row: AimRunRow, error: Exception) -> str:
    if isinstance(error, MatyanError):
        return error.message
    logger.error("the run %s cannot be imported", row.hash, exc_info=error)
    return f"unexpected {type(error).__name__}: {error}"


def _make_default(rows: Sequence[AimRunRow]) -> AimExperiment:
    """Return the experiment for runs that belong nowhere, as old as the oldest of them; `rows` in order of creation."""
    times = (row.created_at_seconds for row in rows if row.experiment is None)
    made_at = next(filter(None, times), None) or SystemClock().now_seconds()
    return AimExperiment(make_id(), aim_documents.DEFAULT_EXPERIMENT, None, False, made_at, ())


def _check_experiments(repository: AimRepository, selection: Selection) -> None:
    known = [each.name for each in repository.catalog.experiments]
    unknown = [name for name in selection.experiments if name not in known]
    if unknown:
        raise ConfigurationError(
            f"the Aim repository {repository.home} has no experiment {', '.join(map(repr, unknown))}; "
            f"it has {', '.join(map(repr, known)) or 'none'}"
        )
