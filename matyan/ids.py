"""Names of things: projects, runs, sequences; their makers and checks."""

from __future__ import annotations

import uuid
from typing import Final, NewType

from matyan.errors import InvalidArgumentError
from matyan.limits import LABEL_BYTES_MAX, RUN_ID_BYTES_MAX

Project = NewType("Project", str)
RunId = NewType("RunId", str)
"""A run's hash: client-chosen text."""
RunNumber = NewType("RunNumber", int)
"""A dense number that the store gives to a run when it is created; never used again after a deletion."""

DEFAULT_PROJECT: Final = Project("default")


def make_id() -> str:
    """Return a random UUID text, the form of ids of experiments, tags, apps and reports."""
    return str(uuid.uuid4())


def log_key(project: Project, run_id: RunId) -> bytes:
    """Return the key of a run's records in the log: all of them lie in one partition."""
    return f"{project}/{run_id}".encode(errors="surrogatepass")


def check_run_id(text: str) -> RunId:
    """Return `text` as a run id.

    Raises:
        InvalidArgumentError: empty, longer than RUN_ID_BYTES_MAX, with a slash, a NUL or a lone surrogate, or starting
            with `progress` (the web UI would take the run for a progress message).
    """
    if not text:
        raise InvalidArgumentError("the run id is empty")
    try:
        size = len(text.encode())
    except UnicodeEncodeError as error:
        raise InvalidArgumentError("the run id is not valid unicode") from error
    if size > RUN_ID_BYTES_MAX:
        raise InvalidArgumentError(f"the run id has {size} bytes, limit {RUN_ID_BYTES_MAX}")
    if "/" in text or "\x00" in text:
        raise InvalidArgumentError("a run id holds no slash and no NUL")
    if text.startswith("progress"):
        raise InvalidArgumentError("a run id does not start with 'progress': the web UI takes that for a message")
    return RunId(text)


def check_label(text: str, what: str) -> str:
    """Return the name of a run, experiment or tag if it has a storable size; `what` says whose name it is.

    Raises:
        InvalidArgumentError: it is longer than LABEL_BYTES_MAX.
    """
    size = len(text.encode(errors="surrogatepass"))
    if size > LABEL_BYTES_MAX:
        raise InvalidArgumentError(f"the {what} has {size} bytes, limit {LABEL_BYTES_MAX}")
    return text
