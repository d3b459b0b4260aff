"""A process that works on an embedded store, for tests that share one or kill its writer.

Usage: kv_process.py PATH add COUNT      read, add one and put, COUNT times
       kv_process.py PATH stream DURABLE commit numbered transactions for ever, on from the last one, print
                                        each number after its commit
       kv_process.py PATH hold           print "held" inside a write function, then wait for ever
       kv_process.py PATH stare          print "held" inside a read function, then wait for ever
"""

from __future__ import annotations

import sys
import threading
from pathlib import Path

from matyan.engines.kv.embedded import EmbeddedKv, open_embedded_kv
from matyan.engines.kv.protocol import KvReader, KvTransaction

KEYS_PER_COMMIT = 20
VALUE_BYTES = 3_000


def value_of(number: int, key_index: int) -> bytes:
    """Return the value that commit `number` writes to the key of that index: big enough to span pages."""
    return f"{number}:{key_index};".encode().ljust(VALUE_BYTES, b".")


def key_of(key_index: int) -> bytes:
    return b"key/%04d" % key_index


def _increment(tx: KvTransaction) -> None:
    tx.put(b"count", str(int(tx.get(b"count") or b"0") + 1).encode())


def _stream(kv: EmbeddedKv, *, durable: bool) -> None:
    number = int(kv.read(lambda snapshot: snapshot.get(b"number")) or b"0")
    while True:
        number += 1

        def commit(tx: KvTransaction, number: int = number) -> None:
            tx.put(b"number", str(number).encode())
            for key_index in range(KEYS_PER_COMMIT):
                tx.put(key_of(key_index), value_of(number, key_index))
            tx.put(b"new/%08d" % number, b"")

        kv.write(commit, durable=durable)
        print(number, flush=True)


def _hold(_view: KvReader) -> None:
    print("held", flush=True)
    threading.Event().wait()


def main() -> None:
    path, command, *arguments = sys.argv[1:]
    kv = open_embedded_kv(Path(path))
    if command == "add":
        for _ in range(int(arguments[0])):
            kv.write(_increment, durable=False)
    elif command == "stream":
        _stream(kv, durable=arguments[0] == "True")
    elif command == "hold":
        kv.write(_hold)
    elif command == "stare":
        kv.read(_hold)
    kv.close()


if __name__ == "__main__":
    main()
