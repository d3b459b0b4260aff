"""KafkaWriter: kafka-python's producer, opened anew when it cannot go on."""

from __future__ import annotations

import logging
import threading
import time
from typing import Final

from kafka import KafkaProducer
from kafka.errors import KafkaError

from matyan.engines.log.kafka_client import REQUEST_BYTES_MAX, milliseconds, translate_at_start
from matyan.engines.log.kafka_cluster import ASK_SECONDS, KafkaCluster
from matyan.errors import MatyanError, UnavailableError
from matyan.settings import KafkaSettings

logger = logging.getLogger(__name__)

BATCH_BYTES: Final = 512 * 1024
"""From this size on a batch does not wait for more."""


class KafkaWriter:
    """Holds the producer's client. Shared by all threads.

    A client that gave up on a batch which it had sent does not know what the broker has, so its sequence numbers are
    void. It would need a new producer id; kafka-python 3.0.12 drops the old one and never asks for another, and so
    sends nothing any more. And an error that it does not retry, such as a record over the topic's limit, is the end of
    an idempotent producer to it: everything that is sent later, whatever it is, fails with the same error.
    Hence a whole new client after any failure, opened in a thread of its own as soon as the brokers answer.
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

    def observe(self, client: KafkaProducer, error: Exception) -> bool:
        """Take notice of an append that failed with `client`; return whether it is the first one. Returns at once.

        The error of a later one may be that of the first, which its own record has not brought about.
        """
        return not isinstance(error, KafkaError) or self._retire(client)

    def renew(self) -> None:
        """Give up what is not acknowledged and go on with a new client. Returns at once."""
        client = self._client
        if client is not None:
            self._retire(client)

    def _retire(self, client: KafkaProducer) -> bool:
        """Have a client replaced; return False when it is already."""
        with self._lock:
            if self._client is not client or self._is_closed:
                return False
            # First started: when the system has no thread left, the client stays and the next failure retires it.
            threading.Thread(target=self._replace, args=(client,), name="log-writer-renewal", daemon=True).start()
            self._client = None
        return True

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
            except Exception:
                # Whatever it was: without another try this process would never append again.
                logger.exception("producer cannot be opened")
                time.sleep(ASK_SECONDS)
                continue
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
