"""What is tortured: `matyan up` on embedded engines, or four roles on Kafka, S3 and LMDB or FoundationDB."""

from __future__ import annotations

import functools
import math
import subprocess
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final, Self
from urllib.parse import urlsplit

from matyan.configuration import load
from matyan.engines.blob.protocol import BlobEngine
from matyan.engines.kv.protocol import KvEngine
from matyan.engines.open import open_blobs, open_kv, partitions_of_new
from matyan.roles.context import DATA_TOPIC
from matyan.settings import Settings
from matyan.wire.topics import CONTROL_EVENTS
from tests.support.foundationdb import Cluster
from tests.support.kafka import running_broker
from tests.support.s3 import serving_s3
from tests.support.server import MATYAN
from tests.torture.disks import SmallDisk
from tests.torture.processes import Process, environment, python_module
from tests.torture.schedule import Choice, Fault, Kind
from tests.torture.valve import Valve

IDLE_SECONDS_MAX: Final = 120.0
SWEEP_SECONDS_MAX: Final = 120.0
SESSION_SECONDS: Final = 6
"""After so long a silent worker loses its partitions, and a silent job its lease."""
LONGER: Final = (8.0, 13.0)
"""Longer than that."""
HANDLING_SECONDS: Final = 20
"""A group waits so long for members that died and that its broker, itself killed meanwhile, does not find dead."""
SPILL_BYTES_MAX: Final = 300_000
"""Of the one frontier; the other one's disk is filled up."""
TOPICS: Final = (DATA_TOPIC, CONTROL_EVENTS)
SECRETS: Final = "of-the-torture-alone-and-long-enough-for-it"
BUCKET: Final = "torture"
NAMES: Final = ("serve-1", "frontier-1", "frontier-2", "ingest-1", "ingest-2", "ingest-3", "control-1", "control-2")
KV_FAULTS: Final = "too_old=0.02,conflict=0.05,unknown_lost=0.02,unknown_applied=0.03,unavailable=0.002,outage_calls=5"


