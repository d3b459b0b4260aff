"""What every Kafka client of this process is given: addresses, credentials and limits; and its errors in our words."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from typing import Any, Final

from kafka.errors import (
    AuthorizationError,
    CorruptRecordError,
    IllegalSaslStateError,
    InvalidRecordError,
    KafkaError,
    LogTruncationError,
    MessageSizeTooLargeError,
    OffsetOutOfRangeError,
    RecordListTooLargeError,
    SaslAuthenticationFailedError,
    UnsupportedSaslMechanismError,
)

from matyan.errors import (
    ConfigurationError,
    CorruptedError,
    InvalidArgumentError,
    MatyanError,
    TooLargeError,
    UnavailableError,
)
from matyan.limits import RECORD_BYTES_MAX
from matyan.settings import KafkaSettings

PORT: Final = 9092
REQUEST_BYTES_MAX: Final = RECORD_BYTES_MAX + 64 * 1024
"""A record of the greatest size with what Kafka writes around it; the limit of a request and of a topic's batch."""
RECONNECT_SECONDS_MAX: Final = 1.0
"""So soon after a broker is back it is found; the client's own bound is 30 s."""
REQUEST_SECONDS_MAX: Final = 30.0
_CREDENTIAL_ERRORS: Final = (
    SaslAuthenticationFailedError,
    UnsupportedSaslMechanismError,
    IllegalSaslStateError,
    AuthorizationError,
)
_CLASSES: Final[tuple[tuple[tuple[type[KafkaError], ...], type[MatyanError]], ...]] = (
    ((MessageSizeTooLargeError, RecordListTooLargeError), TooLargeError),
    ((InvalidRecordError,), InvalidArgumentError),
    ((OffsetOutOfRangeError, LogTruncationError, CorruptRecordError), CorruptedError),
    ((KafkaError,), UnavailableError),
)


def servers_of(uri: str) -> list[str]:
    """Return the brokers that `kafka://host[:port][,host[:port]]` names, each as host:port.

    Raises:
        ConfigurationError: the URI names none, or holds what belongs into the settings.
    """
    rest = uri.partition("://")[2].rstrip("/")
    if "@" in rest:
        # Not shown: it may hold a password.
        raise ConfigurationError("a kafka:// URI holds no user; give kafka.user and kafka.password in the settings")
    return [_server(uri, part.strip()) for part in rest.split(",")]


def _server(uri: str, text: str) -> str:
    host, separator, port = text.rpartition(":")
    if not separator or text.endswith("]"):  # no port; a bare IPv6 address stands in brackets
        host, port = text, str(PORT)
    if not host or "/" in text or not port.isdecimal() or not 0 < int(port) < 65536:  # noqa: PLR2004 - as TCP has it
        raise ConfigurationError(
            f"{uri!r} names no broker in {text!r}; the log is named by kafka://HOST:PORT,HOST:PORT"
        )
    return f"{host}:{port}"


def client_options(servers: list[str], settings: KafkaSettings) -> Mapping[str, Any]:
    """Return what the clients of kafka-python have in common.

    Raises:
        ConfigurationError: the file of certificates cannot be read.
    """
    options: dict[str, Any] = {
        "bootstrap_servers": servers,
        "client_id": f"matyan-{settings.instance}" if settings.instance else "matyan",
        "bootstrap_timeout_ms": milliseconds(settings.connect_seconds),
        "request_timeout_ms": milliseconds(min(REQUEST_SECONDS_MAX, settings.delivery_seconds / 2)),
        "reconnect_backoff_max_ms": milliseconds(RECONNECT_SECONDS_MAX),
        "security_protocol": settings.security_protocol,
    }
    if settings.security_protocol.startswith("SASL"):
        options |= {
            "sasl_mechanism": settings.sasl_mechanism,
            "sasl_plain_username": settings.user,
            "sasl_plain_password": settings.password.reveal(),
        }
    if settings.security_protocol.endswith("SSL"):
        options["ssl_context"] = _ssl_context(settings.ca_file)
    return options


def _ssl_context(ca_file: str) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca_file or None)
    except OSError as error:  # ssl.SSLError is one
        raise ConfigurationError(f"kafka.ca_file {ca_file} cannot be used: {error.strerror or error}") from error


def milliseconds(seconds: float) -> int:
    """Convert, as Kafka counts."""
    return round(seconds * 1000)


def translate(error: KafkaError, doing: str) -> MatyanError:
    """Return our error for Kafka's; `doing` says what failed, such as "appending to data"."""
    kind = next(ours for theirs, ours in _CLASSES if isinstance(error, theirs))
    return kind(f"{doing} failed: {_text(error)}")


def translate_at_start(error: KafkaError, doing: str) -> MatyanError:
    """Likewise, while the process starts: what only an operator can mend is a ConfigurationError."""
    if is_refusal(error):
        return ConfigurationError(
            f"{doing} failed: {_text(error)}; see kafka.security_protocol, kafka.sasl_mechanism, kafka.user and "
            "kafka.password in the settings"
        )
    return translate(error, doing)


def is_refusal(error: KafkaError) -> bool:
    """Whether the brokers do not take us for who we say we are, or do not let us do what we need."""
    return isinstance(error, _CREDENTIAL_ERRORS)


def _text(error: KafkaError) -> str:
    return f"{type(error).__name__.removesuffix('Error')}: {error}".removesuffix(": ")
