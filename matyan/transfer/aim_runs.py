"""What one run of an Aim repository is, besides its points: made of the tree of its `meta` file.

What cannot be carried here costs no more than itself: it is left out, and told of in `AimRun.losses`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec

from matyan.limits import JSON_DEPTH_MAX
from matyan.runs.model import SYSTEM_PARAMS, Artifact
from matyan.sequences.model import BUCKET_OF_KIND, Bucket, SequenceKey, canonical_context
from matyan.transfer.aim_catalog import AimRunRow
from matyan.transfer.aim_chunks import AimDataError, Folded, plain
from matyan.wire.streams import Key

_NUMBER_TYPES: Final = {"int": "int", "bool": "int", "float": "float", "float64": "float", "number": "number"}
LOG_LINE: Final = "log_line"
LOG_RECORD: Final = "log_record"
_LOGS: Final = {
    LOG_LINE: SequenceKey(Bucket.LOGS, "logs"),
    LOG_RECORD: SequenceKey(Bucket.LOG_RECORDS, "log_records"),
}


class AimSequence(msgspec.Struct, frozen=True, kw_only=True):
    """A sequence of a run, without its points."""

    key: SequenceKey
    """What it is here."""
    dtype: str
    """Metrics: `float`, `int`, `number`; objects: `image`, `list(image)`, ..., `log_line`, or another class."""
    path: tuple[Key, ...]
    """Where its columns lie in the run's file."""
    hashed: bool
    """Whether rows are keyed by a hash of the step."""
    first_step: int | None = None
    last_step: int | None = None
    """The greatest, as noted apart from the points; None where Aim noted none."""
    first: float | None = None
    minimum: float | None = None
    maximum: float | None = None
    """Of metrics, over everything ever written; None where Aim kept none."""


class AimRun(msgspec.Struct, frozen=True, kw_only=True):
    """A run, without the points of its sequences."""

    row: AimRunRow
    created_at_seconds: float
    end_time_seconds: float | None
    params: dict[Key, Any]
    system_params: dict[Key, Any] | None
    artifacts: tuple[Artifact, ...]
    sequences: tuple[AimSequence, ...]
    """No two of one key."""
    losses: tuple[str, ...] = ()
    """What the source has and this does not, as sentences without the run's name."""


def make_run(row: AimRunRow, folded: Folded, created_at_seconds: float) -> AimRun:
    """Return the run that a row of the catalog and the tree of the run's `meta` file describe."""
    tree = _dict(folded.tree)
    params = _dict(plain(tree.get("attrs")))
    system = params.get(SYSTEM_PARAMS)
    if isinstance(system, dict):
        del params[SYSTEM_PARAMS]
    end = tree.get("end_time", row.end_time_seconds)
    losses = [*_lost_params(folded)]
    return AimRun(
        row=row,
        created_at_seconds=created_at_seconds,
        end_time_seconds=end if isinstance(end, float | int) else None,
        params=params,
        system_params=system if isinstance(system, dict) else None,
        artifacts=tuple(_artifacts(_dict(tree.get("artifacts")))),
        sequences=tuple(_sequences(row.hash, folded, losses)),
        losses=tuple(losses),
    )


def _lost_params(folded: Folded) -> Iterator[str]:
    names = dict.fromkeys(path[1] for path in folded.cut if path[0] == "attrs")
    for name in names:
        yield f"param {name!r}: what is nested deeper than {JSON_DEPTH_MAX} levels was left out"


def _artifacts(tree: Mapping[Key, Any]) -> Iterator[Artifact]:
    for name, found in tree.items():
        fields = plain(found)
        if isinstance(fields, dict):
            yield Artifact(
                str(fields.get("name", name)), str(fields.get("uri", "")), origin=str(fields.get("path", ""))
            )


def _sequences(run_hash: str, folded: Folded, losses: list[str]) -> Iterator[AimSequence]:
    """Yield the sequences that can be told apart here; say of the others in `losses` why they are left out."""
    contexts, traces = _dict(_dict(folded.tree).get("contexts")), _dict(_dict(folded.tree).get("traces"))
    too_deep = {path[1] for path in folded.cut if path[0] == "contexts"}
    kept: dict[SequenceKey, Any] = {}
    for context_id, names in traces.items():
        given = plain(contexts.get(context_id)) or {}
        try:
            context = _context(given, is_too_deep=context_id in too_deep)
        except AimDataError as error:
            losses.append(f"{', '.join(map(repr, _dict(names)))}: left out, {error.message}")
            continue
        for name, trace in _dict(names).items():
            if not isinstance(trace, dict):
                continue
            sequence = _sequence(run_hash, context_id, context, str(name), trace)
            if sequence.key in kept:
                losses.append(_twice(sequence.key, given, kept[sequence.key]))
            else:
                kept[sequence.key] = given
                yield sequence


def _context(given: Any, *, is_too_deep: bool) -> str:
    """Return a context's identity here.

    Raises:
        AimDataError: it has none.
    """
    if is_too_deep:
        raise AimDataError(f"the context is nested deeper than {JSON_DEPTH_MAX} levels")
    try:
        return canonical_context(_text_keys(given))
    except (TypeError, ValueError) as error:
        raise AimDataError(f"the context {given!r} cannot be JSON: {error}") from error


def _twice(key: SequenceKey, given: Any, kept: Any) -> str:
    return (
        f"{key.bucket.word} {key.name!r} of the context {given!r} was left out: contexts are JSON here, whose keys are "
        f"texts, so it is the same as the context {kept!r}"
    )


def _sequence(run_hash: str, context_id: Key, context: str, name: str, trace: Mapping[Key, Any]) -> AimSequence:
    dtype = str(trace.get("dtype", "float")).replace("aim.", "")
    number_type = _NUMBER_TYPES.get(dtype)
    version = trace.get("version", 1)
    root: tuple[Key, ...] = ("seqs", "chunks") if version == 1 else ("seqs", f"v{version}", "chunks")
    return AimSequence(
        key=_key(dtype, name, context),
        dtype=number_type or dtype,
        path=(*root, run_hash, context_id, name),
        hashed=version != 1,
        first_step=_step(trace.get("first_step")),
        last_step=_step(trace.get("last_step")),
        first=_number(trace.get("first")) if number_type else None,
        minimum=_number(trace.get("min")),
        maximum=_number(trace.get("max")),
    )


def _key(dtype: str, name: str, context: str) -> SequenceKey:
    if dtype in _NUMBER_TYPES:
        return SequenceKey(Bucket.METRIC, name, context)
    kind = dtype.removeprefix("list(").removesuffix(")")
    if kind in _LOGS:
        return _LOGS[kind]
    # A class of somebody's own is kept readable, as text.
    return SequenceKey(BUCKET_OF_KIND.get(kind, Bucket.TEXTS), name, context)


def _dict(value: Any) -> dict[Key, Any]:
    return value if isinstance(value, dict) else {}


def _text_keys(value: Any) -> Any:
    """Return JSON-like data with keys as JSON has them."""
    if isinstance(value, dict):
        return {str(key): _text_keys(item) for key, item in value.items()}
    return [_text_keys(item) for item in value] if isinstance(value, list) else value


def _step(value: Any) -> int | None:
    return int(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) else None
