"""An object store in memory, for tests of the code that uses the `Storage` interface."""

from __future__ import annotations

import hashlib
import hmac
import itertools
import secrets
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from urllib.parse import parse_qs, quote, unquote, urlsplit

import msgspec

from exporter.clock import Clock
from exporter.core.checkpoints import Part
from exporter.errors import ObjectExists, StorageError, UploadGone
from exporter.storage.base import (
    FileHeaders,
    ObjectInfo,
    ObjectRange,
    UnfinishedFile,
    check_guard,
)
from exporter.storage.s3 import checksums
from exporter.storage.s3.limits import MAX_LINK_SECONDS, MAX_PARTS, MIN_PART_BYTES
from exporter.storage.s3.multipart import MultipartStorage

Hook = Callable[[str, str], None]
"""Called with the name of a Storage method and the key; may raise an error for the caller."""


class _Object(msgspec.Struct, frozen=True):
    data: bytes
    etag: str
    headers: FileHeaders


class _Upload(msgspec.Struct, frozen=True):
    key: str
    headers: FileHeaders
    started_at: datetime
    parts: dict[int, bytes]
    has_checksums: bool


class MemoryStorage(MultipartStorage):
    """Behaves like a strict S3: a call that succeeds here also succeeds in S3.

    Like Cloudflare R2, it refuses an upload whose parts, except for the last, differ in size; with
    `all_sizes`, it takes them. Like MinIO, it wants the checksums of all parts of an upload that
    began with checksums, twice, and takes no copies into it.
    `part_size_min` is the smallest size of every part but the last; tests of small files lower it.
    `before` is called before an operation takes effect, so its error simulates a request that never
    arrived. `after` is called after the operation, even if it was refused, so its error simulates a
    lost answer.
    """

    def __init__(
        self, clock: Clock, *, part_size_min: int = MIN_PART_BYTES, all_sizes: bool = False
    ) -> None:
        self.before: Hook | None = None
        self.after: Hook | None = None
        self._clock = clock
        self._part_size_min = part_size_min
        self._all_sizes = all_sizes
        self._secret = secrets.token_bytes(16)
        self._lock = threading.Lock()
        self._ids = itertools.count(1)
        self._objects: dict[str, _Object] = {}
        self._uploads: dict[str, _Upload] = {}

    def open(self) -> None:
        """Does nothing."""

    def check(self) -> None:
        """Lists the objects, as any request; nothing else can be wrong."""
        list(self.objects(""))

    def begin(self, key: str, headers: FileHeaders) -> str:
        return self._begin(key, headers, has_checksums=False)

    def begin_checked(self, key: str, headers: FileHeaders) -> tuple[str, bool]:
        known = checksums.is_available()
        return self._begin(key, headers, has_checksums=known), known

    def _begin(self, key: str, headers: FileHeaders, *, has_checksums: bool) -> str:
        with self._operation("begin", key):
            upload_id = f"upload-{next(self._ids)}"
            upload = _Upload(key, headers, self._clock.now(), {}, has_checksums)
            self._uploads[upload_id] = upload
        return upload_id

    def put_part(
        self, key: str, upload_id: str, number: int, data: bytes | bytearray, checksum: str = ""
    ) -> Part:
        with self._operation("put_part", key):
            return self._keep(key, upload_id, number, bytes(data), checksum)

    def copy_part(self, source: ObjectRange, key: str, upload_id: str, number: int) -> Part:
        with self._operation("copy_part", key):
            data, span = self._find(source.source.key).data, source.span
            if not 0 <= span.start < span.stop <= len(data):
                raise StorageError(f"UploadPartCopy of {source.source.key!r}: InvalidRange: {span}")
            return self._keep(key, upload_id, number, data[span.start : span.stop])

    def complete(
        self, key: str, upload_id: str, parts: Sequence[Part], checks: Sequence[str] = ()
    ) -> None:
        with self._operation("complete", key):
            upload = self._open(key, upload_id)
            if not parts:
                raise StorageError(f"CompleteMultipartUpload of {key!r}: MalformedXML: no parts")
            for number, part in enumerate(parts, 1):
                if number not in upload.parts or _md5(upload.parts[number]).hex() != part.etag:
                    raise StorageError(
                        f"CompleteMultipartUpload of {key!r}: InvalidPart: part {number} "
                        f"with etag {part.etag!r} does not exist"
                    )
            pieces = [upload.parts[number] for number in range(1, len(parts) + 1)]
            for number, piece in enumerate(pieces[:-1], 1):
                if len(piece) < self._part_size_min:
                    raise StorageError(
                        f"CompleteMultipartUpload of {key!r}: EntityTooSmall: part {number} has "
                        f"{len(piece)} bytes, below {self._part_size_min}"
                    )
                is_equal = len(pieces[-1]) <= len(piece) == len(pieces[0])
                if not is_equal and not self._all_sizes:
                    raise StorageError(
                        f"CompleteMultipartUpload of {key!r}: InvalidPart: All non-trailing parts "
                        f"must have the same length: {[len(piece) for piece in pieces]}"
                    )
            if upload.has_checksums and not _are_right(checks, pieces):
                raise StorageError(
                    f"CompleteMultipartUpload of {key!r}: InvalidPart: a checksum is missing or "
                    "differs"
                )
            self._check_free(key)
            etag = f"{_md5(b''.join(map(_md5, pieces))).hex()}-{len(pieces)}"
            self._objects[key] = _Object(b"".join(pieces), etag, upload.headers)
            del self._uploads[upload_id]

    def put_small(self, key: str, data: bytes | bytearray, headers: FileHeaders) -> None:
        with self._operation("put_small", key):
            etag = _md5(data).hex()
            if key not in self._objects or self._objects[key].etag != etag:
                self._check_free(key)
                self._objects[key] = _Object(bytes(data), etag, headers)

    def read(self, key: str) -> bytes:
        with self._operation("read", key):
            return self._find(key).data

    def stream(self, key: str, start: int, end: int) -> Iterator[bytes]:
        """Yields bytes `start` to `end` (exclusive) of an object, in two pieces."""
        data = self.read(key)[start:end]
        middle = len(data) // 2
        return iter([data[:middle], data[middle:]])

    def abort(self, key: str, upload_id: str) -> None:
        with self._operation("abort", key):
            self._uploads.pop(upload_id, None)

    def head(self, key: str) -> ObjectInfo | None:
        with self._operation("head", key):
            found = self._objects.get(key)
            return ObjectInfo(key, len(found.data), found.etag) if found else None

    def delete(self, keys: Sequence[str]) -> None:
        for key in keys:
            with self._operation("delete", key):
                self._objects.pop(key, None)

    def objects(self, prefix: str) -> Iterator[ObjectInfo]:
        with self._operation("objects", prefix):
            found = sorted(item for item in self._objects.items() if item[0].startswith(prefix))
        for key, kept in found:
            yield ObjectInfo(key, len(kept.data), kept.etag)

    def open_uploads(self, prefix: str) -> Iterator[UnfinishedFile]:
        with self._operation("open_uploads", prefix):
            found = list(self._uploads.items())
        for upload_id, upload in found:
            if upload.key.startswith(prefix):
                yield UnfinishedFile(upload.key, upload_id, upload.started_at)

    def presign(self, key: str, seconds: int) -> str:
        """Returns a URL that `fetch` accepts for that many seconds, at most 7 days."""
        expires = int(self._clock.now().timestamp()) + min(seconds, MAX_LINK_SECONDS)
        return f"memory://{quote('/' + key)}?expires={expires}&signature={self._sign(key, expires)}"

    def fetch(self, url: str) -> tuple[int, dict[str, str], bytes]:
        """Returns the answer to a plain GET of a presigned URL: status, headers, body."""
        parts = urlsplit(url)
        key = unquote(parts.path)[1:]
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        expires = int(query["expires"])
        if not hmac.compare_digest(query["signature"], self._sign(key, expires)):
            return 403, {}, b"SignatureDoesNotMatch"
        if self._clock.now().timestamp() >= expires:
            return 403, {}, b"AccessDenied: Request has expired"
        with self._lock:
            found = self._objects.get(key)
        if found is None:
            return 404, {}, b"NoSuchKey"
        headers = {
            "content-type": found.headers.content_type,
            "content-disposition": found.headers.disposition,
            "content-length": str(len(found.data)),
        }
        return 200, headers, found.data

    @contextmanager
    def _operation(self, name: str, key: str) -> Iterator[None]:
        """Runs the block as one request to the store, under a lock that serializes all requests.

        First calls the guard of the current thread (see `storage.base.guarded`), which raises
        LeaseLost if the worker may no longer write.
        """
        check_guard()
        if self.before is not None:
            self.before(name, key)
        try:
            with self._lock:
                yield
        finally:
            if self.after is not None:
                self.after(name, key)

    def _keep(self, key: str, upload_id: str, number: int, data: bytes, checksum: str = "") -> Part:
        upload = self._open(key, upload_id)
        if bool(checksum) != upload.has_checksums:
            raise StorageError(f"UploadPart of {key!r}: InvalidArgument: checksum {checksum!r}")
        if checksum and checksum != checksums.of(data):
            raise StorageError(f"UploadPart of {key!r}: BadDigest: part {number}")
        if not 1 <= number <= MAX_PARTS:
            raise StorageError(
                f"UploadPart of {key!r}: InvalidArgument: part number {number} "
                f"is not between 1 and {MAX_PARTS}"
            )
        upload.parts[number] = data
        return Part(_md5(data).hex(), len(data))

    def _open(self, key: str, upload_id: str) -> _Upload:
        upload = self._uploads.get(upload_id)
        if upload is None or upload.key != key:
            raise UploadGone(f"NoSuchUpload: {upload_id!r} of {key!r} was completed or aborted")
        return upload

    def _find(self, key: str) -> _Object:
        if key not in self._objects:
            raise StorageError(f"NoSuchKey: there is no object {key!r}")
        return self._objects[key]

    def _check_free(self, key: str) -> None:
        if key in self._objects:
            raise ObjectExists(f"PreconditionFailed: the object {key!r} exists already")

    def _sign(self, key: str, expires: int) -> str:
        return hmac.new(self._secret, f"{expires}:{key}".encode(), "sha256").hexdigest()


def connect(_url: str, _settings: object, clock: Clock) -> MemoryStorage:
    """Returns an empty store."""
    return MemoryStorage(clock)


def _are_right(checks: Sequence[str], pieces: Sequence[bytes]) -> bool:
    if not checksums.is_available():
        return len(checks) == len(pieces)
    return list(checks) == [checksums.of(one) for one in pieces]


def _md5(data: bytes | bytearray) -> bytes:
    return hashlib.md5(data, usedforsecurity=False).digest()
