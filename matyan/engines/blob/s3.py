"""Blobs in a bucket of any S3 store; clients upload straight into it through presigned addresses."""

from __future__ import annotations

import functools
import io
import itertools
import logging
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import BinaryIO, Final, cast

from minio import Minio
from minio.datatypes import Object
from minio.deleteobjects import DeleteObject
from minio.error import MinioException
from urllib3 import PoolManager
from urllib3.exceptions import HTTPError
from urllib3.response import BaseHTTPResponse

from matyan.clock import Clock, SystemClock
from matyan.engines.blob import s3_names as names
from matyan.engines.blob.objects import encode_key
from matyan.engines.blob.protocol import BlobEntry, BlobInfo, BlobStream, PresignedPut, always
from matyan.engines.blob.s3_client import S3Credentials, make_client, make_pool
from matyan.engines.blob.s3_errors import BUCKET_IS_THERE, CHANGED, NO_SUCH_BUCKET, NO_SUCH_KEY, code_of, reporting
from matyan.engines.blob.s3_objects import PART_BYTES, ContentReader, S3Chunks, header_type, info_of, metadata_of
from matyan.errors import ConfigurationError, UnavailableError
from matyan.settings import S3Settings

logger = logging.getLogger(__name__)

DELETED_AT_ONCE_MAX: Final = 1000
"""What S3 takes in one request."""
PREFIX_BYTES_MAX: Final = 100

_PLACE: Final = re.compile(
    r"(?P<bucket>[a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(?P<prefix>(/(?!\.\.?(/|$))[A-Za-z0-9._=-]+)*)/?"
)
_PROBE: Final = "(probe"
"""No name of a key: there, a bracket stands before two digits or a slash."""

assert PREFIX_BYTES_MAX + len("/") + names.NAME_BYTES_MAX <= names.S3_BYTES_MAX


def open_s3_blobs(place: str, settings: S3Settings, *, clock: Clock | None = None) -> S3Blobs:
    """Open the store in a bucket, after writing and deleting something there. Any number of processes may share it.

    Args:
        place: the bucket, and after a slash the prefix of all names in it.
        settings: where the store is and how to get in.
        clock: for times of modification, and for the expiry of presigned addresses.

    Raises:
        ConfigurationError: the place is none, the store cannot be reached, or it does not let us in.
    """
    found = _PLACE.fullmatch(place)
    if found is None or len(found["prefix"]) > PREFIX_BYTES_MAX:
        raise ConfigurationError(
            "s3:// is followed by a bucket (3 to 63 of a-z, 0-9, dot and dash) and perhaps a prefix (A-Z, a-z, 0-9 and "
            f". _ = - /, at most {PREFIX_BYTES_MAX}), as in s3://bucket/team; keys belong into s3.access_key and "
            "s3.secret_key"
        )
    pool = make_pool(settings.ca_file)
    credentials = S3Credentials(settings)
    client = make_client(settings.endpoint, settings, credentials, pool)
    public = make_client(settings.public_endpoint or settings.endpoint, settings, credentials, pool)
    where = f"s3://{found['bucket']} at {settings.endpoint}"
    blobs = S3Blobs(
        client,
        public,
        pool,
        bucket=found["bucket"],
        prefix=found["prefix"].removeprefix("/"),
        where=where,
        clock=clock or SystemClock(),
    )
    try:
        blobs.check(create=settings.create_bucket)
    except UnavailableError as error:
        blobs.close()
        raise ConfigurationError(error.message) from error
    return blobs


