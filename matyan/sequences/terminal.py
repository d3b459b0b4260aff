"""Numbers of terminal lines: lines of several lives and writers of a run become one log.

A client counts its lines from 0 in every life and sends its last, unfinished line again under the same number. Lines
keep their distances; a new life goes on behind the last line stored; lines of writers that write at the same time are
interleaved in order of arrival.
"""

from __future__ import annotations

from typing import Final

import msgspec

from matyan.engines.kv.protocol import KvReader, KvTransaction
from matyan.ids import Project, RunNumber
from matyan.store import keyspace
from matyan.store.records import RecordCodec

_WRITERS_MAX: Final = 16
"""Writers remembered per run; the one that has been silent longest is forgotten first."""


class Terminal(msgspec.Struct, array_like=True, kw_only=True):
    """How far the log of a run is numbered."""

    line_next: int = 0
    writers: dict[str, tuple[int, int]] = {}
    """Writer -> (the last number it used, the line that became); the most recent writer last."""


_codec: Final = RecordCodec(Terminal)


def get(reader: KvReader, project: Project, number: RunNumber) -> Terminal:
    """Return the state; a fresh one for a run without lines."""
    value = reader.get(keyspace.terminal(project, number))
    return Terminal() if value is None else _codec.decode(value)


def put(tx: KvTransaction, project: Project, number: RunNumber, terminal: Terminal) -> None:
    """Store the state."""
    tx.put(keyspace.terminal(project, number), _codec.encode(terminal))


def begin_life(terminal: Terminal, writer: str) -> None:
    """Let the writer's next line 0 follow the last line stored."""
    _remember(terminal, writer, -1, terminal.line_next - 1)


def place(terminal: Terminal, writer: str, step: int) -> int:
    """Return the line number for a writer's line `step`, and note it."""
    last_step, last_line = terminal.writers.get(writer) or _predecessor(terminal, step)
    if step <= last_step:
        return max(0, last_line - (last_step - step))
    line = max(last_line, terminal.line_next - 1) + step - last_step
    terminal.line_next = line + 1
    _remember(terminal, writer, step, line)
    return line


def _predecessor(terminal: Terminal, step: int) -> tuple[int, int]:
    """Return what a reconnected client (no new life) continues, which sends its last line again or the next one."""
    known = tuple(reversed(terminal.writers.values()))
    if len(known) == 1:
        return known[0]
    fitting = (state for state in known if state[0] in (step, step - 1))
    return next(fitting, (step - 1, terminal.line_next - 1))


def _remember(terminal: Terminal, writer: str, step: int, line: int) -> None:
    terminal.writers.pop(writer, None)
    terminal.writers[writer] = (step, line)
    while len(terminal.writers) > _WRITERS_MAX:
        del terminal.writers[next(iter(terminal.writers))]
