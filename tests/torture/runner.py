"""One torture from start to report."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.support.scripts import ROOT
from tests.torture.checker import Edits, Finding, Tally, check_all
from tests.torture.deployments import DEPLOYMENTS, Deployment
from tests.torture.editor import Editor
from tests.torture.faults import Injector
from tests.torture.journal import Journals, read_journals
from tests.torture.leftovers import left_among_files, left_in_store, lost_files
from tests.torture.patience import PatientRest
from tests.torture.processes import environment, python_module
from tests.torture.schedule import Fault, make_schedule

ARTIFACTS: Final = ROOT / "build-artifacts"
WRITERS_END_SECONDS_MAX: Final = 150.0
WORK_SECONDS_MAX: Final = 300.0
"""How long writers may take, when nothing is broken any more, for what is still to be acknowledged."""
WORK_PAUSE_SECONDS: Final = 0.5
CATCH_UP_SECONDS: Final = 60.0
"""How long what is not yet right is read again."""
FINDINGS_SHOWN_MAX: Final = 20


@dataclass(frozen=True)
class Plan:
    """What is asked for."""

    seed: int
    seconds: float
    deployment: str
    writers: int
    clients: int
    life_seconds: float = 25.0
    """About how long one run is written."""
    kv_faults: bool = True
    acknowledged_min: int = 0
    """Writers go on beyond `seconds` until so many frames are acknowledged of runs that nobody deleted: what a machine
    does in some seconds is its own affair."""

    def command(self) -> str:
        """Return the command that does the same again."""
        return (
            f"python -m tests.torture --seed {self.seed} --minutes {self.seconds / 60:g}"
            f" --deployment {self.deployment} --writers {self.writers} --clients {self.clients}"
            f" --life {self.life_seconds:g} --acknowledged {self.acknowledged_min}"
            f"{'' if self.kv_faults else ' --no-kv-faults'}"
        )


@dataclass
class Report:
    """What came of it."""

    plan: Plan
    schedule: Sequence[Fault]
    tally: Tally
    injected: Mapping[str, int]
    client_losses: Mapping[str, int]
    """What the released client itself gave up, by its documented limits."""
    deaths: Mapping[str, Sequence[int]]
    """Processes that ended by themselves, with their exit codes."""
    seconds: Mapping[str, float]
    """Phase -> how long it took."""
    errors: Sequence[str] = field(default_factory=list)

    @property
    def is_good(self) -> bool:
        """Whether every promise was kept."""
        return not self.tally.findings and not self.errors


class _Watch:
    """Seconds of each phase."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._begin = time.monotonic()

    def note(self, phase: str) -> None:
        """Say that a phase has ended now."""
        now = time.monotonic()
        self.seconds[phase], self._begin = now - self._begin, now


def schedule_of(plan: Plan) -> list[Fault]:
    """Return the faults of a plan; a short one has them closer together, so that each kind occurs."""
    kind = DEPLOYMENTS[plan.deployment]
    gap_seconds = min(kind.gap_seconds, plan.seconds / (len(kind.choices) + 1))
    return make_schedule(plan.seed, plan.seconds, kind.choices, gap_seconds)


def torture(plan: Plan, folder: Path) -> Report:
    """Write, break, mend, and check."""
    watch = _Watch()
    journals_folder = folder / "journals"
    journals_folder.mkdir(parents=True)
    with DEPLOYMENTS[plan.deployment](folder, plan.seed, kv_faults=plan.kv_faults) as deployment:
        schedule = schedule_of(plan)
        deployment.start()
        watch.note("start")
        edits, injector, errors = _write_and_break(plan, deployment, schedule, journals_folder)
        watch.note("write")
        journals = read_journals(journals_folder)
        tally = _check(deployment, journals, edits, watch)
        return Report(
            plan,
            schedule,
            tally,
            {**injector.injected, **deployment.kv_fault_counts()},
            _client_losses(journals),
            {name: process.deaths for name, process in deployment.processes.items() if process.deaths},
            watch.seconds,
            [*errors, *injector.errors],
        )


def keep_evidence(folder: Path, seed: int) -> Path:
    """Copy logs and journals to where a failing run leaves them; return that folder."""
    kept = ARTIFACTS / f"torture-{seed}"
    shutil.rmtree(kept, ignore_errors=True)
    kept.mkdir(parents=True)
    for path in [*folder.glob("*.log"), *folder.glob("kafka/*.log"), *folder.glob("journals/*")]:
        shutil.copy(path, kept / path.name)
    return kept


def describe(report: Report) -> str:
    """Return the report as text."""
    tally = report.tally
    losses, twice = tally.count("lost", "torn"), tally.count("twice", "ghost")
    answers = f"acknowledged {tally.acknowledged}, refused {tally.refused}"
    unanswered = f"without an answer and present {tally.present}, absent {tally.absent}"
    wrong = f"wrong {tally.count('wrong', 'order')}, dead ones back {tally.count('undead')}"
    lines = [
        f"seed {report.plan.seed}, deployment {report.plan.deployment}, {sum(report.seconds.values()):.0f} seconds",
        ", ".join(f"{phase} {seconds:.0f} s" for phase, seconds in report.seconds.items()),
        f"faults injected: {sum(report.injected.values())}",
        *(f"  {count:5} x {name}" for name, count in sorted(report.injected.items())),
        f"runs {tally.runs}, of them deleted while written {tally.deleted_runs}",
        f"frames sent {tally.frames}, {answers}; {unanswered}",
        f"items checked {tally.items}",
        f"losses {losses}, duplicates {twice}, {wrong}, orphans {tally.count('orphan')}",
    ]
    lines += [f"the client gave up: {count} x {what}" for what, count in sorted(report.client_losses.items())]
    lines += [f"ended by itself: {name} with {list(codes)}" for name, codes in report.deaths.items()]
    lines += [f"harness: {error}" for error in report.errors]
    lines += [f"{found.kind}: {found.run}: {found.text}" for found in tally.findings[:FINDINGS_SHOWN_MAX]]
    if not report.is_good:
        lines.append(f"again: {report.plan.command()}")
    return "\n".join(lines)