class S3Blobs:
    """A BlobEngine. Vendor types go no further."""

    def __init__(
        self,
        client: Minio,
        public: Minio,
        pool: PoolManager,
        *,
        bucket: str,
        prefix: str,
        where: str,
        clock: Clock,
    ) -> None:
        self._client = client
        self._public = public
        """Signs for the address at which clients reach the store; sends nothing."""
        self._pool = pool
        self._bucket = bucket
        self._prefix = f"{prefix}/" if prefix else ""
        self._clock = clock
        self._where = where

    def check(self, *, create: bool) -> None:
        """See that the bucket is there and takes, lists and deletes objects; `create` makes it when there is none.

        Raises:
            UnavailableError: it cannot be reached, or does not let us.
        """
        probe = self._prefix + _PROBE
        with reporting(self._where):
            try:
                next(self._client.list_objects(self._bucket, prefix=probe, recursive=True), None)
            except MinioException as error:
                if not create or code_of(error) != NO_SUCH_BUCKET:
                    raise
                self._make_bucket()
            self._client.put_object(self._bucket, probe, io.BytesIO(b"matyan"), 6)
            self._client.remove_object(self._bucket, probe)

    def _make_bucket(self) -> None:
        """Make it, or find that another process did: roles start together. The next request shows whose it is."""
        try:
            self._client.make_bucket(self._bucket)
        except MinioException as error:
            if code_of(error) not in BUCKET_IS_THERE:
                raise

    def put(self, key: str, chunks: Iterable[bytes], *, content_type: str) -> BlobInfo:
        """Store an object, replacing any other of this key at once; see BlobEngine.

        Content above PART_BYTES is sent in parts while it comes, at most 80 GB. Every piece is sent with its checksum.
        """
        name = self._name(key)
        content = ContentReader(chunks)
        modified_at_seconds = self._clock.now_seconds()
        metadata_of(content_type, modified_at_seconds, None)  # refuses a type before any byte is read
        self._keep_key(name, key)
        if content.is_within(PART_BYTES):
            data = content.read(PART_BYTES)
            headers = metadata_of(content_type, modified_at_seconds, zlib.crc32(data))
            with reporting(self._where):
                self._client.put_object(
                    self._bucket, name, io.BytesIO(data), len(data), header_type(content_type), headers
                )
        else:
            self._put_parts(name, content, content_type, modified_at_seconds)
        return BlobInfo(key, content.size_bytes, content_type, modified_at_seconds)

    def open(self, key: str) -> BlobStream | None:
        """Return the object as chunks; whoever stops early may `close` them. See BlobEngine.

        The object is asked for at once, so what is read is what stood here now, whatever comes after. Reading goes on
        over another connection when one breaks, unless the object has been replaced.
        """
        name = self._name(key)
        response = self._get(name)
        if response is None:
            return None
        again = functools.partial(self._get_rest, name, response.headers.get("etag", ""))
        return BlobStream(info_of(key, response.headers), S3Chunks(response, again=again, where=self._where))

    def get(self, key: str) -> bytes | None:
        """Return the whole object, or None."""
        stream = self.open(key)
        return None if stream is None else b"".join(stream.chunks)

    def info(self, key: str) -> BlobInfo | None:
        """Return what is known of an object without reading it, or None."""
        try:
            with reporting(self._where):
                found = self._client.stat_object(self._bucket, self._name(key))
        except UnavailableError as error:
            if not isinstance(error.__cause__, MinioException):
                raise
            # The answer to HEAD has no body: a bucket that is gone looks like an object that is. GET tells.
            stream = self.open(key)
            return None if stream is None else stream.info
        return info_of(key, cast("Mapping[str, str]", found.metadata))

    def list(self, prefix: str) -> Iterator[BlobInfo]:
        """Return every object whose key starts with `prefix`, in key order; see BlobEngine.

        Asks for the names by the thousand, and for each object alone, since S3 lists no content types.
        """
        for key, *_ in self._keys(prefix):
            if info := self.info(key):
                yield info

    def entries(self, prefix: str, *, after: str = "") -> Iterator[BlobEntry]:
        """Return every object whose key starts with `prefix` and is greater than `after`, in key order; see BlobEngine.

        They are dated by Last-Modified. A cut key costs a request, all others come by the thousand.
        """
        for key, _, found in self._keys(prefix, after):
            if key > after:
                modified = 0.0 if found.last_modified is None else found.last_modified.timestamp()
                yield BlobEntry(key, found.size or 0, modified)

    def delete(self, key: str) -> None:
        """Delete an object; a missing one is fine.

        The object that holds a cut key stays until `delete_prefix`: a put of the same key, just now, may rely on it.
        """
        with reporting(self._where):
            self._client.remove_object(self._bucket, self._name(key))

    def delete_prefix(self, prefix: str, *, may_go_on: Callable[[], bool] = always) -> int:
        """Delete every object whose key starts with `prefix`, by the thousand; return how many. See BlobEngine.

        Raises:
            UnavailableError: some could not be deleted; the others are.
        """
        begin = names.name_prefix(prefix)
        if names.is_cut(begin):
            found = (each for _, name, _ in self._keys(prefix) for each in (name, names.key_object(name)))
        else:
            found = (name for name in self._names(begin) if names.is_cut(name) or names.key_of(name) is not None)
        batches = itertools.takewhile(lambda _: may_go_on(), _batches(found, DELETED_AT_ONCE_MAX))
        return sum(map(self._delete, batches))

    def presign_put(self, key: str, *, content_type: str, expires_seconds: int, base_url: str) -> PresignedPut:
        """Return an address in the bucket, good for a week at most; see BlobEngine.

        The Content-Type is not part of the signature: what the client sends is what is stored, and a client that sends
        none is not refused.
        """
        del content_type, base_url
        name = self._name(key)
        self._keep_key(name, key)
        url = self._public.get_presigned_url(
            "PUT",
            self._bucket,
            name,
            expires=timedelta(seconds=expires_seconds),
            request_date=datetime.fromtimestamp(self._clock.now_seconds(), UTC),
        )
        return PresignedPut(url, {})

    def close(self) -> None:
        """Release the connections that nobody uses; streams give back theirs."""
        self._pool.clear()

    # ---- one object

    def _name(self, key: str) -> str:
        return self._prefix + names.object_name(key)

    def _put_parts(self, name: str, content: ContentReader, content_type: str, modified_at_seconds: float) -> None:
        headers = metadata_of(content_type, modified_at_seconds, None)
        with reporting(self._where):
            try:
                self._client.put_object(
                    self._bucket,
                    name,
                    cast("BinaryIO", content),  # the SDK calls `read` only
                    -1,
                    header_type(content_type),
                    headers,
                    part_size=PART_BYTES,
                    num_parallel_uploads=1,  # one part in memory, and no threads
                )
            except (MinioException, HTTPError):
                if content.error is not None:  # giving up the upload failed too
                    raise content.error from None
                raise

    def _get(self, name: str) -> BaseHTTPResponse | None:
        """Ask for an object; return the answer with its body not yet read, or None when there is none."""
        with reporting(self._where):
            try:
                return self._client.get_object(self._bucket, name)
            except MinioException as error:
                if code_of(error) == NO_SUCH_KEY:
                    return None
                raise

    def _get_rest(self, name: str, etag: str, offset: int) -> BaseHTTPResponse:
        """Ask for the rest of an object.

        Raises:
            UnavailableError: it is another one by now.
        """
        try:
            response = self._client.get_object(self._bucket, name, offset, request_headers={"If-Match": etag})
        except MinioException as error:
            if code_of(error) not in CHANGED:
                raise
        else:
            if response.headers.get("etag") == etag:  # not every store heeds If-Match
                return response
            response.close()
            response.release_conn()
        raise UnavailableError("the connection broke, and the blob was replaced meanwhile; read it again")

    # ---- cut keys

    def _keep_key(self, name: str, key: str) -> None:
        """Store the key beside an object whose name does not tell it, before the object: `list` needs it."""
        if names.is_cut(name):
            data = encode_key(key)
            with reporting(self._where):
                self._client.put_object(self._bucket, names.key_object(name), io.BytesIO(data), len(data))

    def _read_key(self, name: str) -> str | None:
        response = self._get(self._prefix + names.key_object(name))
        if response is None:  # stored while its prefix was deleted
            logger.warning("a blob's key is missing", extra={"object": name})
            return None
        try:
            with reporting(self._where):
                return response.read().decode("utf-8", "surrogatepass")
        finally:
            response.close()
            response.release_conn()

    # ---- many objects

    def _objects(self, begin: str, after: str = "") -> Iterator[tuple[str, Object]]:
        """Yield the names that begin so and lie behind `after`, in order, without the prefix of the bucket."""
        start = self._prefix + after if after else None
        with reporting(self._where):
            for found in self._client.list_objects(
                self._bucket, prefix=self._prefix + begin, recursive=True, start_after=start
            ):
                yield cast("str", found.object_name).removeprefix(self._prefix), found

    def _names(self, begin: str) -> Iterator[str]:
        return (name for name, _ in self._objects(begin))

    def _keys(self, prefix: str, after: str = "") -> Iterator[tuple[str, str, Object]]:
        """Yield key, name and listing of every object of ours whose key starts with `prefix`, in key order.

        Some of those before `after` may be left out.
        """
        # Cut names keep no order among themselves: then the whole of what shares the head is listed.
        name = names.object_name(after) if after else ""
        start = names.cut_head(name) or name
        for head, found in itertools.groupby(
            self._objects(names.name_prefix(prefix), start), key=lambda pair: names.cut_head(pair[0])
        ):
            if head:
                yield from sorted(self._cut_keys(prefix, found), key=lambda row: row[0])
            else:
                yield from ((key, name, each) for name, each in found if (key := names.key_of(name)) is not None)

    def _cut_keys(self, prefix: str, found: Iterable[tuple[str, Object]]) -> Iterator[tuple[str, str, Object]]:
        for name, each in found:
            key = self._read_key(name) if names.is_object(name) else None
            if key is not None and key.startswith(prefix):
                yield key, name, each

    def _delete(self, batch: Iterable[str]) -> int:
        doomed = [DeleteObject(self._prefix + name) for name in batch]
        with reporting(self._where):
            errors = [*self._client.remove_objects(self._bucket, doomed)]
        if errors:
            first = errors[0]
            raise UnavailableError(
                f"the blob store {self._where} kept {len(errors)} of {len(doomed)} objects that were to be deleted: "
                f"{first.code}: {first.message}"
            )
        return sum(map(names.is_object, batch))


def _batches(found: Iterator[str], size: int) -> Iterator[tuple[str, ...]]:
    while batch := tuple(itertools.islice(found, size)):
        yield batch
