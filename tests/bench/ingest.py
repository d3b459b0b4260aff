"""Ingestion, next to Aim's local mode in the same run where Aim is installed."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from tests.bench import machine
from tests.bench.frames import METRICS, POINTS_PER_FRAME
from tests.bench.pipeline import apart
from tests.bench.table import Table
from tests.bench.visibility import Delays, measure_delays, seconds_until_visible
from tests.bench.writer_process import ROOT, WriterProcess
from tests.support.server import MatyanServer, matyan

OFFERED_POINTS_PER_SECOND: Final = 50_000


class Amount(NamedTuple):
    """How much is written, always ten metrics a step."""

    frames: int
    """Of a hundred points, on each of 20 connections."""
    seconds: float
    """How long visibility is watched."""
    steps: int = 5_000
    """Of one long run: what Aim does best; also what the released client writes."""
    study_runs: int = 20
    study_steps: int = 500
    """A study of short runs."""

    def part(self, share: float) -> Amount:
        """Return the same with a share of the steps."""
        return self._replace(steps=max(10, int(self.steps * share)), study_steps=max(10, int(self.study_steps * share)))


class Row(NamedTuple):
    """One line of the table: a figure, its peer's where there is one, and how many times better ours is."""

    work: str
    matyan: str
    aim: str = "-"
    ratio: str = "-"


class AimFigures(NamedTuple):
    """What Aim's local mode did with the same kind of data."""

    points_per_second: float
    study_points_per_second: float
    bytes_per_point: float


def one_process(folder: Path, amount: Amount) -> Table:
    """Measure `matyan up`."""
    return _table("Ingestion, one process", measure_matyan(folder, amount, measure_aim(folder, amount)))


def through_kafka(folder: Path, amount: Amount) -> Table:
    """Measure the roles apart; no rows where Kafka or S3 cannot be had."""
    return _table("Ingestion through Kafka", measure_pipeline(folder, amount.frames, measure_aim(folder, amount)))


def measure_matyan(folder: Path, amount: Amount, aim: AimFigures | None) -> list[Row]:
    """Run every measurement against one server and return the table."""
    rows = []
    with MatyanServer(folder / "home") as server:
        for connections, count in ((1, amount.frames * 4), (20, amount.frames)):
            rows += ingest_rows(server, connections, count, aim)
        rows.append(study_row(server, amount, aim))
        rows.append(client_row(server, amount, aim))
        rows += delay_rows(measure_under_load(server, amount.seconds))
        server.stop()
    rows.append(disk_row(folder, amount.frames, aim))
    return rows


def measure_pipeline(folder: Path, frames: int, aim: AimFigures | None) -> list[Row]:
    """Measure the roles apart, one process of each, on Kafka and S3."""
    with apart(folder / "apart") as roles:
        if roles is None:
            return []
        rates = ingest_rates(roles["frontier"].port, roles["serve"].url, 20, frames)
    peer = None if aim is None else aim.points_per_second
    return [
        rate_row(f"through Kafka (1 frontier, 1 worker), 20 connections, {what}", rate, peer)
        for what, rate in rates.items()
    ]


def ingest_rows(server: MatyanServer, connections: int, frames: int, aim: AimFigures | None) -> list[Row]:
    """Measure the ingestion of one process."""
    peer = None if aim is None else aim.points_per_second
    name = f"{connections} connection{'s' if connections > 1 else ''}"
    rates = ingest_rates(server.port, server.url, connections, frames)
    return [rate_row(f"ingest, {name}, {what}", rate, peer) for what, rate in rates.items()]


def ingest_rates(port: int, api: str, connections: int, frames: int) -> Mapping[str, float]:
    """Return points per second until everything is acknowledged, and until everything is visible."""
    writers = WriterProcess(port, f"ingest-{connections}", connections, frames)
    begin = time.perf_counter()
    writers.begin()
    report = writers.wait()
    visible = seconds_until_visible(api, writers.runs, writers.frames, begin)
    return {
        "acknowledged (durable)": report["points"] / report["seconds"],
        "until visible": report["points"] / visible,
    }


