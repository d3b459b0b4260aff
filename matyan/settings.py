"""Everything an operator may tune, as one frozen Struct tree; `configuration.py` reads it from its sources.

A component receives its own section. Every field has a type with its range, a default and a description.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, get_type_hints

import msgspec
from msgspec import Meta

_ORIGIN: Final = r"^https?://[A-Za-z0-9.:\[\]-]+/?$"
SECRET_CHARACTERS_MIN: Final = 32
LOOPBACK_HOSTS: Final = frozenset({"127.0.0.1", "localhost", "::1"})

Port = Annotated[int, Meta(ge=0, le=65535)]


class Secret:
    """Text that is printed as `***`, so that neither `matyan config show` nor a log tells it."""

    __slots__ = ("_text",)

    def __init__(self, text: str = "") -> None:
        self._text = text

    def reveal(self) -> str:
        """Return the text itself."""
        return self._text

    def __str__(self) -> str:
        return "***" if self._text else ""

    def __repr__(self) -> str:
        return repr(str(self))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other.reveal() == self._text

    def __hash__(self) -> int:
        return hash(self._text)


class Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of one component."""


class DataSettings(Section, frozen=True):
    """Where the embedded engines keep their files."""

    home: Annotated[str, Meta(min_length=1, description="directory of all data of `matyan up`; also MATYAN_HOME")] = (
        ".matyan"
    )


class HttpSettings(Section, frozen=True):
    """What is listened on, and who may call."""

    host: Annotated[str, Meta(min_length=1, description="address to listen on")] = "127.0.0.1"
    port: Annotated[Port, Meta(description="UI, REST, WebSocket and uploads; 0 takes a free one")] = 53800
    extra_ports: Annotated[
        list[Port], Meta(description="the same again: matyan-client uploads to 53801 by default")
    ] = msgspec.field(default_factory=lambda: [53801])
    base_path: Annotated[
        str,
        Meta(
            pattern=r"^(/[A-Za-z0-9._~-]+)*$", description="path prefix of everything, such as /tracker behind a proxy"
        ),
    ] = ""
    ui: Annotated[Literal["aim", "matyan", "none"], Meta(description="the web UI to serve")] = "aim"
    ui_path: Annotated[
        str, Meta(description="directory of an unpacked wheel of that web UI; empty: the installed package")
    ] = ""
    read_only: Annotated[bool, Meta(description="refuse edits and deletions of runs and experiments")] = False
    allow_remote: Annotated[
        bool, Meta(description="listen on another address than loopback though there is no login yet")
    ] = False
    allowed_hosts: Annotated[
        list[str], Meta(description="host names of this server besides loopback ones, such as its name behind a proxy")
    ] = msgspec.field(default_factory=list)
    cors_origins: Annotated[
        list[str], Meta(description="further origins whose pages may call the API; * allows all")
    ] = msgspec.field(default_factory=list)


class KvSettings(Section, frozen=True):
    """The key-value store."""

    uri: Annotated[
        str, Meta(description="lmdb:///path, fdb:///path/fdb.cluster or fdb://; empty: kv under data.home")
    ] = ""


class FdbSettings(Section, frozen=True):
    """How to use FoundationDB, where kv.uri names its cluster file."""

    prefix: Annotated[
        str,
        Meta(
            pattern=r"^[A-Za-z0-9._-]{1,64}$",
            description="begins every key, so that installations can share a cluster; fixed for a store",
        ),
    ] = "matyan"
    api_version: Annotated[
        int,
        Meta(ge=0, le=730, description="API to ask the client library for, 710 to 730; 0: the newest of them it has"),
    ] = 0
    deadline_seconds: Annotated[
        float, Meta(ge=1.0, le=600.0, description="how long a transaction is tried, with all its repetitions")
    ] = 30.0
    attempts_max: Annotated[
        int, Meta(ge=1, le=10_000, description="how often a transaction is tried when others interfere")
    ] = 100


class LogSettings(Section, frozen=True):
    """The log between gateway and workers."""

    uri: Annotated[
        str, Meta(description="file+log:///path or kafka://host:9092,host:9092; empty: log under data.home")
    ] = ""
    partitions: Annotated[
        int, Meta(ge=0, le=256, description="of each topic, fixed when the log is made; 0: 1 in files, 4 with Kafka")
    ] = 0


