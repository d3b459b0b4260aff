"""The S3 engine on a real store: what the contract of all blob engines does not say."""

from __future__ import annotations

import io
import os
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from matyan.clock import ManualClock
from matyan.engines.blob import s3, s3_client
from matyan.engines.blob.s3 import S3Blobs
from matyan.engines.blob.s3_names import object_name
from matyan.engines.blob.s3_objects import PART_BYTES
from matyan.errors import ConfigurationError, CorruptedError, InvalidArgumentError, UnavailableError
from matyan.settings import Secret
from tests.support.proxy import BreakingProxy, breaking_proxy
from tests.support.s3 import S3Server, make_certificate, serving_s3
from tests.support.server import free_port

pytestmark = pytest.mark.s3
LONG_KEYS = [f"p/r/{'n' * 4096}{end}" for end in ("b", "a", "", "\u00fc/..")]


@pytest.fixture
def bucket() -> str:
    return f"bucket-{uuid.uuid4()}"


@pytest.fixture
def blobs(s3_server: S3Server, bucket: str) -> Iterator[S3Blobs]:
    blobs = s3_server.open(bucket)
    yield blobs
    blobs.close()


@pytest.fixture
def proxy(s3_server: S3Server) -> Iterator[BreakingProxy]:
    port = urlsplit(s3_server.endpoint).port
    assert port is not None
    with breaking_proxy(("127.0.0.1", port)) as proxy:
        yield proxy


def put(url: str, content: bytes, headers: Mapping[str, str] | None = None) -> httpx.Response:
    return httpx.put(url, content=content, headers=headers, trust_env=False)


def plain_put(server: S3Server, bucket: str, name: str, content: bytes = b"x", **metadata: str) -> None:
    headers: dict[str, str | list[str] | tuple[str]] = {
        f"x-amz-meta-{key.replace('_', '-')}": metadata[key] for key in metadata
    }
    server.client().put_object(bucket, name, io.BytesIO(content), len(content), metadata=headers)


# ---- uploads by clients


@pytest.mark.parametrize("key", ["p/r/dir/a b%?#\u00fc.png", "p/r/../up", LONG_KEYS[0]], ids=["odd", "up", "long"])
def test_a_client_uploads_to_a_presigned_address(blobs: S3Blobs, key: str) -> None:
    signed = blobs.presign_put(key, content_type="image/png", expires_seconds=60, base_url="http://unused")
    answer = put(signed.url, b"picture", {"Content-Type": "image/png", **signed.headers})

    assert answer.is_success, answer.text
    assert blobs.get(key) == b"picture"
    (info,) = blobs.list("p/r/")
    assert (info.key, info.size_bytes, info.content_type) == (key, 7, "image/png")
    assert abs(info.modified_at_seconds - time.time()) < 60


def test_an_upload_may_name_another_content_type_or_none(blobs: S3Blobs) -> None:
    for key, headers in (("p/r/none", {}), ("p/r/other", {"Content-Type": "audio/wav"})):
        url, _ = blobs.presign_put(key, content_type="image/png", expires_seconds=60, base_url="")
        assert put(url, b"bytes", headers).is_success

    assert blobs.get("p/r/none") == b"bytes"
    other = blobs.info("p/r/other")
    assert other is not None
    assert other.content_type == "audio/wav"


def test_a_presigned_address_is_good_for_its_object_alone_and_for_its_time(s3_server: S3Server, bucket: str) -> None:
    clock = ManualClock(time.time())
    blobs = s3_server.open(bucket, clock=clock)
    url, _ = blobs.presign_put("p/r/a", content_type="a/b", expires_seconds=60, base_url="")
    clock.advance(-120)
    late, _ = blobs.presign_put("p/r/a", content_type="a/b", expires_seconds=60, base_url="")

    assert put(url.replace("/r/a", "/r/b"), b"x").status_code == httpx.codes.FORBIDDEN
    assert put(url.replace("Expires=60", "Expires=6000"), b"x").status_code == httpx.codes.FORBIDDEN
    assert put(late, b"x").is_client_error
    assert httpx.get(url, trust_env=False).status_code == httpx.codes.FORBIDDEN
    assert [*blobs.list("")] == []


