"""Aim's own local mode on the same kind of data; run by a Python that has Aim 3.29.1.

    python -m tests.bench.aim_local FOLDER RUNS STEPS

Prints one JSON object: points, seconds, and bytes on disk.
"""

from __future__ import annotations

import json
import math
import random
import sys
import time
from pathlib import Path

import aim

METRICS = 10


def main(folder: str, runs: int, steps: int) -> None:
    """Track ten metrics for `steps` steps in each of `runs` runs, one after another, and close them."""
    noise = random.Random(7)
    values = [(0.1 + 2 / (1 + step / 200)) * math.exp(noise.gauss(0, 0.1)) for step in range(steps)]
    Path(folder).mkdir()
    aim.Repo.from_path(folder, init=True)  # an empty repository takes megabytes, which are not the points'
    before = disk_bytes(folder)
    begin = time.perf_counter()
    for _ in range(runs):
        run = aim.Run(repo=folder, system_tracking_interval=None, capture_terminal_logs=False)
        for step, value in enumerate(values):
            epoch = step // 1000
            for index in range(METRICS):
                run.track(value + index, name=f"metric_{index}", step=step, epoch=epoch, context={"subset": "train"})
        run.close()
    seconds = time.perf_counter() - begin
    print(json.dumps({"points": runs * steps * METRICS, "seconds": seconds, "bytes": disk_bytes(folder) - before}))


def disk_bytes(folder: str) -> int:
    """Return the bytes that the files under a folder take up on the disk."""
    return sum(path.stat().st_blocks * 512 for path in Path(folder).rglob("*") if path.is_file())


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