def _write_and_break(
    plan: Plan, deployment: Deployment, schedule: Sequence[Fault], journals: Path
) -> tuple[Edits, Injector, list[str]]:
    """Let writers write and an editor edit while faults happen; return when all have ended and everything is mended."""
    injector = Injector(deployment, schedule)
    editor = Editor(deployment.api, plan.seed)
    errors: list[str] = []
    with _writing(plan, deployment, journals) as writers:
        editor.start()
        injector.start()
        time.sleep(plan.seconds)
        errors += _wait_for_work(plan, journals, editor.edits)
        injector.finish()
        deployment.wait_until_ready()
        _end(writers, errors)
    deployment.wait_until_idle()
    editor.finish()
    return editor.edits, injector, errors


def _wait_for_work(plan: Plan, journals: Path, edits: Edits) -> Iterator[str]:
    """Wait until as much is acknowledged as is asked for; yield what is wrong when it never is."""
    deadline = time.monotonic() + WORK_SECONDS_MAX
    while (count := _acknowledged(journals, edits)) < plan.acknowledged_min:
        if time.monotonic() > deadline:
            yield f"only {count} of {plan.acknowledged_min} frames are acknowledged {WORK_SECONDS_MAX:.0f} s too late"
            return
        time.sleep(WORK_PAUSE_SECONDS)


def _acknowledged(journals: Path, edits: Edits) -> int:
    """Count the frames acknowledged so far of runs that nobody deleted."""
    return sum(frame.acknowledged and frame.run not in edits.deleted for frame in read_journals(journals).frames)


@contextlib.contextmanager
def _writing(plan: Plan, deployment: Deployment, journals: Path) -> Iterator[list[subprocess.Popen[bytes]]]:
    seed, life = str(plan.seed), str(plan.life_seconds)
    commands = [
        python_module("tests.torture.raw_writers", seed, str(journals), str(plan.writers), life, *deployment.frontiers)
    ]
    for number in range(plan.clients):
        frontier = deployment.frontiers[number % len(deployment.frontiers)]
        arguments = (seed, str(journals), str(number), life, deployment.api, frontier)
        commands.append(python_module("tests.torture.client_writer", *arguments))
    extra = {"LOGURU_LEVEL": "WARNING", "SSL_CERT_DIR": str(journals), "SSL_CERT_FILE": ""}
    processes = []
    try:
        for number, command in enumerate(commands):
            with (deployment.folder / f"writer-{number}.log").open("wb") as log:
                processes.append(
                    subprocess.Popen(
                        command,
                        cwd=ROOT,
                        env=environment(extra),
                        stdin=subprocess.PIPE,
                        stdout=log,
                        stderr=log,
                        start_new_session=True,
                    )
                )
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.wait()
            assert process.stdin is not None
            process.stdin.close()


def _end(writers: Sequence[subprocess.Popen[bytes]], errors: list[str]) -> None:
    """Tell writers to finish what they write, and wait for it."""
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.close()
    deadline = time.monotonic() + WRITERS_END_SECONDS_MAX
    for number, writer in enumerate(writers):
        try:
            code = writer.wait(max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            code = None
        if code != 0:
            errors.append(f"writer {number} {'does not end' if code is None else f'ended with {code}'}")


def _check(deployment: Deployment, journals: Journals, edits: Edits, watch: _Watch) -> Tally:
    with PatientRest(deployment.api) as rest:
        tally = check_all(rest, journals, edits, seconds=CATCH_UP_SECONDS)
    watch.note("check")
    deployment.stop()
    watch.note("stop")
    if complaint := deployment.sweep():
        tally.findings.append(Finding("orphan", "-", complaint))
    tally.findings += _leftovers(deployment, journals, edits)
    watch.note("sweep")
    return tally


def _leftovers(deployment: Deployment, journals: Journals, edits: Edits) -> Iterator[Finding]:
    kv = deployment.open_kv()
    try:
        yield from left_in_store(kv, edits.deleted)
    finally:
        kv.close()
    blobs = deployment.blobs()
    try:
        yield from left_among_files(blobs, journals.of_runs().keys() - edits.deleted, journals.uploads.keys())
        yield from lost_files(blobs, journals, edits.deleted)
    finally:
        blobs.close()


def _client_losses(journals: Journals) -> Mapping[str, int]:
    """Count what notes of the clients say of frames that the client dropped."""
    counts: dict[str, int] = {}
    for writer, kind, _ in journals.notes:
        if writer.startswith("client") and kind != "closed":
            counts[kind] = counts.get(kind, 0) + 1
    dropped = sum(
        1
        for frame in journals.frames
        if frame.writer.startswith("client") and not frame.acknowledged and frame.refusal is None
    )
    return {**counts, **({"frame dropped when a connection broke": dropped} if dropped else {})}
