"""What is read when somebody scrapes: queues, backlogs and sizes, which nobody follows all the time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from matyan import threads
from matyan.clock import Clock
from matyan.engines.kv.protocol import KvEngine
from matyan.engines.log.protocol import LogProducer
from matyan.http.streaming import parked_streams
from matyan.ingestion.backlog import Backlog
from matyan.observe.metrics import Metrics
from matyan.store import outbox

if TYPE_CHECKING:
    from matyan.runs.cache import RunCache


@runtime_checkable
class FileStore(Protocol):
    """A store in one file of this machine."""

    def size_bytes(self) -> int:
        """Return the size of the file."""

    def free_bytes(self) -> int:
        """Return how much of it the next writes reuse."""


@runtime_checkable
class Queueing(Protocol):
    """Something that keeps what it was given until it is done with it."""

    @property
    def queued_bytes(self) -> int:
        """How much that is."""


def sample_threads(metrics: Metrics) -> None:
    """Show how busy the pools are, and how many answers wait for their clients."""

    def sample() -> None:
        for name, load in threads.loads().items():
            metrics.pool_threads.labels(name).set(load.threads)
            metrics.pool_calls.labels(name).set(load.calls)
        metrics.streams_parked.set(parked_streams())

    metrics.add_sampler(sample)


def sample_cache(metrics: Metrics, cache: RunCache) -> None:
    """Show how much is kept in memory for searches."""
    metrics.add_sampler(lambda: metrics.cached_bytes.set(cache.bytes_held))


def sample_store(metrics: Metrics, kv: KvEngine) -> None:
    """Show the size of a store that is a file; FoundationDB is asked by its own tools."""
    if not isinstance(kv, FileStore):
        return
    store = kv

    def sample() -> None:
        metrics.store_bytes.set(store.size_bytes())
        metrics.store_free_bytes.set(store.free_bytes())

    metrics.add_sampler(sample)


def sample_producer(metrics: Metrics, producer: LogProducer) -> None:
    """Show what waits to become durable."""
    if isinstance(producer, Queueing):
        queue = producer
        metrics.add_sampler(lambda: metrics.log_queue_bytes.set(queue.queued_bytes))


def sample_outbox(metrics: Metrics, kv: KvEngine, topics: Sequence[str], clock: Clock) -> None:
    """Show what waits in the store for the relay."""

    def sample() -> None:
        found = kv.read(lambda reader: [outbox.read_backlog(reader, topic) for topic in topics])
        now_ms = clock.now_seconds() * 1000
        for topic, waiting in zip(topics, found, strict=True):
            age_ms = 0.0 if waiting.oldest_ms is None else max(0.0, now_ms - waiting.oldest_ms)
            metrics.outbox_entries.labels(topic).set(waiting.entries)
            metrics.outbox_age_seconds.labels(topic).set(age_ms / 1000)

    metrics.add_sampler(sample)


def sample_backlog(metrics: Metrics, backlog: Backlog) -> None:
    """Show what is acknowledged and not visible yet."""

    def sample() -> None:
        metrics.ingest_backlog_bytes.set(backlog.size_bytes)
        metrics.ingest_backlog_seconds.set(backlog.age_seconds())

    metrics.add_sampler(sample)
