"""The golden dataset as the product's own objects, made in memory without any store."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from matyan.catalog.model import Experiment, Tag
from matyan.ids import RunNumber
from matyan.runs.model import SYSTEM_PARAMS, Run, RunDocument
from matyan.sequences.model import BUCKET_OF_WORD, Bucket, Summary, canonical_context
from matyan.wire.codec import encode_tree
from tests.golden import expand

GOLDEN: Final = Path(__file__).parent.parent / "golden"


class GoldenRun(NamedTuple):
    """A run with what searches read of it."""

    run: Run
    summaries: tuple[Summary, ...]
    notes: tuple[Mapping[str, Any], ...]


@functools.cache
def golden_runs() -> tuple[GoldenRun, ...]:
    """Return all runs of the dataset, newest first."""
    dataset = expand.load(GOLDEN / "dataset.json")
    experiments = {
        each["name"]: Experiment(
            id=each["id"],
            name=each["name"],
            description=each["description"],
            archived=each["archived"],
            created_at_seconds=each["created_at"],
        )
        for each in dataset["experiments"]
    }
    tags = {
        each["name"]: Tag(
            id=each["id"],
            name=each["name"],
            color=each["color"],
            description=each["description"],
            archived=each["archived"],
            created_at_seconds=each["created_at"],
        )
        for each in dataset["tags"]
    }
    runs = [
        GoldenRun(
            run=make_run(abstract, RunNumber(number), experiments[abstract["experiment"]], tags),
            summaries=tuple(make_summary(sequence) for sequence in abstract["sequences"]),
            notes=tuple({"content": text} for text in abstract.get("notes", ())),
        )
        for number, abstract in enumerate(dataset["runs"], 1)
    ]
    return tuple(sorted(runs, key=lambda golden: golden.run.document.created_at_seconds, reverse=True))


def make_run(abstract: Mapping[str, Any], number: RunNumber, experiment: Experiment, tags: Mapping[str, Tag]) -> Run:
    """Make a run from the dataset's explicit form."""
    params = dict(abstract["params"])
    system_params = params.pop(SYSTEM_PARAMS, None)
    attached = [tags[name] for name in abstract["tags"]]
    document = RunDocument(
        hash=abstract["hash"],
        name=abstract["name"],
        description=abstract["description"],
        experiment_id=experiment.id,
        tag_ids=tuple(tag.id for tag in attached),
        created_at_seconds=abstract["created_at"],
        end_time_seconds=abstract["end_time"],
        updated_at_seconds=abstract["created_at"],
        archived=abstract["archived"],
        active=abstract["end_time"] is None,
        params=encode_tree(params),
        has_system_params=system_params is not None,
    )
    return Run(
        number=number,
        document=document,
        experiment=experiment,
        tags=tuple(tag for tag in attached if not tag.archived),
        raw_system_params=None if system_params is None else encode_tree(system_params),
    )


def make_summary(sequence: Mapping[str, Any]) -> Summary:
    """Make the record that tracking the points in their order leaves."""
    bucket = BUCKET_OF_WORD[sequence["type"]]
    points: list[expand.Point] = sequence["points"]
    latest: dict[int, expand.Point] = {point.step: point for point in points}
    greatest = max(latest)
    summary = Summary(
        bucket=bucket,
        name=sequence["name"],
        context=canonical_context(sequence["context"]),
        dtype=_dtype(bucket, [point.value for point in points]),
        count=len(latest),
        first_step=points[0].step,
        last_step=greatest,
        step_min=min(latest),
        time_first_ms=int(points[0].time * 1000),
        time_last_ms=int(latest[greatest].time * 1000),
    )
    if bucket != Bucket.METRIC:
        summary.record_length_max = max(len(p.value) if isinstance(p.value, list) else 1 for p in points)
        return summary
    values = [float(point.value) for point in points]
    numbers = [value for value in values if not math.isnan(value)]
    summary.first = values[0]
    summary.last = float(latest[greatest].value)
    summary.minimum = min(numbers, default=None)
    summary.maximum = max(numbers, default=None)
    summary.non_finite = sum(not math.isfinite(value) for value in values)
    return summary


def _dtype(bucket: Bucket, values: list[Any]) -> str:
    if bucket == Bucket.METRIC:
        kinds = {"float" if isinstance(value, float) else "int" for value in values}
        return kinds.pop() if len(kinds) == 1 else "number"
    is_list = any(isinstance(value, list) for value in values)
    example = values[0][0] if isinstance(values[0], list) else values[0]
    kind: str = example["type"]
    return f"list({kind})" if is_list else kind
