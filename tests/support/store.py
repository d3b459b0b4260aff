"""Builders that fill a key-value store with runs, metrics and items, through the repositories that the product uses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from matyan.catalog import repository as catalog
from matyan.catalog.model import Experiment, Tag
from matyan.engines.kv.protocol import KvEngine, KvTransaction
from matyan.ids import DEFAULT_PROJECT, Project, RunId, RunNumber
from matyan.runs import repository as runs
from matyan.runs.model import SYSTEM_PARAMS, RunDocument
from matyan.sequences import items, repository
from matyan.sequences.chunks import take
from matyan.sequences.model import (
    BUCKET_OF_KIND,
    Bucket,
    Columns,
    Item,
    Points,
    SequenceKey,
    Summary,
    canonical_context,
)
from matyan.sequences.repository import SequenceRef
from matyan.wire.codec import encode_tree

CREATED_AT_SECONDS: Final = 1_717_243_200.0
"""2024-06-01 12:00 UTC, the time from which runs are created unless told otherwise."""


def make_experiment(kv: KvEngine, name: str, *, project: Project = DEFAULT_PROJECT, **fields: Any) -> Experiment:
    """Store an experiment under a fixed id, or return the one that has the name."""
    known = kv.read(lambda reader: catalog.experiments.find(reader, project, name))
    if known is not None:
        return known
    made = Experiment(**{"id": f"experiment-{name}", "name": name, **fields})
    kv.write(lambda tx: catalog.experiments.put(tx, project, made), durable=False)
    return made


def make_tag(kv: KvEngine, name: str, *, project: Project = DEFAULT_PROJECT, **fields: Any) -> Tag:
    """Store a tag under a fixed id, or return the one that has the name."""
    known = kv.read(lambda reader: catalog.tags.find(reader, project, name))
    if known is not None:
        return known
    made = Tag(**{"id": f"tag-{name}", "name": name, **fields})
    kv.write(lambda tx: catalog.tags.put(tx, project, made), durable=False)
    return made


def make_run(
    kv: KvEngine,
    run_id: str,
    *,
    params: Mapping[Any, Any] | None = None,
    experiment: str | None = "default",
    tags: Sequence[str] = (),
    created_at_seconds: float = CREATED_AT_SECONDS,
    end_time_seconds: float | None = None,
    project: Project = DEFAULT_PROJECT,
    **fields: Any,
) -> RunNumber:
    """Store a run; it is active unless it has an end. `fields` are those of RunDocument."""
    tree = dict(params or {})
    system = tree.pop(SYSTEM_PARAMS, None)
    belongs = None if experiment is None else make_experiment(kv, experiment, project=project)
    carries = [make_tag(kv, tag, project=project) for tag in tags]
    document = RunDocument(
        hash=run_id,
        experiment_id=None if belongs is None else belongs.id,
        tag_ids=tuple(tag.id for tag in carries),
        created_at_seconds=created_at_seconds,
        updated_at_seconds=created_at_seconds,
        end_time_seconds=end_time_seconds,
        active=end_time_seconds is None,
        params=encode_tree(tree),
        has_system_params=system is not None,
        **fields,
    )

    def store(tx: KvTransaction) -> RunNumber:
        known = runs.get_number(tx, project, RunId(run_id))
        if known is not None:  # the answer of the commit was lost
            return known
        number = runs.create(tx, project, document)
        if system is not None:
            runs.put_system_params(tx, project, number, encode_tree(system))
        if belongs is not None:
            catalog.experiments.link(tx, project, belongs.id, document.place(number))
        for tag in carries:
            catalog.tags.link(tx, project, tag.id, document.place(number))
        return number

    return kv.write(store, durable=False)


def clear_run(kv: KvEngine, number: RunNumber) -> None:
    """Take a run and what finds it out of the store, as a deletion does; what it tracked stays."""

    def clear(tx: KvTransaction) -> None:
        (document,) = runs.read_documents(tx, DEFAULT_PROJECT, [number])
        if document is not None:  # else the answer of the commit was lost
            runs.clear(tx, DEFAULT_PROJECT, number, document)

    kv.write(clear, durable=False)


def make_metric(
    kv: KvEngine,
    number: RunNumber,
    name: str,
    values: Sequence[float],
    *,
    steps: Sequence[int] | None = None,
    context: Mapping[str, Any] | None = None,
    epochs: Sequence[float] | None = None,
    times_ms: Sequence[int] | None = None,
    dtype: str = "float",
    points_at_once: int = 1000,
    project: Project = DEFAULT_PROJECT,
) -> SequenceRef:
    """Track points in the given order; steps count from 0, times go on by a second from CREATED_AT_SECONDS."""
    n = len(values)
    start_ms = int(CREATED_AT_SECONDS * 1000)
    columns = Columns(
        np.asarray(range(n) if steps is None else steps, np.int64),
        np.asarray(values, np.float64),
        np.full(n, np.nan) if epochs is None else np.asarray(epochs, np.float64),
        np.asarray(range(start_ms, start_ms + 1000 * n, 1000) if times_ms is None else times_ms, np.int64),
    )
    ref = SequenceRef(number, SequenceKey(Bucket.METRIC, name, canonical_context(dict(context or {}))))
    for begin in range(0, n, points_at_once):
        fresh = take(columns, slice(begin, begin + points_at_once))
        kv.write(lambda tx, fresh=fresh: _append(tx, project, ref, fresh, dtype), durable=False)  # type: ignore[misc]  # mypy cannot infer a lambda with a default
    kv.write(lambda tx: _index_values(tx, project, ref), durable=False)
    return ref


def make_objects(
    kv: KvEngine,
    number: RunNumber,
    kind: str,
    name: str,
    objects: Sequence[Mapping[str, Any] | Sequence[Mapping[str, Any]]],
    *,
    context: Mapping[str, Any] | None = None,
    project: Project = DEFAULT_PROJECT,
) -> SequenceRef:
    """Track objects of one kind (`image`, `text`, ...) at steps from 0: one mapping, or a list of them, a step."""
    key = SequenceKey(BUCKET_OF_KIND[kind], name, canonical_context(dict(context or {})))
    is_list = any(not isinstance(item, Mapping) for item in objects)
    rows = [[item] if isinstance(item, Mapping) else list(item) for item in objects]
    summary = Summary(
        bucket=int(key.bucket),
        name=name,
        context=key.context,
        dtype=f"list({kind})" if is_list else kind,
        count=len(rows),
        last_step=len(rows) - 1,
        record_length_max=max(len(row) for row in rows),
    )

    def store(tx: KvTransaction) -> None:
        repository.put_summary(tx, project, number, summary)
        for step, row in enumerate(rows):
            single = isinstance(objects[step], Mapping)
            items.put(tx, project, number, key, step, items.encode(Item(row, single=single)))

    kv.write(store, durable=False)
    return SequenceRef(number, key)


def _index_values(tx: KvTransaction, project: Project, ref: SequenceRef) -> None:
    """Index the values as for a settled sequence; its points stay as they are."""
    (summary,) = repository.get_summaries(tx, project, [ref])
    if summary is not None:
        repository.put_summary(tx, project, ref.number, summary, is_settled=True)


def _append(tx: KvTransaction, project: Project, ref: SequenceRef, fresh: Columns, dtype: str) -> None:
    (opened,) = repository.open_many(tx, project, [ref])
    epochs = None if bool(np.isnan(fresh.epochs).all()) else fresh.epochs.tolist()
    points = Points(fresh.steps.tolist(), fresh.values.tolist(), epochs, fresh.times.tolist())
    repository.append(tx, project, ref, opened, points, dtype=dtype)
