"""BlobService: uploads of clients, and reads of what they uploaded."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from matyan.blobs.uris import BlobAddress, BlobUris
from matyan.engines.blob.protocol import BlobEngine, BlobStream, PresignedPut
from matyan.engines.blob.uploads import LocalUploads, Upload
from matyan.errors import InvalidArgumentError, NotFoundError
from matyan.ids import DEFAULT_PROJECT, Project, check_run_id
from matyan.limits import ARTIFACT_PATH_BYTES_MAX

PRESIGNED_SECONDS: Final = 3600
"""How long an upload may be begun after it was asked for."""
NOTHING: Final = ""
"""The path that no file has."""


def blob_key(project: Project, run_id: str, path: str) -> str:
    """Return where the file of a run lies; a run id holds no slash, so the key says whose it is."""
    return f"{project}/{run_id}/{path}"


class BlobService:
    """Files of runs in the object store."""

    def __init__(self, *, blobs: BlobEngine, uris: BlobUris, base_path: str = "") -> None:
        """Put the engine to use.

        Args:
            blobs: the object store.
            uris: the names that clients were given.
            base_path: what stands before `/api` in the addresses of this server, as in `EdgeOptions`.
        """
        self._blobs = blobs
        self._uris = uris
        self._base_path = base_path

    def presign(
        self, run_id: str, path: str, *, content_type: str, origin: str, project: Project = DEFAULT_PROJECT
    ) -> PresignedPut:
        """Return how a client uploads one file of a run, which need not exist yet.

        Args:
            run_id: the run, known or not.
            path: the artifact's path in the run; any text, `..` and `?` included.
            content_type: what is to be uploaded; the upload may say otherwise.
            origin: scheme, host and port at which the client reached us.
            project: whose run it is.

        Raises:
            InvalidArgumentError: no name for a run, or no path, or one that is too long or no valid unicode.
        """
        try:
            size = len(path.encode())
        except UnicodeEncodeError as error:
            raise InvalidArgumentError("the artifact path is not valid unicode") from error
        if not 1 <= size <= ARTIFACT_PATH_BYTES_MAX:
            raise InvalidArgumentError(
                f"the artifact path has {size} bytes; it needs 1, limit {ARTIFACT_PATH_BYTES_MAX}"
            )
        key = blob_key(project, check_run_id(run_id), path)
        base_url = f"{origin}{self._base_path}"
        return self._blobs.presign_put(
            key, content_type=content_type, expires_seconds=PRESIGNED_SECONDS, base_url=base_url
        )

    def begin_upload(self, token: str) -> Upload:
        """Begin the upload that a presigned address allowed; the caller closes it.

        Raises:
            InvalidArgumentError: the token is not ours, was changed, or has expired.
            NotFoundError: this object store takes uploads itself.
            UnavailableError: the disk is full; nothing changed.
        """
        if not isinstance(self._blobs, LocalUploads):
            raise NotFoundError("uploads go to the object store itself")
        allowed = self._blobs.verify_put(token)
        return self._blobs.begin_put(allowed.key, content_type=allowed.content_type)

    def uri_of(self, run_id: str, s3_key: object, *, project: Project = DEFAULT_PROJECT) -> str:
        """Return the URI of an object by the key that its producer gave: `<run id>/<path>`, as `presign` answered it.

        The blob need not be there yet. A key that is no file of this run becomes a URI that names nothing: pages ask
        for the URIs of many objects at once, and a null among them would fail all.
        """
        owner, _, path = s3_key.partition("/") if isinstance(s3_key, str) else ("", "", "")
        return self._uris.seal(project, run_id, path if owner == run_id else NOTHING)

    def open_uris(self, uris: Sequence[str], *, project: Project = DEFAULT_PROJECT) -> Iterator[tuple[str, BlobStream]]:
        """Yield (uri, file) in the order asked, each once, opening a file when it is its turn.

        What is not there (yet), or not ours, is left out.
        """
        for uri in dict.fromkeys(uris):
            address = self._address(uri, project)
            stream = None if address is None else self._blobs.open(blob_key(project, address.run_id, address.path))
            if stream is not None:
                yield uri, stream

    def open(self, run_id: str, path: str, *, project: Project = DEFAULT_PROJECT) -> BlobStream:
        """Open a file of a run.

        Raises:
            NotFoundError: there is no such file.
        """
        stream = self._blobs.open(blob_key(project, run_id, path))
        if stream is None:
            raise NotFoundError("Artifact not found.")
        return stream

    def open_many(
        self, run_id: str, paths: Iterable[str], *, project: Project = DEFAULT_PROJECT
    ) -> Iterator[tuple[str, BlobStream | None]]:
        """Yield (path, file or None when there is none) in the order asked, opening each when it is its turn."""
        for path in paths:
            yield path, self._blobs.open(blob_key(project, run_id, path))

    def _address(self, uri: str, project: Project) -> BlobAddress | None:
        try:
            address = self._uris.open(uri)
        except InvalidArgumentError:
            return None
        return address if address.project == project else None
