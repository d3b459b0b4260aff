"""Compare one run, read back through REST, with what the oracle expects: value by value."""

from __future__ import annotations

from typing import Any

from tests.support.oracle import ExpectedRun, json_params, same_points
from tests.support.rest import Rest, canonical, eventually


def check_run(rest: Rest, expected: ExpectedRun) -> None:
    """Assert that everything of the run is there, exactly as expected and nothing else."""
    _wait_for_the_last_message(rest, expected)
    _check_props(rest, expected)
    assert rest.info(expected.run)["params"] == json_params(expected.params)
    check_metrics(rest, expected)
    _check_objects(rest, expected)
    assert rest.lines(expected.run) == expected.lines
    _check_records(rest, expected)


def check_metrics(rest: Rest, expected: ExpectedRun) -> None:
    """Assert that every series has exactly its points."""
    found = rest.metrics(expected.run)

    assert found.keys() == expected.metrics.keys()
    for key, series in expected.metrics.items():
        assert same_points(found[key], series), f"{key}: found {found[key]}, expected {series}"


def _wait_for_the_last_message(rest: Rest, expected: ExpectedRun) -> None:
    """Messages of a connection are applied in order; finish_run is the last, else the last point or record."""

    def read() -> tuple[bool, int, int, int]:
        points = sum(map(len, rest.metrics(expected.run).values()))
        records = len([1 for record in rest.records(expected.run) if _is_the_clients(record, expected)])
        return rest.info(expected.run)["props"]["active"], points, records, len(rest.lines(expected.run))

    points = sum(map(len, expected.metrics.values()))
    wanted = (expected.active, points, len(expected.records), len(expected.lines))
    assert eventually(read, wanted.__eq__) == wanted


def _check_props(rest: Rest, expected: ExpectedRun) -> None:
    props: dict[str, Any] = rest.info(expected.run)["props"]
    assert props["name"] == expected.name
    assert (props["description"] or None) == expected.description
    assert props["experiment"]["name"] in ((None, "default") if expected.experiment is None else (expected.experiment,))
    assert props["archived"] is expected.archived
    assert props["active"] is expected.active
    assert {tag["name"] for tag in props["tags"]} == expected.tags
    if expected.created_at is not None:
        assert abs(props["creation_time"] - expected.created_at) <= 0.001
    if expected.finished_at is None:
        assert props["end_time"] is None
    else:
        assert abs(props["end_time"] - expected.finished_at) <= 0.001


def _check_objects(rest: Rest, expected: ExpectedRun) -> None:
    info = rest.info(expected.run)
    for bucket in ("images", "audios", "texts", "distributions", "figures"):
        found = {(trace["name"], canonical(trace["context"])) for trace in info["traces"][bucket]}
        assert found == expected.objects.get(bucket, {}).keys(), bucket
    assert {artifact["path"] for artifact in info["artifacts"]} == expected.artifacts


def _check_records(rest: Rest, expected: ExpectedRun) -> None:
    found = [record for record in rest.records(expected.run) if _is_the_clients(record, expected)]
    kept = [{name: record[name] for name in ("message", "log_level", "timestamp")} for record in found]
    assert kept == [
        {name: record[name] for name in ("message", "log_level", "timestamp")} for record in expected.records
    ]
    for record, wanted in zip(found, expected.records, strict=True):
        assert (record["args"] or None) == (wanted["args"] or None)


def _is_the_clients(record: dict[str, Any], expected: ExpectedRun) -> bool:
    """The tracker adds warnings of its own about items it refused; the client's records are told by their text."""
    return record["message"] in {wanted["message"] for wanted in expected.records}
