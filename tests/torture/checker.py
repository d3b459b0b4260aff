"""Compares what is stored with what the journals say, value by value."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from tests.support.rest import Rest, eventually
from tests.torture.expected import (
    ABSENT,
    Histories,
    Slot,
    histories,
    in_order,
    is_seen,
    line_of,
    record_of,
    unique_slots,
)
from tests.torture.journal import Frame, Journals
from tests.torture.stored import ALL_RUNS, Stored, read_run


class Finding(NamedTuple):
    """Something that is not as it must be."""

    kind: str
    """lost, twice, wrong, ghost, torn, order, undead or orphan."""
    run: str
    text: str


@dataclass
class Edits:
    """What was done through REST, and is sure to have been done."""

    deleted: set[str] = field(default_factory=set)
    writes: dict[str, dict[Slot, Any]] = field(default_factory=dict)
    """Run -> the slots that were written."""
    findings: list[Finding] = field(default_factory=list)


@dataclass
class Tally:
    """The figures of a check."""

    runs: int = 0
    deleted_runs: int = 0
    items: int = 0
    """Slots that were compared."""
    frames: int = 0
    acknowledged: int = 0
    present: int = 0
    """Frames without an answer that were applied."""
    absent: int = 0
    refused: int = 0
    findings: list[Finding] = field(default_factory=list)

    def count(self, *kinds: str) -> int:
        """Return how many findings are of these kinds."""
        return sum(1 for finding in self.findings if finding.kind in kinds)


def check_all(rest: Rest, journals: Journals, edits: Edits, *, seconds: float) -> Tally:
    """Check every run; those that are not right are read again, for at most `seconds` in all."""
    tally = Tally()
    tally.findings += edits.findings
    checks = []
    for run, frames in sorted(journals.of_runs().items()):
        tally.runs += 1
        _count_frames(tally, frames)
        if run in edits.deleted:
            tally.deleted_runs += 1
            tally.findings += [Finding("undead", run, "a deleted run answers")] if rest.exists(run) else []
        else:
            checks.append(_check(rest, run, frames, journals.uploads, edits.writes.get(run, {})))
    results = [check() for check in checks]
    deadline = time.monotonic() + seconds
    for check, result in zip(checks, results, strict=True):
        final = eventually(check, _is_right, deadline - time.monotonic()) if result.findings else result
        tally.items += final.items
        tally.present += final.present
        tally.absent += final.absent
        tally.findings += final.findings
    tally.findings += _check_listing(rest, journals, edits)
    return tally


def _is_right(tally: Tally) -> bool:
    return not tally.findings


def _count_frames(tally: Tally, frames: Sequence[Frame]) -> None:
    tally.frames += len(frames)
    tally.acknowledged += sum(1 for frame in frames if frame.acknowledged)
    tally.refused += sum(1 for frame in frames if frame.refusal is not None and not frame.acknowledged)


def _check(
    rest: Rest, run: str, frames: Sequence[Frame], uploads: Mapping[str, set[str]], edited: Mapping[Slot, Any]
) -> Callable[[], Tally]:
    """Return what reads a run and compares it."""
    is_raw = run.startswith("raw-")
    once = histories(frames)

    def check() -> Tally:
        stored = read_run(rest, run, once)
        if stored is None:
            return _check_missing(run, frames)
        tally = Tally()
        tally.findings += [Finding("twice", run, text) for text in stored.repeated()]
        found = _check_raw(run, frames, stored, tally) if is_raw else _check_client(run, frames, stored, tally)
        for slot, value in edited.items():
            found[slot].certain, found[slot].is_certain = value, True
        tally.items += len(found)
        tally.findings += _compare(run, found, stored, uploads)
        return tally

    return check


def _check_missing(run: str, frames: Sequence[Frame]) -> Tally:
    acknowledged = sum(1 for frame in frames if frame.acknowledged)
    tally = Tally(absent=len(frames) - acknowledged)
    if acknowledged:
        tally.findings.append(Finding("lost", run, f"the whole run, with {acknowledged} acknowledged frames"))
    return tally


def _check_raw(run: str, frames: Sequence[Frame], stored: Stored, tally: Tally) -> Histories:
    """The record of each frame of a raw writer tells whether and when it was applied; the rest follows exactly."""
    numbers = {record_of(frame): number for number, frame in enumerate(frames)}
    tally.findings += [Finding("ghost", run, f"record {text!r}") for text in stored.records if text not in numbers]
    applied = list(dict.fromkeys(text for text in stored.records if text in numbers))
    for text in numbers.keys() - set(applied):
        frame = frames[numbers[text]]
        tally.absent += not frame.acknowledged
        tally.findings += [Finding("lost", run, f"acknowledged {text!r}")] if frame.acknowledged else []
    tally.present += sum(1 for text in applied if not frames[numbers[text]].acknowledged)
    tally.findings += _check_order(run, [(numbers[text], frames[numbers[text]]) for text in applied])
    found = in_order(frames, applied)
    lines = [line_of(frame) for frame in found]
    if stored.lines != lines and Counter(stored.lines) == Counter(lines):
        tally.findings.append(Finding("order", run, f"lines are {stored.lines[:5]}..., not {lines[:5]}..."))
    return histories(found)


def _check_order(run: str, applied: Sequence[tuple[int, Frame]]) -> Iterator[Finding]:
    """An acknowledged frame comes before everything that was sent to the same frontier after its acknowledgement.

    A frontier that could not reach the log keeps what it acknowledged until it can; meanwhile the writer may have gone
    on with another one, which could.
    """
    latest: dict[str, int] = defaultdict(lambda: -1)
    for number, frame in applied:
        later = latest[frame.frontier]
        if number < later and frame.acknowledged:
            yield Finding("order", run, f"{record_of(frame)!r} was applied after a frame that was sent later ({later})")
        latest[frame.frontier] = max(later, number)


def _check_client(run: str, frames: Sequence[Frame], stored: Stored, tally: Tally) -> Histories:
    """A frame of the client is there as a whole or not at all, as far as its items are nobody else's."""
    for frame, slots in zip(frames, unique_slots(frames), strict=True):
        if frame.acknowledged or frame.refusal is not None or not slots:
            continue
        there = [slot for slot in slots if slot in stored.slots]
        tally.present += bool(there)
        tally.absent += not there
        if 0 < len(there) < len(slots):
            missing = next(slot for slot in slots if slot not in stored.slots)
            tally.findings.append(Finding("torn", run, f"{len(there)} of {len(slots)} items of a frame: no {missing}"))
    return histories(frames)


