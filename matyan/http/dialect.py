"""What differs between /api (Aim) and /api/v1/rest (Matyan), one table.

A handler asks for its dialect by name, `dialect: NamedDependency[Dialect]`, and never looks at the path.
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec


class Dialect(msgspec.Struct, frozen=True, kw_only=True):
    """How the clients of one prefix want their answers."""

    name: Literal["aim", "matyan"]
    prefix: str
    error_codes: bool
    """Error bodies carry `error: {code, message}`, and `detail` is the bare text."""
    conflict_status: int
    """Status of a duplicate name and the like."""
    missing_delete_is_error: bool
    """Deleting an unknown run or experiment answers 404 (else 200)."""
    delete_status: int
    """Status of a deleted app, dashboard or report; 204 has no body."""
    deletes_runs_with_experiment: bool
    """Deleting an experiment deletes its runs (else they only lose it)."""
    iso_times: bool
    """Times of notes, apps, dashboards and reports are ISO 8601 text (else float seconds)."""
    log_tail_lines: int
    """How many terminal lines are sent when no range is asked for."""
    bare_range_is_start: bool
    """A range without colon, `5`, means `5:` (else everything)."""
    excluded_params_are_empty: bool
    """With `exclude_params` the params are sent as `{}` (else left out)."""
    activity_by_day: bool
    """Activity maps count runs by day (else by hour)."""
    note_uuids: bool
    """Notes have UUIDs for ids, and lists name their owner (else integers)."""
    logs_among_traces: bool
    """Run info has empty lists for `logs` and `log_records` (else nothing)."""
    artifact_base_names: bool
    """An artifact's name is the last part of its path (else the whole path, and the path is where the file lay)."""
    logger_info: bool
    """Log records say where they were logged."""
    crashed_marks: bool
    """Run info says `crashed: true` of a run that ended because nothing was heard of it (else nothing)."""
    metric_batch_params: bool
    """A batch of metrics of a run listens to `record_range` and `record_density` (else to neither)."""
    batch_index_range_name: str
    """What a batch of objects of a run calls the range of positions that it shows."""
    batch_index_ranges_are_null: bool
    """For kinds without lists such a batch says null for both ranges of positions (else nothing)."""


AIM: Final = Dialect(
    name="aim",
    prefix="/api",
    error_codes=False,
    conflict_status=400,
    missing_delete_is_error=False,
    delete_status=200,
    deletes_runs_with_experiment=True,
    iso_times=True,
    log_tail_lines=201,
    bare_range_is_start=True,
    excluded_params_are_empty=False,
    activity_by_day=False,
    note_uuids=False,
    logs_among_traces=True,
    artifact_base_names=False,
    logger_info=False,
    crashed_marks=False,
    metric_batch_params=False,
    batch_index_range_name="index_range",
    batch_index_ranges_are_null=False,
)
MATYAN: Final = Dialect(
    name="matyan",
    prefix="/api/v1/rest",
    error_codes=True,
    conflict_status=409,
    missing_delete_is_error=True,
    delete_status=204,
    deletes_runs_with_experiment=False,
    iso_times=False,
    log_tail_lines=200,
    bare_range_is_start=False,
    excluded_params_are_empty=True,
    activity_by_day=True,
    note_uuids=True,
    logs_among_traces=False,
    artifact_base_names=True,
    logger_info=True,
    crashed_marks=True,
    metric_batch_params=True,
    batch_index_range_name="index_range_used",
    batch_index_ranges_are_null=True,
)
DIALECTS: Final = (AIM, MATYAN)


def dialect_of(path: str) -> Dialect:
    """Return the dialect of a request path, for errors raised before a handler is known."""
    return MATYAN if path.startswith("/api/v1/") else AIM
