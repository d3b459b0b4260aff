"""A process that appends until it is killed or its disk is full, and says on stdout what was acknowledged.

python log_process.py PATH SEED                  endless; a line "offset number" per acknowledged record
python log_process.py PATH SEED BYTES_MAX        files may not grow beyond BYTES_MAX: appends until refused, prints
                                                 "refused <message>", then lifts the limit and appends one more
"""

from __future__ import annotations

import os
import random
import resource
import sys
from collections.abc import Callable
from concurrent.futures import Future
from hashlib import blake2b
from pathlib import Path

from matyan.engines.log.embedded import open_embedded_log
from matyan.engines.log.protocol import Appended, LogEntry
from matyan.errors import UnavailableError

TOPIC = "data"
SEGMENT_BYTES = 100_000
PENDING_MAX = 20


def make_entry(seed: int, number: int) -> LogEntry:
    """Return the record of this number: its size and bytes follow from seed and number."""
    size = random.Random(f"{seed}/{number}").choice([0, 10, 300, 3000, 9000])
    digest = blake2b(f"{seed}/{number}".encode()).digest()
    return LogEntry(f"{seed}/{number}".encode(), (digest * (size // 64 + 1))[:size])


def _say(line: str) -> None:
    os.write(1, f"{line}\n".encode())  # one write: a kill cuts between lines, never within one


def _report(number: int) -> Callable[[Future[list[Appended]]], None]:
    return lambda future: _say(f"{future.result()[0].offset} {number}")


def main(path: Path, seed: int, bytes_max: int | None) -> None:
    """Append for ever, or until refused."""
    log = open_embedded_log(path, partitions=1, segment_bytes=bytes_max or SEGMENT_BYTES)
    producer = log.producer()
    if bytes_max:
        resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_max, resource.RLIM_INFINITY))
    pending: list[Future[list[Appended]]] = []
    number = 0
    while True:
        future = producer.append_many(TOPIC, [make_entry(seed, number)])
        if bytes_max:
            try:
                _say(f"{future.result()[0].offset} {number}")
            except UnavailableError as error:
                _say(f"refused {error}")
                resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
                bytes_max = None
        else:
            future.add_done_callback(_report(number))
            pending = [*pending[-PENDING_MAX:], future]
            if len(pending) > PENDING_MAX:
                pending[0].result()
        number += 1


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else None)
