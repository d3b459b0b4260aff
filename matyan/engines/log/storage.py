"""The topics of an embedded log on disk: opened with the log, or made when first named."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path

from matyan.engines.disk import unavailable
from matyan.engines.log.catalog import Catalog, check_topic, save_catalog
from matyan.engines.log.partition import Partition, PartitionSettings
from matyan.engines.log.protocol import TopicPartition
from matyan.engines.log.topic import Topic
from matyan.errors import ConfigurationError, InvalidArgumentError


class Storage:
    """The topics of a log and the file that lists them."""

    def __init__(
        self, root: Path, catalog: Catalog, partitions: Mapping[str, int] | int, settings: PartitionSettings
    ) -> None:
        self.root = root
        self._catalog = catalog
        self._partitions = partitions
        self._settings = settings
        self._lock = threading.Lock()
        self._topics: dict[str, Topic] = {}
        asked = partitions if isinstance(partitions, Mapping) else {}
        try:
            for name in {**catalog.topics, **asked}:
                self.topic(name)
        except BaseException:
            self.close()
            raise

    @property
    def log_id(self) -> str:
        """The log's identity."""
        return self._catalog.log_id

    def topic(self, name: str) -> Topic:
        """Return a topic, creating it when it has no files yet.

        Raises:
            ConfigurationError: nobody said how many partitions it has.
            InvalidArgumentError: no topic can have that name.
            UnavailableError: its files cannot be made.
        """
        topic = self._topics.get(name)
        if topic is None:
            try:
                with self._lock:
                    topic = self._topics.get(name) or self._open_topic(name)
            except OSError as error:
                raise unavailable(error, "the log", self.root) from error
        return topic

    def partition(self, name: TopicPartition) -> Partition:
        """Return a partition.

        Raises:
            InvalidArgumentError: there is none of this number.
        """
        partitions = self.topic(name.topic).partitions
        if not 0 <= name.partition < len(partitions):
            raise InvalidArgumentError(
                f"topic {name.topic} has partitions 0 to {len(partitions) - 1}, not {name.partition}"
            )
        return partitions[name.partition]

    def _open_topic(self, name: str) -> Topic:
        check_topic(name)
        count = self._catalog.topics.get(name)
        if count is None:
            count = self._partitions.get(name) if isinstance(self._partitions, Mapping) else self._partitions or 1
            if count is None:
                raise ConfigurationError(f"topic {name} has no number of partitions in the settings")
            catalog = Catalog(self._catalog.format, self.log_id, {**self._catalog.topics, name: count})
            save_catalog(self.root, catalog, self._settings.disk)
            self._catalog = catalog
        partitions: list[Partition] = []
        try:
            for number in range(count):
                partitions.append(Partition(self.root / f"{name}-{number}", self._settings))  # noqa: PERF401 (closed below)
        except BaseException:
            for partition in partitions:
                partition.close()
            raise
        topic = self._topics[name] = Topic(name, partitions)
        return topic

    def close(self) -> None:
        """Release the files, wake every reader."""
        for topic in self._topics.values():
            topic.close()
            for partition in topic.partitions:
                partition.close()
