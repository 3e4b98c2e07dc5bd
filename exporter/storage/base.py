"""Interface of an object store."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime
from typing import Protocol
from urllib.parse import quote

import msgspec

from exporter.core.checkpoints import Part

MAX_LINK_SECONDS = 7 * 24 * 3600
"""Longest lifetime of a presigned URL of S3; `presign` cuts longer ones to this."""
MIN_PART_BYTES = 5 * 1024**2
"""Smallest size that S3 accepts for every part but the last."""
MAX_PARTS = 10_000
"""Largest number of parts that S3 accepts in one upload."""


class ObjectInfo(msgspec.Struct, frozen=True):
    """Key, size and etag of an object."""

    key: str
    size: int
    etag: str


class OpenUpload(msgspec.Struct, frozen=True):
    """Multipart upload that is neither completed nor aborted."""

    key: str
    upload_id: str
    started_at: datetime


class FileHeaders(msgspec.Struct, frozen=True):
    """Headers with which the store answers a plain GET of the object."""

    content_type: str
    file_name: str

    @property
    def disposition(self) -> str:
        """Content-Disposition by RFC 6266: any name is kept, and none can add a header.

        Control characters and folder separators of any system become underscores.
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
    """Calls `check` before every request to the object store in this block, retries included.

    A worker that was stopped for a minute wakes up inside the retry loop of the S3 client. No other
    code of the exporter runs between that pause and the next write, so the guard must check the
    lease there.
    """
    token = _guard.set(check)
    try:
        yield
    finally:
        _guard.reset(token)


def check_guard() -> None:
    """Calls the guard and raises its error; implementations call this before each request."""
    check = _guard.get()
    if check is not None:
        check()


class Storage(Protocol):
    """Stores files.

    Every method raises StorageUnavailable if the store does not answer in time, after retries of
    its own, and the guard's error once the lease is over.
    """

    def begin(self, key: str, headers: FileHeaders) -> str:
        """Opens a multipart upload; returns its id."""

    def put_part(self, key: str, upload_id: str, number: int, data: bytes | bytearray) -> Part:
        """Stores one part, numbered from 1. Raises UploadGone if the upload no longer exists."""

    def copy_parts(
        self,
        source: ObjectInfo,
        key: str,
        upload_id: str,
        first: int,
        span: range | None = None,
    ) -> tuple[Part, ...]:
        """Copies an object inside the store into an open upload, as parts numbered from `first` on.

        With `span` only those bytes are copied, as one part; a span shorter than the object has at
        least MIN_PART_BYTES.
        """

    def complete(self, key: str, upload_id: str, parts: Sequence[Part]) -> None:
        """Joins the parts into one object, if no object has that key yet.

        Raises UploadGone if the upload no longer exists, ObjectExists if the key is taken. Both may
        also follow a success whose answer was lost: `head` shows if the object is there.
        """

    def put_small(self, key: str, data: bytes | bytearray, headers: FileHeaders) -> None:
        """Stores a whole object at once. Raises ObjectExists if other bytes have this key."""

    def read(self, key: str) -> bytes:
        """Returns the whole object; meant for tails, which are smaller than a part."""

    def stream(self, key: str, start: int, end: int) -> Iterator[bytes]:
        """Yields bytes `start` to `end` (exclusive) of an object in pieces, in bounded memory.

        The object is requested before this returns, so that the caller can still answer with an
        error. If the body breaks off, the remaining bytes are requested again. The iterator may
        raise StorageUnavailable; it never ends early.
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
