"""Logging set-up: console or JSON lines, bound fields.

A message is a constant; its data goes into `extra` and comes out as fields: `logger.info("run deleted",
extra={"run": run_id})`. Fields that hold for a request or a batch are bound once with `bound`.
"""

from __future__ import annotations

import contextlib
import json
import logging
import sys
import time
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from typing import Any, Final, Literal, TextIO

LogFormat = Literal["console", "json"]
LogLevel = Literal["debug", "info", "warning", "error"]

_BOUND: Final[ContextVar[Mapping[str, object]]] = ContextVar("matyan_log_fields")
_STANDARD: Final = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}
_QUIET: Final = ("_granian", "asyncio", "httpcore", "httpx", "kafka", "litestar", "tungstenite", "tokio_tungstenite")
"""Loggers of libraries: their warnings are heard, their chatter is not."""


@contextlib.contextmanager
def bound(**fields: object) -> Iterator[None]:
    """Add these fields to every line logged inside the block, in this task or thread."""
    token = _BOUND.set({**_BOUND.get({}), **fields})
    try:
        yield
    finally:
        _BOUND.reset(token)


def fields_of(record: logging.LogRecord) -> dict[str, object]:
    """Return what was bound and what was given as `extra`; the latter wins."""
    extra = {name: value for name, value in record.__dict__.items() if name not in _STANDARD}
    return {**_BOUND.get({}), **extra}


class ConsoleFormatter(logging.Formatter):
    """`12:00:00.123 info  matyan.runs  run deleted  run=abc keys=12`."""

    def format(self, record: logging.LogRecord) -> str:
        """Return one line, with the traceback below it when there is one."""
        clock = time.strftime("%H:%M:%S", time.localtime(record.created))
        fields = " ".join(f"{name}={_plain(value)}" for name, value in fields_of(record).items())
        head = f"{clock}.{int(record.msecs):03d} {record.levelname.lower():7} {record.name}  {record.getMessage()}"
        text = f"{head}  {fields}" if fields else head
        return text + _trace(self, record)


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time (seconds since 1970 UTC), level, logger, message, then the fields."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the object as text without line breaks."""
        line: dict[str, Any] = {
            "time": round(record.created, 6),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **fields_of(record),
        }
        if trace := _trace(self, record).strip():
            line["traceback"] = trace
        return json.dumps(line, default=str, ensure_ascii=False)


def set_up(level: LogLevel, log_format: LogFormat, stream: TextIO | None = None) -> None:
    """Send all logging of the process to one stream (stderr by default), replacing earlier set-ups."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter() if log_format == "json" else ConsoleFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    quiet_libraries()


def quiet_libraries() -> None:
    """Let libraries be heard through our set-up, from warnings on; call it again after one has set up its own."""
    for name in _QUIET:
        library = logging.getLogger(name)
        library.setLevel(logging.WARNING)
        library.handlers.clear()
        library.propagate = True


def _plain(value: object) -> str:
    text = str(value)
    return repr(text) if not text or any(character.isspace() or character == '"' for character in text) else text


def _trace(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    return "\n" + formatter.formatException(record.exc_info) if record.exc_info and record.exc_info[0] else ""
