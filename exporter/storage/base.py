"""Interface of an object store."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime
from typing import Literal, Protocol
from urllib.parse import quote

import msgspec

from exporter.core.checkpoints import Part

MAX_LINK_SECONDS = 7 * 24 * 3600
"""Longest lifetime of a presigned URL of S3; `presign` shortens longer lifetimes to this."""
MIN_PART_BYTES = 5 * 1024**2
"""Smallest size that S3 accepts for every part but the last."""
MAX_PARTS = 10_000
"""Largest number of parts that S3 accepts in one upload."""

Addressing = Literal["auto", "path", "virtual"]
"""Place of the bucket in an address: `https://HOST/BUCKET/KEY` or `https://BUCKET.HOST/KEY`.

With `auto`, the AWS configuration decides (`addressing_style` in the `s3` section of the profile).
If it says nothing, AWS gets virtual-hosted addresses and any other endpoint gets paths.
"""


class ObjectInfo(msgspec.Struct, frozen=True):
    """Key, size and etag of an object."""

    key: str
    size: int
    etag: str


class ObjectRange(msgspec.Struct, frozen=True):
    """Range of bytes of an object."""

    source: ObjectInfo
    span: range


class OpenUpload(msgspec.Struct, frozen=True):
    """A multipart upload that is neither completed nor aborted."""

    key: str
    upload_id: str
    started_at: datetime


class FileHeaders(msgspec.Struct, frozen=True):
    """Headers with which the store answers a plain GET of the object."""

    content_type: str
    file_name: str

    @property
    def disposition(self) -> str:
        """Content-Disposition header by RFC 6266, which suggests the file name to browsers.

        Any file name can be used, and no file name can add another header. Control characters and
        the folder separators of all systems become underscores.
        """
        name = "".join("_" if c in "/\\" or not c.isprintable() else c for c in self.file_name)
        # Old clients stop at a quote, and some decode percent signs: both are replaced here.
        plain = "".join("_" if c in '"%' or not c.isascii() else c for c in name)
        if plain == name:
            return f'attachment; filename="{plain}"'
        return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"


_guard: ContextVar[Callable[[], None] | None] = ContextVar("storage_guard", default=None)


@contextmanager
def guarded(check: Callable[[], None]) -> Iterator[None]:
    """Calls `check` before each request that the block sends to the object store, retries included.

    The block fails with the error that `check` raises. This is where the lease must be checked: a
    worker that was stopped for a minute may wake up inside the retry loop of the S3 client, and no
    other code of the exporter runs between that pause and the next write.
    """
    token = _guard.set(check)
    try:
        yield
    finally:
        _guard.reset(token)


def check_guard() -> None:
    """Calls the `check` of the surrounding `guarded` block; storages do so before each request."""
    check = _guard.get()
    if check is not None:
        check()


class Storage(Protocol):
    """Stores files.

    Every method raises StorageUnavailable if the store does not answer in time, after some retries.
    Inside a `guarded` block, every method also raises the errors of the guard, such as LeaseLost.
    """

    def begin(self, key: str, headers: FileHeaders) -> str:
        """Opens a multipart upload and returns its id.

        When the object is complete, a plain GET of it is answered with `headers`.
        """

    def put_part(self, key: str, upload_id: str, number: int, data: bytes | bytearray) -> Part:
        """Stores one part, numbered from 1. Raises UploadGone if the upload no longer exists."""

    def copy_part(self, source: ObjectRange, key: str, upload_id: str, number: int) -> Part:
        """Copies a range of an object, inside the store, into an open upload as one part.

        Unless the range is the whole object, it must have at least MIN_PART_BYTES. Raises
        UploadGone if the upload no longer exists.
        """

    def complete(self, key: str, upload_id: str, parts: Sequence[Part]) -> None:
        """Joins the parts into one object, if no object has that key yet.

        All parts but the last must have the same size, and the last must not be larger: some
        stores, such as Cloudflare R2, refuse other parts. Raises UploadGone if the upload no longer
        exists, ObjectExists if the key is taken. Both errors are also possible after an earlier
        call that succeeded but whose answer was lost: `head` then shows that the object exists.
        """

    def seal(self, key: str, upload_id: str, parts: Sequence[Part]) -> None:
        """Ends an upload like `complete`, so that nothing can be added to it.

        The object begins with the parts. Other parts of the upload may follow, if the store takes
        no completion without them.
        """

    def put_small(self, key: str, data: bytes | bytearray, headers: FileHeaders) -> None:
        """Stores a whole object at once. Raises ObjectExists if other bytes have this key."""

    def read(self, key: str) -> bytes:
        """Returns the whole object; meant for tails only, because they are smaller than a part."""

    def stream(self, key: str, start: int, end: int) -> Iterator[bytes]:
        """Yields bytes `start` to `end` (exclusive) of an object in pieces, in bounded memory.

        The object is requested before this method returns, so that the caller can still answer with
        an error. If the download breaks off, the remaining bytes are requested again. If that fails
        too, the iterator raises StorageUnavailable; it never ends before `end` without an error.
        """

    def abort(self, key: str, upload_id: str) -> None:
        """Deletes an open upload and its parts; does nothing if the upload no longer exists."""

    def head(self, key: str) -> ObjectInfo | None:
        """Returns key, size and etag of the object, or None if there is no such object."""

    def delete(self, keys: Sequence[str]) -> None:
        """Deletes objects; ignores keys without an object."""

    def objects(self, prefix: str) -> Iterator[ObjectInfo]:
        """Yields every object under a prefix."""

    def open_uploads(self, prefix: str) -> Iterator[OpenUpload]:
        """Yields every open upload under a prefix."""

    def presign(self, key: str, seconds: int) -> str:
        """Returns a URL that a plain GET can read for that many seconds.

        The lifetime is at most MAX_LINK_SECONDS. No request is made.
        """