class Deployment(ABC):
    """Processes that make one tracker, what they share, and what may happen to them."""

    choices: Sequence[Choice]
    gap_seconds: float
    """Mean distance of two faults."""
    guests: Collection[str] = ()
    """Processes that do not run by themselves, but come and go."""

    def __init__(self, folder: Path, seed: int, *, kv_faults: bool) -> None:
        """Make it; nothing runs yet.

        Args:
            folder: of all data and logs.
            seed: of errors inside the store.
            kv_faults: whether the store makes errors.
        """
        self.folder = folder
        self.processes: dict[str, Process] = {}
        self._seed = seed
        self._kv_faults = kv_faults
        self.environment: dict[str, str] = {}
        """Settings that all processes share."""
        self._stack = ExitStack()

    @property
    @abstractmethod
    def api(self) -> str:
        """The origin of REST."""

    @property
    @abstractmethod
    def frontiers(self) -> Sequence[str]:
        """The origins that take in runs."""

    @property
    def settings(self) -> Settings:
        """Settings that lead to the store and the files, for looking at them while nothing runs."""
        return load(environ={"MATYAN_HOME": str(self.folder / "home"), **self.environment})

    def start(self) -> None:
        """Start everything and wait until it is ready; the first process makes what all of them share."""
        first, *others = (process for name, process in self.processes.items() if name not in self.guests)
        first.start()
        first.wait_until_ready()
        for process in others:
            process.start()
        for process in others:
            process.wait_until_ready()

    def tend(self) -> None:
        """Start again what ended by itself."""
        for process in self.processes.values():
            process.tend()

    def inject(self, fault: Fault) -> None:
        """Do it."""
        self._actions(fault.target)[fault.kind][0]()

    def undo(self, fault: Fault) -> None:
        """Undo it."""
        self._actions(fault.target)[fault.kind][1]()

    def wait_until_ready(self) -> None:
        """Wait until every process is."""
        for process in self._running():
            process.wait_until_ready()

    def wait_until_idle(self) -> None:
        """Wait until everything that was acknowledged is applied; nobody writes any more."""
        deadline = time.monotonic() + IDLE_SECONDS_MAX
        while (lag := self.lag()) > 0:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{lag} records are not applied after {IDLE_SECONDS_MAX:.0f} s (inf: unknown)")
            time.sleep(0.2)

    def lag(self) -> float:
        """Return how many records wait to be applied, as frontiers and workers say.

        Infinity while a partition has no worker.
        """
        lags: dict[str, float] = {}
        spilled = 0.0
        for process in self._running():
            lags |= process.samples("matyan_consumer_lag_records")
            spilled += sum(process.samples("matyan_spill_records").values())
        partitions = self.settings.log.partitions or partitions_of_new(self.settings.log_uri)
        is_complete = len(lags) >= len(TOPICS) * partitions
        return spilled + sum(lags.values()) if is_complete else math.inf

    def stop(self) -> None:
        """End every process as a service manager does, all at once."""
        threads = [threading.Thread(target=process.stop) for process in self.processes.values()]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def sweep(self) -> str:
        """Do every job that tidies up, once, while nothing runs and nobody uploads; return what is wrong with that."""
        command = [str(MATYAN), "sweep", "--now", "--home", str(self.folder / "home")]
        done = subprocess.run(
            command,
            env=environment(self.environment),
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=SWEEP_SECONDS_MAX,
            check=False,
        )
        (self.folder / "sweep.log").write_text(done.stdout)
        return "" if done.returncode == 0 else f"matyan sweep ended with {done.returncode}: {done.stdout[-1000:]}"

    def kv_fault_counts(self) -> Mapping[str, int]:
        """Return how many errors of each kind the store made."""
        counts: dict[str, int] = {}
        for path in self.folder.glob("*.kv-faults"):
            for line in path.read_text().splitlines():
                counts[f"kv {line}"] = counts.get(f"kv {line}", 0) + 1
        return counts

    def blobs(self) -> BlobEngine:
        """Open the files."""
        settings = self.settings
        return open_blobs(settings.blob_uri, keys=[SECRETS.encode()], s3=settings.s3)

    def open_kv(self) -> KvEngine:
        """Open the store."""
        return open_kv(self.settings.kv_uri, fdb=self.settings.fdb)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes.values():
            process.kill()
        self._stack.close()

    def _running(self) -> list[Process]:
        return [process for process in self.processes.values() if process.is_running]

    def _add(self, name: str, *arguments: str, settings: Mapping[str, str]) -> None:
        prefix = self._faulty(name) if self._kv_faults else []
        self.processes[name] = Process(name, arguments, self.folder, settings, prefix)

    def _faulty(self, name: str) -> list[str]:
        report = str(self.folder / f"{name}.kv-faults")
        seed = str(self._seed)
        return python_module("tests.support.faulty_role", "--seed", seed, "--rates", KV_FAULTS, "--report", report)

    def _actions(self, target: str) -> Mapping[Kind, tuple[Callable[[], None], Callable[[], None]]]:
        process = self.processes[target]
        return {
            Kind.KILL: (process.kill, process.start),
            Kind.STOP: (process.stop, process.start),
            Kind.FREEZE: (process.freeze, process.thaw),
            Kind.JOIN: (process.start, process.stop),
        }


class Embedded(Deployment):
    """One `matyan up`."""

    choices = (
        Choice(Kind.KILL, "up", 0.2, 4.0),
        Choice(Kind.KILL, "up", 0.2, 4.0),
        Choice(Kind.STOP, "up", 0.2, 3.0),
        Choice(Kind.FREEZE, "up", 1.0, 12.0),
    )
    gap_seconds = 4.0

    def __init__(self, folder: Path, seed: int, *, kv_faults: bool) -> None:
        super().__init__(folder, seed, kv_faults=kv_faults)
        self._add("up", "up", "--home", str(folder / "home"), settings={})

    @property
    def api(self) -> str:
        return self.processes["up"].url

    @property
    def frontiers(self) -> Sequence[str]:
        return [self.api]


