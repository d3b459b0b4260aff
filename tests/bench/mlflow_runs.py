"""The runs of a store in MLflow's SQLite store, by its batches and without its server; run by a Python that has MLflow.

    python -m tests.bench.mlflow_runs FOLDER RUNS

Prints one JSON object: seconds, bytes on disk, and the version of MLflow.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import mlflow  # type: ignore[import-not-found, unused-ignore] # only in the Python of the peer
from mlflow.entities import Metric, Param, RunTag  # type: ignore[import-not-found, unused-ignore]

from tests.bench.population import Curve, PlannedRun, planned_runs


def main(folder: str, count: int) -> None:
    """Make a database with `count` runs, all ended."""
    logging.disable(logging.WARNING)
    Path(folder).mkdir(parents=True)
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{folder}/mlflow.db")
    experiments: dict[str, str] = {}
    begin = time.perf_counter()
    for planned in planned_runs(count):
        if planned.experiment not in experiments:
            experiments[planned.experiment] = client.create_experiment(planned.experiment)
        _write(client, experiments[planned.experiment], planned)
    size = sum(path.stat().st_blocks * 512 for path in Path(folder).rglob("*") if path.is_file())
    print(json.dumps({"seconds": time.perf_counter() - begin, "bytes": size, "version": mlflow.__version__}))


def _write(client: Any, experiment_id: str, planned: PlannedRun) -> None:
    run = client.create_run(experiment_id, start_time=int(planned.created_at_seconds * 1000), run_name=planned.name)
    times = planned.times_ms().tolist()
    metrics = [
        Metric(metric_name(curve), value, moment, step)
        for curve in planned.curves
        for step, (value, moment) in enumerate(zip(curve.values.tolist(), times, strict=True))
    ]
    params = [Param(name, str(value)) for name, value in _flat(planned.params)]
    client.log_batch(run.info.run_id, metrics, params, [RunTag(name, "true") for name in planned.tags])
    client.set_terminated(run.info.run_id, end_time=int(planned.end_time_seconds * 1000))


def metric_name(curve: Curve) -> str:
    """Return what stands for name and context: MLflow has no contexts."""
    return "/".join([curve.name, *curve.context.values()])


def _flat(tree: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{path}{key}.")
        else:
            yield f"{path}{key}", value


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
