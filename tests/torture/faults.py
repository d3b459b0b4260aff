"""Carries out a schedule."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Sequence
from typing import Final

from tests.torture.deployments import Deployment
from tests.torture.schedule import Fault

TEND_SECONDS: Final = 0.5


class Injector:
    """Injects each fault at its moment and undoes it, in a thread of its own; starts again what ends by itself."""

    def __init__(self, deployment: Deployment, faults: Sequence[Fault]) -> None:
        self._deployment = deployment
        self._stop = threading.Event()
        self._begin = time.monotonic()
        self._locks = {fault.target: threading.Lock() for fault in faults}
        self._threads = [threading.Thread(target=self._carry_out, args=(fault,), daemon=True) for fault in faults]
        self._threads.append(threading.Thread(target=self._tend, daemon=True))
        self.injected: Counter[str] = Counter()
        """Kind and target -> how often."""
        self.errors: list[str] = []
        """Faults that could not be injected or undone: the harness is at fault, or this machine."""

    def start(self) -> None:
        """Begin."""
        self._begin = time.monotonic()
        for thread in self._threads:
            thread.start()

    def finish(self) -> None:
        """Inject no more, undo what is injected, and return when that is done."""
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _carry_out(self, fault: Fault) -> None:
        if self._stop.wait(self._begin + fault.at - time.monotonic()):
            return
        with self._locks[fault.target]:
            try:
                self._deployment.inject(fault)
                self.injected[f"{fault.kind} {fault.target}"] += 1
                self._stop.wait(fault.seconds)
                self._deployment.undo(fault)
            except Exception as error:  # noqa: BLE001 - a thread tells by its report
                self.errors.append(f"{fault}: {error!r}")

    def _tend(self) -> None:
        while not self._stop.wait(TEND_SECONDS):
            self._deployment.tend()
