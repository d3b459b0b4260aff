"""What a slice holds for one run -> the store. Everything here happens in the slice's transaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matyan.engines.kv.protocol import KvTransaction
from matyan.ids import RunNumber
from matyan.ingestion.batches import RunGroup
from matyan.ingestion.editing import EDITS, RunEditor
from matyan.ingestion.objects import TERMINAL, Prepared
from matyan.ingestion.prefetch import Member, prefetch
from matyan.runs import repository as runs
from matyan.runs import signs
from matyan.runs.model import RunDocument
from matyan.runs.repository import RunState
from matyan.sequences import items, terminal
from matyan.sequences import repository as sequences
from matyan.sequences.model import SequenceKey, Summary
from matyan.sequences.repository import SequenceRef
from matyan.store.remembered import RememberingTransaction
from matyan.wire.messages import CreateRun
from matyan.wire.moments import moment_ms


def _read_states(tx: KvTransaction, groups: Sequence[RunGroup]) -> list[RunState]:
    """Return what is known of the run of each group, in one read per project."""
    found: dict[tuple[str, str], RunState] = {}
    for project in {one.project for one in groups}:
        run_ids = [one.run_id for one in groups if one.project == project]
        states = runs.get_states(tx, project, run_ids)
        found |= {(project, run_id): state for run_id, state in zip(run_ids, states, strict=True)}
    return [found[one.project, one.run_id] for one in groups]


def apply_groups(
    tx: KvTransaction, groups: Sequence[RunGroup], prepared: Sequence[Sequence[Prepared]], ids: Mapping[str, str]
) -> None:
    """Apply everything that a slice holds for its runs; signs of life of unknown runs are nothing."""
    own = RememberingTransaction(tx)
    members = [Member(*each) for each in zip(groups, prepared, _read_states(own, groups), strict=True)]
    members = [member for member in members if member.state.number is not None or not member.is_sign]
    prefetch(own, members)
    for member in members:
        _apply_group(own, member, ids)


def _apply_group(tx: KvTransaction, member: Member, ids: Mapping[str, str]) -> None:
    """Apply what there is for one run; without content it is a sign of life and no more."""
    found, prepared, state = member
    number = state.number
    if number is None or member.is_edited:
        number = _edit(tx, found, state, ids)
    if member.is_sign:
        signs.note(tx, found.project, number, found.received_ms)
        return
    _append_points(tx, found, number)
    if prepared:
        _put_items(tx, found, prepared, number)
    signs.note_data(tx, found.project, number, found.received_ms)


def _edit(tx: KvTransaction, found: RunGroup, state: RunState, ids: Mapping[str, str]) -> RunNumber:
    document = None if state.number is None else runs.read_documents(tx, found.project, [state.number])[0]
    editor = RunEditor(tx, found.project, state.number, document or _fresh_document(found), ids)
    if state.is_crashed:
        editor.revive()
    for event in found.events:
        edit = EDITS.get(type(event.command))
        if edit is not None:
            edit(editor, event)
    editor.place_default(found.received_ms)
    editor.save()
    return editor.number


def _fresh_document(found: RunGroup) -> RunDocument:
    """Return the document of a run that is not known yet, opened by `create_run` or implied by any other command."""
    created_ms = next(
        (
            moment_ms(event.command.client_datetime, event.received_ms)
            for event in found.events
            if isinstance(event.command, CreateRun)
        ),
        found.received_ms,
    )
    return RunDocument(
        hash=found.run_id, created_at_seconds=created_ms / 1000, updated_at_seconds=found.received_ms / 1000
    )


def _append_points(tx: KvTransaction, found: RunGroup, number: RunNumber) -> None:
    refs = [SequenceRef(number, key) for key in found.points]
    opened = sequences.open_many(tx, found.project, refs)
    for ref, known, buffer in zip(refs, opened, found.points.values(), strict=True):
        last_step = -1 if known.summary is None else known.summary.last_step
        sequences.append(tx, found.project, ref, known, buffer.points(last_step), dtype=buffer.dtype)


def _put_items(tx: KvTransaction, found: RunGroup, prepared: Sequence[Prepared], number: RunNumber) -> None:
    keys = list(dict.fromkeys(item.key for item in prepared))
    known = sequences.get_summaries(tx, found.project, [SequenceRef(number, key) for key in keys])
    summaries: dict[SequenceKey, Summary | None] = dict(zip(keys, known, strict=True))
    lines = terminal.get(tx, found.project, number) if TERMINAL in summaries else None
    for item in prepared:
        before = summaries[item.key]
        if lines is not None and item.key == TERMINAL:
            step = terminal.place(lines, item.writer, item.step or 0)
        elif item.step is None:
            step = 0 if before is None else before.last_step + 1
        else:
            step = item.step
        is_new = before is None or step > before.last_step
        items.put(tx, found.project, number, item.key, step, item.encoded, is_new=is_new)
        summaries[item.key] = items.counted(
            before, item.key, step, dtype=item.dtype, objects=item.objects, time_ms=item.time_ms
        )
    for summary in summaries.values():
        assert summary is not None
        sequences.put_summary(tx, found.project, number, summary)
    if lines is not None:
        terminal.put(tx, found.project, number, lines)
