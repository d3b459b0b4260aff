"""KafkaWriter: kafka-python's producer, opened anew when it cannot go on."""

from __future__ import annotations

import logging
import threading
from typing import Final

from kafka import KafkaProducer
from kafka.errors import (
    InvalidProducerEpochError,
    InvalidProducerIdMappingError,
    KafkaError,
    OutOfOrderSequenceNumberError,
    ProducerFencedError,
    RetriableError,
    UnknownProducerIdError,
)

from matyan.engines.log.kafka_client import REQUEST_BYTES_MAX, milliseconds, translate_at_start
from matyan.engines.log.kafka_cluster import ASK_SECONDS, KafkaCluster
from matyan.errors import MatyanError, UnavailableError
from matyan.settings import KafkaSettings

logger = logging.getLogger(__name__)

BATCH_BYTES: Final = 512 * 1024
"""From this size on a batch does not wait for more."""
_SPOILING_ERRORS: Final = (
    RetriableError,  # retried for as long as the settings allow
    OutOfOrderSequenceNumberError,
    UnknownProducerIdError,
    InvalidProducerIdMappingError,
    InvalidProducerEpochError,
    ProducerFencedError,
)


class KafkaWriter:
    """Holds the producer's client. Shared by all threads.

    A client that gave up on a batch which it had sent does not know what the broker has, so its sequence numbers are
    void. It would need a new producer id; kafka-python 3.0.12 drops the old one and never asks for another, and so
    sends nothing any more. Hence a whole new client, opened in a thread of its own as soon as the brokers answer.
    """

    def __init__(self, cluster: KafkaCluster, settings: KafkaSettings) -> None:
        self._cluster = cluster
        self._settings = settings
        self._lock = threading.Lock()
        self._is_closed = False
        self._client: KafkaProducer | None = self._open()

    def client(self) -> KafkaProducer:
        """Return the client to send with.

        Raises:
            UnavailableError: there is none until the brokers answer again, or the log is closed.
        """
        client = self._client
        if self._is_closed:
            raise UnavailableError("the log is closed")
        if client is None:
            raise UnavailableError("Kafka does not answer; the log takes records again when it does")
        return client

    def observe(self, client: KafkaProducer, error: Exception) -> None:
        """Take notice of an append that failed with `client`. Returns at once."""
        if not isinstance(error, _SPOILING_ERRORS):
            return
        with self._lock:
            if self._client is not client or self._is_closed:
                return
            self._client = None
        threading.Thread(target=self._replace, args=(client,), name="log-writer-renewal", daemon=True).start()

    def close(self) -> None:
        """Fail what is not acknowledged, and disconnect."""
        with self._lock:
            self._is_closed = True
            client, self._client = self._client, None
        if client is not None:
            _end(client)

    def _replace(self, spent: KafkaProducer) -> None:
        logger.warning("producer gave up on a batch and is opened anew")
        _end(spent)
        while not self._is_closed:
            try:
                self._cluster.check_answers()
                client = self._open()
            except MatyanError as error:
                logger.info("producer cannot be opened yet", extra={"reason": error.message})
                continue  # both waited for the brokers already
            with self._lock:
                if not self._is_closed:
                    self._client = client
                    return
            _end(client)

    def _open(self) -> KafkaProducer:
        """Open a client with which what is acknowledged is on all in-sync replicas, once and in order."""
        settings = self._settings
        try:
            return KafkaProducer(
                **self._cluster.options,
                acks="all",
                enable_idempotence=True,
                allow_auto_create_topics=False,
                compression_type=None if settings.compression == "none" else settings.compression,
                batch_size=BATCH_BYTES,
                linger_ms=milliseconds(settings.linger_seconds),
                max_block_ms=milliseconds(ASK_SECONDS),
                max_request_size=REQUEST_BYTES_MAX,
                delivery_timeout_ms=milliseconds(settings.delivery_seconds + settings.linger_seconds),
                metrics_enabled=False,
            )
        except KafkaError as error:
            raise translate_at_start(error, "opening the producer") from error


def _end(client: KafkaProducer) -> None:
    # Its own close would go on for ever with what no broker takes.
    client._sender.force_close()  # noqa: SLF001 - there is no other way
    client.close()
