"""What the Kafka log does without a broker: names, options, errors, and the partition of a key."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kafka.errors import (
    KafkaError,
    KafkaTimeoutError,
    MessageSizeTooLargeError,
    OffsetOutOfRangeError,
    SaslAuthenticationFailedError,
    TopicAuthorizationFailedError,
)

from matyan.engines.log.embedded import open_embedded_log
from matyan.engines.log.kafka_client import client_options, servers_of, translate, translate_at_start
from matyan.engines.log.kafka_producer import partition_of
from matyan.errors import ConfigurationError, CorruptedError, MatyanError, TooLargeError, UnavailableError
from matyan.settings import KafkaSettings, Secret

SERVERS = ["a:9092"]


@pytest.mark.parametrize(
    ("uri", "servers"),
    [
        ("kafka://a", ["a:9092"]),
        ("kafka://a:1", ["a:1"]),
        ("kafka://a:1,b,c:3/", ["a:1", "b:9092", "c:3"]),
        ("kafka://[::1]", ["[::1]:9092"]),
        ("kafka://[::1]:1", ["[::1]:1"]),
    ],
)
def test_a_uri_names_brokers_and_the_port_may_be_left_out(uri: str, servers: list[str]) -> None:
    assert servers_of(uri) == servers


@pytest.mark.parametrize(
    "uri", ["kafka://", "kafka://a,,b", "kafka://a:x", "kafka://a:0", "kafka://a:65536", "kafka://a/b"]
)
def test_a_uri_without_a_broker_is_refused(uri: str) -> None:
    with pytest.raises(ConfigurationError, match="kafka://HOST:PORT"):
        servers_of(uri)


def test_a_password_in_the_uri_is_refused_and_not_repeated() -> None:
    with pytest.raises(ConfigurationError, match=r"kafka\.password") as caught:
        servers_of("kafka://me:hush@a:9092")

    assert "hush" not in str(caught.value)


def test_credentials_are_given_for_sasl_only() -> None:
    plain = client_options(SERVERS, KafkaSettings(user="u", password=Secret("p")))
    sasl = client_options(
        SERVERS,
        KafkaSettings(security_protocol="SASL_SSL", sasl_mechanism="SCRAM-SHA-256", user="u", password=Secret("p")),
    )

    assert not any(name.startswith(("sasl", "ssl")) for name in plain)
    assert (sasl["sasl_mechanism"], sasl["sasl_plain_username"], sasl["sasl_plain_password"]) == (
        "SCRAM-SHA-256",
        "u",
        "p",
    )
    assert sasl["ssl_context"].check_hostname


@pytest.mark.parametrize("content", [None, "no certificate"])
def test_a_bad_file_of_certificates_is_named(tmp_path: Path, content: str | None) -> None:
    file = tmp_path / "ca.pem"
    if content is not None:
        file.write_text(content)

    with pytest.raises(ConfigurationError, match=f"kafka.ca_file {file} cannot be used"):
        client_options(SERVERS, KafkaSettings(security_protocol="SSL", ca_file=str(file)))


@pytest.mark.parametrize(
    ("error", "running", "starting"),
    [
        (KafkaTimeoutError("slow"), UnavailableError, UnavailableError),
        (MessageSizeTooLargeError("big"), TooLargeError, TooLargeError),
        (OffsetOutOfRangeError("gone"), CorruptedError, CorruptedError),
        (SaslAuthenticationFailedError("who?"), UnavailableError, ConfigurationError),
        (TopicAuthorizationFailedError("no"), UnavailableError, ConfigurationError),
    ],
)
def test_an_error_of_kafka_becomes_ours(
    error: KafkaError, running: type[MatyanError], starting: type[MatyanError]
) -> None:
    assert type(translate(error, "reading")) is running
    assert type(translate_at_start(error, "reading")) is starting
    assert translate(error, "reading").message.startswith("reading failed: ")


@pytest.fixture(scope="module")
def embedded_partition_of(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[bytes], int]]:
    log = open_embedded_log(tmp_path_factory.mktemp("log"), partitions=7)
    yield lambda key: log.producer().partition_of("data", key)
    log.close()


@given(key=st.binary(max_size=100))
def test_a_key_has_the_partition_that_the_embedded_log_gives_it(
    embedded_partition_of: Callable[[bytes], int], key: bytes
) -> None:
    assert partition_of(key, 7) == embedded_partition_of(key)