def study_row(server: MatyanServer, amount: Amount, aim: AimFigures | None) -> Row:
    """Measure a study of short runs, from the first frame until everything is visible."""
    writers = WriterProcess(server.port, "study", amount.study_runs, amount.study_steps * METRICS // POINTS_PER_FRAME)
    begin = time.perf_counter()
    writers.begin()
    report = writers.wait()
    visible = seconds_until_visible(server.url, writers.runs, writers.frames, begin)
    peer = None if aim is None else aim.study_points_per_second
    work = f"{amount.study_runs} runs of 10 metrics and {amount.study_steps} steps, a connection each, until visible"
    return rate_row(work, report["points"] / visible, peer)


def client_row(server: MatyanServer, amount: Amount, aim: AimFigures | None) -> Row:
    """Measure the released client: one process, ten metrics, from the first track() to the end of close()."""
    command = [sys.executable, "-m", "tests.support.client_scripts", "rate", server.url, str(amount.steps)]
    seconds = run_json(command)
    peer = None if aim is None else aim.points_per_second
    return rate_row("the released matyan-client, one process", amount.steps * METRICS / seconds, peer)


def measure_under_load(server: MatyanServer, seconds: float) -> Delays:
    """Measure acknowledged -> visible while 20 connections offer a steady load."""
    connections = 20
    frames = int(OFFERED_POINTS_PER_SECOND * seconds / 100 / connections)
    writers = WriterProcess(server.port, "load", connections, frames, OFFERED_POINTS_PER_SECOND)
    writers.begin()
    delays = measure_delays(server, writers.is_busy)
    report = writers.wait()
    return Delays(delays.seconds, points_per_second=report["points"] / report["seconds"])


def delay_rows(delays: Delays) -> list[Row]:
    """Make the rows of the visibility delay."""
    offered = f"{OFFERED_POINTS_PER_SECOND:,} points/s offered, {delays.points_per_second:,.0f} taken"
    return [
        Row(f"acknowledged -> visible, p{part} of {len(delays.seconds)} ({offered})", f"{value * 1e3:.0f} ms")
        for part, value in ((50, delays.quantile(0.5)), (99, delays.quantile(0.99)))
    ]


def disk_row(folder: Path, frames: int, aim: AimFigures | None) -> Row:
    """Write once more to empty data, merge, stop, compact, and count what lies on the disk."""
    home = folder / "disk"
    server = MatyanServer(home)
    with server:
        writers = WriterProcess(server.port, "disk", 20, frames)
        writers.begin()
        report = writers.wait()
        seconds_until_visible(server.url, writers.runs, writers.frames, time.perf_counter())
        server.stop()
    matyan("compact", "--home", str(home), timeout=600)
    parts = {path.name: machine.disk_bytes(path) for path in sorted(home.iterdir()) if path.is_dir()}
    stored = parts.get("kv", sum(parts.values())) / report["points"]
    everything = ", ".join(f"{name} {size / 1e6:.1f} MB" for name, size in parts.items())
    text = f"{stored:.1f} bytes ({report['points']:,} points: {everything})"
    if aim is None:
        return Row("a point on disk, noisy float32 loss", text)
    ratio = f"{aim.bytes_per_point / stored:.0f} times smaller"
    return Row("a point on disk, noisy float32 loss", text, f"{aim.bytes_per_point:.0f} bytes", ratio)


def rate_row(work: str, points_per_second: float, peer: float | None) -> Row:
    """Make a row of a rate, next to that of Aim's local mode."""
    ours = f"{points_per_second:,.0f} points/s"
    if peer is None:
        return Row(work, ours)
    return Row(work, ours, f"{peer:,.0f} points/s (local mode)", f"{points_per_second / peer:.1f} times")


def measure_aim(folder: Path, amount: Amount) -> AimFigures | None:
    """Measure Aim's local mode, or say that it is not there."""
    python = os.environ.get("MATYAN_BENCH_AIM_PYTHON") or (sys.executable if importlib.util.find_spec("aim") else None)
    if python is None:
        print("Aim is skipped: it cannot be imported, and MATYAN_BENCH_AIM_PYTHON names no Python that can.\n")
        return None
    one, study = (
        run_json([python, "-m", "tests.bench.aim_local", str(folder / f"aim-{runs}"), str(runs), str(steps)])
        for runs, steps in ((1, amount.steps), (amount.study_runs, amount.study_steps))
    )
    return AimFigures(
        points_per_second=one["points"] / one["seconds"],
        study_points_per_second=study["points"] / study["seconds"],
        bytes_per_point=one["bytes"] / one["points"],
    )


def run_json(command: Sequence[str]) -> Any:
    """Run a command and decode the last line that it prints."""
    environment = {**os.environ, "LOGURU_LEVEL": "WARNING"}
    output = subprocess.run(
        command, cwd=ROOT, env=environment, check=True, stdout=subprocess.PIPE, text=True, timeout=1200
    ).stdout
    return json.loads(output.splitlines()[-1])


def _table(title: str, rows: Sequence[Row]) -> Table:
    return Table(title, ("work", "Matyan", "Aim 3.29.1", "ratio"), rows)
