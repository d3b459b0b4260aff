"""Run -> the answers about one run, in both dialects. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from matyan.errors import InvalidArgumentError
from matyan.http.dialect import Dialect
from matyan.runs.model import Artifact, Run
from matyan.sequences.model import BUCKET_OF_WORD, PUBLIC_BUCKETS, Bucket, Item, Summary

_LISTED_EMPTY: Final = (Bucket.LOGS, Bucket.LOG_RECORDS)
"""Kinds that Aim names among the traces, always without any."""
_NO_VALUE: Final = 0.1
"""What stands for the last value of things that have none, as in Aim."""
_LEVELS: Final = {10: "DEBUG", 20: "INFO", 30: "WARNING", 40: "ERROR", 50: "CRITICAL"}


class ExperimentProps(msgspec.Struct, frozen=True):
    """The run's experiment; all null without one, since run pages read `experiment.id` unguarded."""

    id: str | None = None
    name: str | None = None
    description: str | None = None


class TagProps(msgspec.Struct, frozen=True):
    """A tag of the run."""

    id: str
    name: str
    color: str | None
    description: str | None


class RunProps(msgspec.Struct, frozen=True):
    """Properties of a run; times are seconds since 1970-01-01 UTC."""

    name: str
    description: str | None
    experiment: ExperimentProps
    tags: list[TagProps]
    creation_time: float
    end_time: float | None
    archived: bool
    active: bool
    crashed: bool | msgspec.UnsetType = msgspec.UNSET
    """Only said where it is true."""


class TraceInfo(msgspec.Struct, frozen=True):
    """That a run has a sequence; a last value that is not finite leaves as null."""

    context: dict[str, Any]
    name: str
    last_value: float | None


class ArtifactInfo(msgspec.Struct, frozen=True):
    """A file of the run."""

    name: str
    path: str
    uri: str


class RunInfo(msgspec.Struct, frozen=True):
    """Everything about a run but its points."""

    params: Any
    traces: dict[str, list[TraceInfo]]
    props: RunProps
    artifacts: list[ArtifactInfo]


class Done(msgspec.Struct, frozen=True):
    """The answer to a change of a run, an experiment or a tag."""

    id: str
    status: str = "OK"


class Ok(msgspec.Struct, frozen=True):
    """The answer to a change that has nothing to say."""

    status: str = "OK"


def buckets_of(words: Sequence[str]) -> tuple[Bucket, ...]:
    """Return the kinds of sequences that a request names; all when it names none.

    Raises:
        InvalidArgumentError: a word is no kind.
    """
    for word in words:
        if word not in BUCKET_OF_WORD:
            raise InvalidArgumentError(f"'{word}' is not a valid Sequence")
    return tuple(dict.fromkeys(BUCKET_OF_WORD[word] for word in words)) or tuple(Bucket)


def listed_buckets(asked: Sequence[Bucket]) -> tuple[Bucket, ...]:
    """Return those of the kinds asked for whose sequences are listed."""
    return tuple(bucket for bucket in asked if bucket in PUBLIC_BUCKETS)


def run_info(run: Run, summaries: Sequence[Summary], asked: Sequence[Bucket], dialect: Dialect) -> RunInfo:
    """Return the answer about a run; `summaries` holds those of `listed_buckets(asked)`."""
    kinds = [bucket for bucket in asked if bucket not in _LISTED_EMPTY or dialect.logs_among_traces]
    traces: dict[str, list[TraceInfo]] = {bucket.word: [] for bucket in kinds}
    for summary in summaries:
        last = _NO_VALUE if summary.last is None else summary.last
        traces[Bucket(summary.bucket).word].append(TraceInfo(summary.context_object, summary.name, last))
    return RunInfo(
        params=finite(run.params),
        traces=traces,
        props=run_props(run, dialect),
        artifacts=[_artifact_info(artifact, dialect) for artifact in sorted(run.document.artifacts, key=_path)],
    )


def run_props(run: Run, dialect: Dialect) -> RunProps:
    """Return the properties of a run, in the order of the contract."""
    document, experiment = run.document, run.experiment
    return RunProps(
        name=run.name,
        description=document.description,
        experiment=ExperimentProps()
        if experiment is None
        else ExperimentProps(experiment.id, experiment.name, experiment.description),
        tags=[TagProps(tag.id, tag.name, tag.color, tag.description) for tag in run.tags],
        creation_time=document.created_at_seconds,
        end_time=document.end_time_seconds,
        archived=document.archived,
        active=document.active,
        crashed=True if document.crashed and dialect.crashed_marks else msgspec.UNSET,
    )


def finite(tree: Any) -> Any:
    """Return a params tree as JSON can say it: NaN and infinities become the words of the contract."""
    if isinstance(tree, dict):
        return {key: finite(value) for key, value in tree.items()}
    if isinstance(tree, list):
        return [finite(value) for value in tree]
    if isinstance(tree, float) and not math.isfinite(tree):
        return "NaN" if math.isnan(tree) else str(tree)
    return tree


def record_tree(item: Item, dialect: Dialect) -> dict[str, Any]:
    """Return a log record as the log tabs read it. `message` is text whatever was stored."""
    record = item.value if isinstance(item.value, dict) else {}
    level = record.get("log_level", 0)
    tree: dict[str, Any] = {
        "message": str(record.get("message", "")),
        "log_level": _LEVELS.get(level, f"Level {level}"),
        "timestamp": record.get("timestamp", item.time_ms / 1000),
        "args": record.get("args"),
        "is_notified": True,
    }
    if dialect.logger_info:
        tree["logger_info"] = record.get("logger_info")
    return tree


def _artifact_info(artifact: Artifact, dialect: Dialect) -> ArtifactInfo:
    if dialect.artifact_base_names:
        return ArtifactInfo(artifact.path.rpartition("/")[2], artifact.path, artifact.uri)
    return ArtifactInfo(artifact.path, artifact.origin or artifact.path, artifact.uri)


def _path(artifact: Artifact) -> str:
    return artifact.path
