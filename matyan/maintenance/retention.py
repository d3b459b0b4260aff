"""The log is deleted only below what the store holds for good."""

from __future__ import annotations

from matyan.engines.kv.protocol import KvEngine
from matyan.engines.log.protocol import LogEngine, partitions_of
from matyan.errors import ConfigurationError
from matyan.store import offsets


def trim_applied(kv: KvEngine, log: LogEngine, topic: str, *, keep_records: int = 0) -> int:
    """Delete the segments of a topic that are applied and whose effect survives the loss of power; return the bytes.

    The newest `keep_records` of each partition stay for other readers.
    """
    partitions = partitions_of(log, topic)
    applied = kv.read(lambda reader: offsets.get_many(reader, log.log_id, partitions))
    # What was applied before this moment is durable when sync returns; what came later is not looked at.
    kv.sync()
    return sum(
        log.trim(partition, max(0, position.offset - keep_records))
        for partition, position in zip(partitions, applied, strict=True)
        if position is not None
    )


def check_continuity(kv: KvEngine, log: LogEngine, topic: str) -> None:
    """Refuse to start on a store and a log that do not belong together.

    Raises:
        ConfigurationError: records between the applied offset and the log's start are gone, or the store is ahead of
            the log.
    """
    for partition in partitions_of(log, topic):
        # In this order: other workers may be at work, the log grows before it is applied and is trimmed after that.
        start = log.start_offset(partition)
        position = kv.read(lambda reader: offsets.get(reader, log.log_id, partition))  # noqa: B023 (called at once)
        end = log.producer().end_offset(partition)
        applied = 0 if position is None else position.offset
        if not start <= applied <= end:
            raise ConfigurationError(
                f"the store has applied {topic}/{partition.partition} up to offset {applied}, the log holds {start} to "
                f"{end}: one of them was restored or deleted without the other. Restore both from one backup, or move "
                "the log directory away to start a fresh log (what was not applied is then lost)"
            )
