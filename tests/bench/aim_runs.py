"""The runs of a store in an Aim repository, written as Aim's users write them; run by a Python that has Aim 3.29.1.

    python -m tests.bench.aim_runs FOLDER RUNS

Prints one JSON object: seconds, those of the index, and bytes on disk.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import aim
from aim.sdk.reporter import RunStatusReporter

from tests.bench.population import PlannedRun, planned_runs


def main(folder: str, count: int) -> None:
    """Make a repository with `count` runs, all ended."""
    _wait_for_no_last_sign_of_life()
    Path(folder).mkdir(parents=True)
    aim.Repo.from_path(folder, init=True)
    begin = time.perf_counter()
    for planned in planned_runs(count):
        _write(folder, planned)
    written = time.perf_counter() - begin
    command = [str(Path(sys.executable).with_name("aim")), "storage", "--repo", folder, "reindex", "--yes"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    size = sum(path.stat().st_blocks * 512 for path in Path(folder).rglob("*") if path.is_file())
    print(json.dumps({"seconds": written, "reindex_seconds": time.perf_counter() - begin - written, "bytes": size}))


def _wait_for_no_last_sign_of_life() -> None:
    """Change what closing a run does: the wait for its last sign of life has no end at times, on a busy machine."""
    flush = RunStatusReporter.flush
    RunStatusReporter.flush = lambda self, flag_name=None, block=True: flush(self, flag_name, block=False)


def _write(folder: str, planned: PlannedRun) -> None:
    run: Any = aim.Run(
        repo=folder, experiment=planned.experiment, system_tracking_interval=None, capture_terminal_logs=False
    )
    run.name = planned.name
    for tag in planned.tags:
        run.add_tag(tag)
    for key, value in planned.params.items():
        run[key] = value
    for curve in planned.curves:
        for step, value in enumerate(curve.values.tolist()):
            run.track(value, name=curve.name, step=step, epoch=step // 10, context=dict(curve.context))
    run.archived = planned.archived
    run.close()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