def _compare(run: str, expected: Histories, stored: Stored, uploads: Mapping[str, set[str]]) -> Iterator[Finding]:
    for slot, history in expected.items():
        value = stored.slots.get(slot, ABSENT)
        if slot[0] == "file":
            value = value if value is ABSENT else value in uploads[slot[1]]
        if is_seen(slot, stored.slots) and not history.allows(value):
            kind = "lost" if value is ABSENT else "wrong"
            yield Finding(kind, run, f"{slot} is {_short(value)}, not {_short(history.certain)}")
    for slot, value in stored.slots.items():
        is_known = value is ABSENT or slot in expected or (slot[0] == "file" and value in uploads.get(slot[1], ()))
        if not is_known:
            yield Finding("ghost", run, f"{slot} is {_short(value)}")


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:80]}... ({len(text)} characters)"


def _check_listing(rest: Rest, journals: Journals, edits: Edits) -> Iterator[Finding]:
    listed = set(rest.runs(ALL_RUNS, exclude_params=True, report_progress=False))
    for run in sorted(journals.acknowledged_runs() - edits.deleted - listed):
        yield Finding("lost", run, "it is not in the listing")
    for run in sorted(listed & edits.deleted):
        yield Finding("undead", run, "a deleted run is in the listing")
    for run in sorted(listed - journals.of_runs().keys()):
        yield Finding("ghost", run, "nobody wrote this run")