def test_clients_are_sent_to_the_public_endpoint(s3_server: S3Server, bucket: str, proxy: BreakingProxy) -> None:
    blobs = s3_server.open(bucket, public_endpoint=f"http://localhost:{proxy.port}")
    url, _ = blobs.presign_put("p/r/a", content_type="a/b", expires_seconds=60, base_url="http://unused")

    assert url.startswith(f"http://localhost:{proxy.port}/{bucket}/p/r/a")
    assert put(url, b"x").is_success
    assert blobs.get("p/r/a") == b"x"


# ---- content


def test_large_content_goes_in_parts_while_it_comes(blobs: S3Blobs) -> None:
    piece = os.urandom(1024 * 1024 + 1)
    stored = blobs.put("p/r/large", (piece for _ in range(20)), content_type="a/b")
    stream = blobs.open("p/r/large")

    assert stored.size_bytes == 20 * len(piece) > 2 * PART_BYTES
    assert stream is not None
    assert stream.info == stored
    assert b"".join(stream.chunks) == piece * 20


@pytest.mark.parametrize("size_bytes", [PART_BYTES - 1, PART_BYTES, PART_BYTES + 1, 2 * PART_BYTES])
def test_content_at_the_edges_of_parts_is_whole(blobs: S3Blobs, size_bytes: int) -> None:
    content = os.urandom(size_bytes)
    blobs.put("p/r/a", [content], content_type="a/b")

    assert blobs.get("p/r/a") == content


def test_a_large_upload_that_breaks_off_raises_what_the_sender_raised(
    s3_server: S3Server, blobs: S3Blobs, bucket: str
) -> None:
    def broken() -> Iterator[bytes]:
        yield bytes(PART_BYTES * 2)
        raise ValueError("the sender's own")

    with pytest.raises(ValueError, match="the sender's own"):
        blobs.put("p/r/a", broken(), content_type="a/b")

    assert s3_server.names(bucket) == []


def test_damaged_content_is_reported_after_its_last_chunk(s3_server: S3Server, blobs: S3Blobs, bucket: str) -> None:
    plain_put(s3_server, bucket, object_name("p/r/a"), b"content", matyan_crc32="00000000")

    with pytest.raises(CorruptedError, match=f"a blob in s3://{bucket} .* is damaged"):
        blobs.get("p/r/a")


def test_metadata_that_others_spoilt_is_ignored(s3_server: S3Server, blobs: S3Blobs, bucket: str) -> None:
    plain_put(s3_server, bucket, object_name("p/r/a"), b"content", matyan_crc32="none", matyan_modified="today")
    info = blobs.info("p/r/a")

    assert blobs.get("p/r/a") == b"content"
    assert info is not None
    assert abs(info.modified_at_seconds - time.time()) < 60


def test_a_content_type_that_no_metadata_can_hold_is_refused(blobs: S3Blobs) -> None:
    with pytest.raises(InvalidArgumentError, match="the content type has 6000 bytes, limit 1024"):
        blobs.put("p/r/a", [], content_type="\u00fc" * 1000)

    assert blobs.get("p/r/a") is None


def test_readers_that_leave_early_keep_no_connection(blobs: S3Blobs) -> None:
    blobs.put("p/r/a", [os.urandom(2_000_000)], content_type="a/b")

    def leave() -> None:
        stream = blobs.open("p/r/a")
        assert stream is not None
        next(stream.chunks)

    leave()
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(50):
        leave()

    assert len(list(Path("/proc/self/fd").iterdir())) <= before + 1