class Apart(Deployment):
    """Two frontiers, two workers, two of control, one that serves; the third worker comes and goes."""

    choices: Sequence[Choice] = (
        Choice(Kind.KILL, "frontier-1", 0.2, 5.0),
        Choice(Kind.KILL, "frontier-2", 0.2, 5.0),
        Choice(Kind.KILL, "ingest-1", 0.2, 5.0),
        Choice(Kind.KILL, "ingest-2", 0.2, 5.0),
        Choice(Kind.KILL, "control-1", 0.2, 5.0),
        Choice(Kind.KILL, "serve-1", 0.2, 3.0),
        Choice(Kind.KILL, "broker", 0.2, 8.0),
        Choice(Kind.STOP, "frontier-1", 0.2, 2.0),
        Choice(Kind.STOP, "ingest-2", 0.2, 2.0),
        Choice(Kind.STOP, "control-2", 0.2, 2.0),
        Choice(Kind.STOP, "serve-1", 0.2, 2.0),
        Choice(Kind.FREEZE, "ingest-1", *LONGER),
        Choice(Kind.FREEZE, "ingest-2", *LONGER),
        Choice(Kind.FREEZE, "control-1", *LONGER),
        Choice(Kind.FREEZE, "frontier-2", 1.0, 10.0),
        Choice(Kind.FREEZE, "broker", 1.0, 8.0),
        Choice(Kind.FILL, "broker", 5.0, 12.0),
        Choice(Kind.CUT, "s3", 1.0, 10.0),
        Choice(Kind.JOIN, "ingest-3", 5.0, 20.0),
    )
    gap_seconds = 5.0
    guests = ("ingest-3",)

    def __init__(self, folder: Path, seed: int, *, kv_faults: bool) -> None:
        super().__init__(folder, seed, kv_faults=kv_faults)
        self._broker = self._stack.enter_context(running_broker(folder / "kafka"))
        self._s3 = self._stack.enter_context(serving_s3())
        self._valve = Valve(urlsplit(self._s3.endpoint).port or 80)
        self._stack.callback(self._valve.close)
        self.environment = {
            "MATYAN_KV_URI": self._store(),
            "MATYAN_LOG_URI": self._broker.uri,
            "MATYAN_KAFKA_SESSION_SECONDS": str(SESSION_SECONDS),
            "MATYAN_KAFKA_HANDLING_SECONDS": str(HANDLING_SECONDS),
            "MATYAN_SECRETS_KEYS": SECRETS,
            **self._s3.environment(BUCKET),
            "MATYAN_S3_ENDPOINT": f"http://127.0.0.1:{self._valve.port}",
        }
        self._disk = SmallDisk(folder / "spill")
        self._stack.callback(self._disk.close)
        own = {
            "frontier-1": {"MATYAN_SPILL_PATH": str(self._disk.path)},
            "frontier-2": {"MATYAN_SPILL_BYTES_MAX": str(SPILL_BYTES_MAX)},
        }
        for name in NAMES:
            home = str(folder / name)
            self._add(name, name.partition("-")[0], "--home", home, settings=self.environment | own.get(name, {}))

    @property
    def api(self) -> str:
        return self.processes["serve-1"].url

    @property
    def frontiers(self) -> Sequence[str]:
        return [process.url for name, process in self.processes.items() if name.startswith("frontier")]

    def _store(self) -> str:
        """Make the store ready; return its URI."""
        return f"lmdb://{self.folder / 'kv'}"

    def _actions(self, target: str) -> Mapping[Kind, tuple[Callable[[], None], Callable[[], None]]]:
        broker, valve = self._broker, self._valve
        others: Mapping[str, Mapping[Kind, tuple[Callable[[], None], Callable[[], None]]]] = {
            "broker": {
                Kind.KILL: (broker.kill, broker.start),
                Kind.FREEZE: (broker.freeze, broker.thaw),
                Kind.FILL: (self._fill, self._free),
            },
            "s3": {Kind.CUT: (valve.shut, valve.open)},
        }
        return others.get(target) or super()._actions(target)

    def _fill(self) -> None:
        """Let the log be away while what is kept for it finds no room."""
        self._broker.freeze()
        self._disk.fill()

    def _free(self) -> None:
        self._disk.free()
        self._broker.thaw()


class OnFoundationDb(Apart):
    """The same roles on a FoundationDB cluster of one process, which is killed and frozen like the others."""

    choices = (
        *Apart.choices,
        Choice(Kind.KILL, "foundationdb", 0.2, 8.0),
        Choice(Kind.FREEZE, "foundationdb", 1.0, 12.0),
    )

    def __init__(self, folder: Path, seed: int, *, kv_faults: bool) -> None:
        home = folder / "foundationdb"
        home.mkdir()
        self._cluster = Cluster(home)  # before anything runs: there may be none to be had
        super().__init__(folder, seed, kv_faults=kv_faults)

    def _store(self) -> str:
        self._stack.callback(self._cluster.kill)
        self._cluster.start()
        return f"fdb://{self._cluster.file}"

    def _actions(self, target: str) -> Mapping[Kind, tuple[Callable[[], None], Callable[[], None]]]:
        if target != "foundationdb":
            return super()._actions(target)
        freeze, thaw = (functools.partial(self._cluster.pause, is_paused=is_paused) for is_paused in (True, False))
        return {Kind.KILL: (self._cluster.kill, self._cluster.start), Kind.FREEZE: (freeze, thaw)}


DEPLOYMENTS: Final[Mapping[str, type[Deployment]]] = {
    "embedded": Embedded,
    "apart": Apart,
    "foundationdb": OnFoundationDb,
}
"""Name on the command line -> what it means."""