class KafkaSettings(Section, frozen=True):
    """How to talk with Kafka, where log.uri names it."""

    security_protocol: Annotated[
        Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"],
        Meta(description="encryption and login of the brokers"),
    ] = "PLAINTEXT"
    sasl_mechanism: Annotated[
        Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"], Meta(description="how the user proves who they are")
    ] = "PLAIN"
    user: Annotated[str, Meta(description="name for SASL")] = ""
    password: Annotated[Secret, Meta(description="password for SASL; never printed")] = Secret()
    ca_file: Annotated[str, Meta(description="certificates (PEM) that vouch for the brokers; empty: the system's")] = ""
    topic_prefix: Annotated[
        str,
        Meta(
            pattern=r"^[A-Za-z0-9._-]{0,100}$",
            description="begins the names of topics and consumer groups, where installations share a cluster",
        ),
    ] = ""
    replicas: Annotated[
        int, Meta(ge=0, le=9, description="copies of each record in topics made by us; 0: the cluster's default")
    ] = 0
    compression: Annotated[
        Literal["none", "gzip", "lz4", "snappy", "zstd"],
        Meta(description="of batches; frames are compressed already, so it gains on many small ones only"),
    ] = "none"
    linger_seconds: Annotated[
        float, Meta(ge=0.0, le=1.0, description="how long a record may wait for others of its batch")
    ] = 0.005
    connect_seconds: Annotated[float, Meta(gt=0.0, le=600.0, description="how long a start waits for a broker")] = 30.0
    delivery_seconds: Annotated[
        float, Meta(ge=1.0, le=3600.0, description="how long a record is offered to brokers before it has failed")
    ] = 120.0
    session_seconds: Annotated[
        float, Meta(ge=1.0, le=1800.0, description="a worker silent for so long loses its partitions")
    ] = 45.0
    handling_seconds: Annotated[
        float,
        Meta(
            ge=1.0,
            le=3600.0,
            description="a worker busy with one slice, or dead, for so long loses its partitions",
        ),
    ] = 120.0
    instance: Annotated[
        str,
        Meta(
            pattern=r"^[A-Za-z0-9._-]{0,100}$",
            description="lasting name of this process in its consumer groups (static membership); empty: none",
        ),
    ] = ""


class SpillSettings(Section, frozen=True):
    """What a gateway does while Kafka is away: frames are kept on its own disk and forwarded when it is back."""

    path: Annotated[
        str, Meta(description="directory for them, on a disk that outlives the process; empty: spill under data.home")
    ] = ""
    bytes_max: Annotated[
        int, Meta(ge=0, description="bytes kept by each process; full, new connections get 503. 0: nothing is kept")
    ] = 4 * 1024**3
    after_seconds: Annotated[
        float, Meta(ge=0.1, le=10.0, description="a record that Kafka has not confirmed by then goes to the disk")
    ] = 3.0


class BlobSettings(Section, frozen=True):
    """The object store."""

    uri: Annotated[str, Meta(description="file:///path or s3://bucket/prefix; empty: blobs under data.home")] = ""


class S3Settings(Section, frozen=True):
    """The S3 store that an s3:// URI leads to."""

    endpoint: Annotated[str, Meta(pattern=_ORIGIN, description="address of the store; http:// goes without TLS")] = (
        "https://s3.amazonaws.com"
    )
    public_endpoint: Annotated[
        str, Meta(pattern=rf"^$|{_ORIGIN}", description="address at which clients upload to it; empty: the same")
    ] = ""
    region: Annotated[str, Meta(min_length=1, description="region of the bucket")] = "us-east-1"
    access_key: Annotated[
        str, Meta(description="empty: AWS_ACCESS_KEY_ID and its like, or the AWS credentials file")
    ] = ""
    secret_key: Annotated[Secret, Meta(description="belongs to the access key; never printed")] = Secret()
    machine_role: Annotated[
        bool, Meta(description="where no key is given, take the role of the machine (EC2, ECS, EKS)")
    ] = False
    create_bucket: Annotated[bool, Meta(description="make the bucket when there is none")] = False
    ca_file: Annotated[str, Meta(description="certificates (PEM) that vouch for the store; empty: the system's")] = ""


class SecretsSettings(Section, frozen=True):
    """What processes that work together sign and encrypt with."""

    keys: Annotated[
        list[Secret],
        Meta(
            description="the same for every role, the newest first, each at least 32 characters; older ones stay good "
            "for what they signed; empty: kept in data.home/secrets, for `matyan up`"
        ),
    ] = msgspec.field(default_factory=list)