def test_many_threads_share_the_store(blobs: S3Blobs) -> None:
    failed: list[str] = []

    def work(number: int) -> None:
        for turn in range(10):
            key = f"p/{number}/{turn}"
            blobs.put(key, [key.encode() * 1000], content_type="a/b")
            if blobs.get(key) != key.encode() * 1000:
                failed.append(key)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(s3_client.CONNECTIONS // 4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert failed == []
    assert blobs.delete_prefix("p/") == 10 * len(threads)


# ---- connections that break


def test_reading_goes_on_where_a_connection_broke(s3_server: S3Server, bucket: str, proxy: BreakingProxy) -> None:
    content = os.urandom(3_000_000)
    blobs = s3_server.open(bucket, endpoint=f"http://127.0.0.1:{proxy.port}")
    blobs.put("p/r/a", [content], content_type="a/b")
    proxy.break_after(1_000_000)

    assert blobs.get("p/r/a") == content
    assert proxy.breaks == 1


def test_a_broken_read_of_what_was_replaced_meanwhile_fails(
    s3_server: S3Server, blobs: S3Blobs, bucket: str, proxy: BreakingProxy
) -> None:
    reader = s3_server.open(bucket, endpoint=f"http://127.0.0.1:{proxy.port}")
    blobs.put("p/r/a", [os.urandom(3_000_000)], content_type="a/b")
    other = os.urandom(3_000_000)
    proxy.break_after(1_000_000, lambda: blobs.put("p/r/a", [other], content_type="a/b") and None)

    with pytest.raises(UnavailableError, match="replaced meanwhile; read it again"):
        reader.get("p/r/a")
    assert reader.get("p/r/a") == other


def test_a_request_whose_connection_broke_is_made_again(s3_server: S3Server, bucket: str, proxy: BreakingProxy) -> None:
    blobs = s3_server.open(bucket, endpoint=f"http://127.0.0.1:{proxy.port}")
    for request in (
        lambda: blobs.put("p/r/a", [b"x"], content_type="a/b"),
        lambda: blobs.info("p/r/a"),
        lambda: blobs.delete_prefix("p/"),
    ):
        proxy.break_after(1)
        request()

    assert proxy.breaks == 3
    assert blobs.get("p/r/a") is None


# ---- names


def test_keys_too_long_for_a_name_are_listed_in_order_and_leave_nothing(
    s3_server: S3Server, blobs: S3Blobs, bucket: str
) -> None:
    for key in ("p/q", *LONG_KEYS, "p/r/o"):
        blobs.put(key, [key.encode()], content_type="a/b")

    assert [info.key for info in blobs.list("")] == ["p/q", *sorted(LONG_KEYS), "p/r/o"]
    assert [info.key for info in blobs.list(f"p/r/{'n' * 4096}a")] == [LONG_KEYS[1]]
    assert blobs.delete_prefix(f"p/r/{'n' * 4096}a") == 1
    assert blobs.delete_prefix("p/r/") == 4
    assert s3_server.names(bucket) == [object_name("p/q")]


def test_an_object_whose_long_key_is_missing_is_left_out_and_deleted(
    s3_server: S3Server, blobs: S3Blobs, bucket: str, caplog: pytest.LogCaptureFixture
) -> None:
    blobs.put(LONG_KEYS[0], [b"x"], content_type="a/b")
    (_, key_object) = s3_server.names(bucket)
    s3_server.client().remove_object(bucket, key_object)

    assert [*blobs.list("")] == []
    assert "a blob's key is missing" in caplog.text
    assert blobs.delete_prefix("p/r/") == 1
    assert s3_server.names(bucket) == []


def test_what_others_keep_in_the_bucket_is_left_alone(s3_server: S3Server, bucket: str) -> None:
    blobs = s3_server.open(f"{bucket}/team")
    for name in ("other/x!", "team2/x!", "team/readme.txt", "team/a b!"):
        plain_put(s3_server, bucket, name)
    blobs.put("x", [b"x"], content_type="a/b")

    assert [info.key for info in blobs.list("")] == ["x"]
    assert blobs.delete_prefix("") == 1
    assert sorted(s3_server.names(bucket)) == ["other/x!", "team/a b!", "team/readme.txt", "team2/x!"]


def test_a_prefix_of_more_objects_than_one_request_takes_is_deleted(blobs: S3Blobs) -> None:
    count = s3.DELETED_AT_ONCE_MAX + 3
    for number in range(count):
        blobs.put(f"p/r/{number:05}", [], content_type="a/b")
    blobs.put("p/s/kept", [], content_type="a/b")

    assert blobs.delete_prefix("p/r/") == count
    assert [info.key for info in blobs.list("")] == ["p/s/kept"]


# ---- what can be wrong


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"secret_key": Secret("wrong")}, "the secret key is wrong; check s3.secret_key"),
        ({"access_key": "nobody"}, "the access key is not known there; check s3.access_key"),
        ({"create_bucket": False}, "there is no such bucket; create it, or set s3.create_bucket"),
        ({"endpoint": "http://127.0.0.1:1"}, "nothing listens there; check s3.endpoint and that it runs"),
        ({"endpoint": "http://nowhere.invalid"}, "the name of its host is not known; check s3.endpoint"),
        ({"region": "a b"}, "invalid region a b"),
    ],
)
def test_a_store_that_cannot_be_used_is_a_fault_of_the_settings(
    s3_server: S3Server, bucket: str, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        s3_server.open(bucket, **changes)

    assert message in caught.value.message


def test_processes_that_start_together_make_the_bucket_once(s3_server: S3Server) -> None:
    name, together = f"made-{uuid.uuid4().hex[:12]}", threading.Barrier(6)

    def open_one() -> None:
        together.wait(10)
        s3_server.open(name).close()

    with ThreadPoolExecutor(6) as pool:
        opened = [pool.submit(open_one) for _ in range(6)]

    assert [one.exception() for one in opened] == [None] * 6


def test_a_store_without_tls_does_not_pass_for_one_with(s3_server: S3Server, bucket: str) -> None:
    with pytest.raises(ConfigurationError, match=r"no secure connection to it is possible; check s3\.endpoint"):
        s3_server.open(bucket, endpoint=s3_server.endpoint.replace("http:", "https:"))


def test_a_store_with_a_certificate_of_its_own_is_trusted_when_told_to(tmp_path: Path) -> None:
    certificate = make_certificate(tmp_path / "pem")
    with serving_s3(certificate=certificate) as server:
        blobs = server.open("bucket", ca_file=str(certificate))
        blobs.put("p/r/small", [b"x"], content_type="a/b")
        blobs.put("p/r/large", [bytes(PART_BYTES + 1)], content_type="a/b")

        assert [info.size_bytes for info in blobs.list("")] == [PART_BYTES + 1, 1]
        assert blobs.delete_prefix("") == 2
        for other in ("", str(tmp_path / "none")):
            with pytest.raises(ConfigurationError, match=r"no secure connection .* s3\.ca_file"):
                server.open("bucket", ca_file=other)


def test_without_keys_those_of_the_environment_are_taken(
    s3_server: S3Server, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = s3_server.settings()
    monkeypatch.setenv("HOME", str(tmp_path))
    for variable in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.delenv(variable, raising=False)
    with pytest.raises(ConfigurationError, match=r"there is no key for the object store: set s3\.access_key"):
        s3_server.open(bucket, access_key="", secret_key=Secret())
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", keys.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", keys.secret_key.reveal())

    s3_server.open(bucket, access_key="", secret_key=Secret()).put("p/r/a", [], content_type="")


def test_a_bucket_that_goes_away_is_not_an_object_that_is_missing(
    s3_server: S3Server, blobs: S3Blobs, bucket: str
) -> None:
    s3_server.client().remove_bucket(bucket)

    for ask in (blobs.info, blobs.open, blobs.get, lambda key: [*blobs.list(key)], blobs.delete_prefix):
        with pytest.raises(UnavailableError, match="there is no such bucket"):
            ask("p/r/a")


def test_a_store_that_stops_is_unavailable_soon() -> None:
    with serving_s3() as server:
        blobs = server.open("bucket")
    started = time.monotonic()
    for ask in (blobs.info, blobs.get, blobs.delete, blobs.delete_prefix):
        with pytest.raises(UnavailableError, match="nothing listens there"):
            ask("p/r/a")
    with pytest.raises(UnavailableError, match="nothing listens there"):
        blobs.put("p/r/a", [b"x"], content_type="a/b")

    assert time.monotonic() - started < 30


@pytest.mark.parametrize(
    "place", ["", "ab", "Bucket", "a_b", "bucket//x", "bucket/..", "bucket/a/../b", "bucket/a b", "bucket/" + "x" * 101]
)
def test_a_place_that_is_none_says_what_one_is(s3_server: S3Server, place: str) -> None:
    with pytest.raises(ConfigurationError, match="s3:// is followed by a bucket"):
        s3_server.open(place, endpoint=f"http://127.0.0.1:{free_port()}")