class IngestSettings(Section, frozen=True):
    """How the worker batches."""

    linger_seconds: Annotated[
        float,
        Meta(
            ge=0.0, le=1.0, description="distance of commits under load, up to twice that; a lone record does not wait"
        ),
    ] = 0.05
    records_max: Annotated[int, Meta(ge=1, le=10_000, description="most records of a partition in one slice")] = 1000


class SweepSettings(Section, frozen=True):
    """When the jobs that tidy up take something for dead."""

    silent_seconds: Annotated[
        float,
        Meta(
            ge=0.0,
            description="a run without data and connection for so long is marked crashed until it is heard of again; "
            "gateways tell of connections five times in that while, so every role needs the same; 0: never",
        ),
    ] = 300.0
    orphan_hours: Annotated[
        float,
        Meta(
            ge=0.0,
            description="how old a file is that belongs to no run before it is deleted, counted anew after an outage "
            "of log, store or workers: longer than any client, or any gateway cut off from the log, may keep what it "
            "has to say of the file",
        ),
    ] = 168.0
    tombstone_hours: Annotated[
        float,
        Meta(
            ge=3.0,
            description="how long a deleted run is remembered after its deletion, after the last record that a client "
            "sent for it, and after an outage of log, store or workers; who is silent for longer and then goes on "
            "makes a new run",
        ),
    ] = 168.0


class QuerySettings(Section, frozen=True):
    """What searches may cost."""

    seconds: Annotated[float, Meta(gt=0.0, le=3600.0, description="time budget of one search")] = 60.0
    threads: Annotated[int, Meta(ge=1, le=64, description="threads for searches; a quarter of them for long ones")] = 4


class CacheSettings(Section, frozen=True):
    """What each process that answers searches keeps in memory."""

    memory_mb: Annotated[
        int,
        Meta(
            ge=0,
            le=1_000_000,
            description="for runs with their params, the newest first: 1 MB holds about a thousand with 15 params; "
            "older ones are read from the store each time; 0: nothing is kept",
        ),
    ] = 256


class LoggingSettings(Section, frozen=True):
    """What the process says on stderr."""

    level: Annotated[Literal["debug", "info", "warning", "error"], Meta(description="least level shown")] = "info"
    format: Annotated[Literal["console", "json"], Meta(description="for people or for machines")] = "console"


class Settings(Section, frozen=True):
    """Everything an operator may tune."""

    data: DataSettings = DataSettings()
    http: HttpSettings = HttpSettings()
    kv: KvSettings = KvSettings()
    fdb: FdbSettings = FdbSettings()
    log: LogSettings = LogSettings()
    kafka: KafkaSettings = KafkaSettings()
    spill: SpillSettings = SpillSettings()
    blob: BlobSettings = BlobSettings()
    s3: S3Settings = S3Settings()
    secrets: SecretsSettings = SecretsSettings()
    ingest: IngestSettings = IngestSettings()
    sweep: SweepSettings = SweepSettings()
    query: QuerySettings = QuerySettings()
    cache: CacheSettings = CacheSettings()
    logging: LoggingSettings = LoggingSettings()

    @property
    def home(self) -> Path:
        """The data directory, absolute."""
        return Path(self.data.home).expanduser().absolute()

    @property
    def kv_uri(self) -> str:
        """Where the store is, the default filled in."""
        return self.kv.uri or f"lmdb://{self.home / 'kv'}"

    @property
    def log_uri(self) -> str:
        """Where the log is, the default filled in."""
        return self.log.uri or f"file+log://{self.home / 'log'}"

    @property
    def blob_uri(self) -> str:
        """Where the blobs are, the default filled in."""
        return self.blob.uri or f"file://{self.home / 'blobs'}"


SECTIONS: Final[Mapping[str, type[Section]]] = {
    field.name: field.type for field in msgspec.structs.fields(Settings) if issubclass(field.type, Section)
}


def items(settings: Settings) -> Iterator[tuple[str, Any]]:
    """Yield every setting as (`section.field`, value), in the order of the table."""
    for name in SECTIONS:
        section = getattr(settings, name)
        for field in section.__struct_fields__:
            yield f"{name}.{field}", getattr(section, field)


def describe(section: type[Section], field: str) -> str:
    """Return the description of a field."""
    hint = get_type_hints(section, include_extras=True)[field]
    metas = [meta for meta in getattr(hint, "__metadata__", ()) if isinstance(meta, Meta) and meta.description]
    return str(metas[-1].description)
