"""The seam between the engine and an object store."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime
from typing import Protocol
from urllib.parse import quote

import msgspec

from exporter.core.checkpoints import Part

LINK_SECONDS_MAX = 7 * 24 * 3600
"""The longest that a presigned URL of S3 can live; `presign` cuts to it."""
PART_SIZE_MIN = 5 * 1024**2
"""Bytes that S3 wants of every part but the last."""
PARTS_MAX = 10_000
"""Parts of one upload that S3 takes."""


class ObjectInfo(msgspec.Struct, frozen=True):
    """What HEAD says of an object."""

    key: str
    size: int
    etag: str


class OpenUpload(msgspec.Struct, frozen=True):
    """A multipart upload that is neither completed nor aborted."""

    key: str
    upload_id: str
    started_at: datetime


class FileHeaders(msgspec.Struct, frozen=True):
    """What a bare GET of the object must answer."""

    content_type: str
    file_name: str

    @property
    def disposition(self) -> str:
        """A Content-Disposition by RFC 6266: any name is kept, and none can add a header.

        Control characters, and what means a folder to somebody, become underscores.
        """
        name = "".join("_" if c in "/\\" or not c.isprintable() else c for c in self.file_name)
        # Old clients stop at a quote and some decode percent signs, so neither is left here.
        plain = "".join("_" if c in '"%' or not c.isascii() else c for c in name)
        if plain == name:
            return f'attachment; filename="{plain}"'
        return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"


_guard: ContextVar[Callable[[], None] | None] = ContextVar("storage_guard", default=None)


@contextmanager
def guarded(check: Callable[[], None]) -> Iterator[None]:
    """Within this block every request to the store, retries included, first calls `check`.

    A worker that was stopped for a minute wakes up inside the S3 client's own retry loop,
    where no code of ours stands between the pause and the next write: this does.
    """
    token = _guard.set(check)
    try:
        yield
    finally:
        _guard.reset(token)


def check_guard() -> None:
    """Called by implementations right before each request; raises what the guard raises."""
    check = _guard.get()
    if check is not None:
        check()


class Storage(Protocol):
    """Keeps files. Every method raises StorageUnavailable when the store does not answer in
    time, after retrying on its own for a while, and the guard's error when the lease is over.
    """

    def begin(self, key: str, headers: FileHeaders) -> str:
        """Open a multipart upload; returns its id."""

    def put_part(self, key: str, upload_id: str, number: int, data: bytes | bytearray) -> Part:
        """Store one part, numbered from 1. Raises UploadGone if the upload id is dead."""

    def copy_parts(
        self,
        source: ObjectInfo,
        key: str,
        upload_id: str,
        first: int,
        span: range | None = None,
    ) -> tuple[Part, ...]:
        """Copy an object inside the store into an open upload, as one part or more; or that span of
        its bytes, as one. A span shorter than the object has PART_SIZE_MIN at least."""

    def complete(self, key: str, upload_id: str, parts: Sequence[Part]) -> None:
        """Make the parts one object, if no object has that key yet.

        Raises UploadGone if the upload id is dead, ObjectExists if the key is taken. Either may
        also come after a success whose answer was lost: `head` tells.
        """

    def put_small(self, key: str, data: bytes | bytearray, headers: FileHeaders) -> None:
        """Store a whole object at once. Raises ObjectExists if the key is taken by other bytes."""

    def read(self, key: str) -> bytes:
        """The whole object: for tails, which are smaller than a part."""

    def stream(self, key: str, start: int, end: int) -> Iterator[bytes]:
        """Bytes `start` to `end` (exclusive) of an object, piece by piece, in bounded memory.

        The object is asked for before this returns, so that an error can still be answered. A
        body that breaks off is asked for again from there; StorageUnavailable may also come from
        the iterator, which never ends early.
        """

    def abort(self, key: str, upload_id: str) -> None:
        """Drop an open upload and its parts; fine if it is gone already."""

    def head(self, key: str) -> ObjectInfo | None:
        """The object's size and etag, or None."""

    def delete(self, keys: Sequence[str]) -> None:
        """Delete objects; fine if they are gone already."""

    def objects(self, prefix: str) -> Iterator[ObjectInfo]:
        """Every object under a prefix."""

    def open_uploads(self, prefix: str) -> Iterator[OpenUpload]:
        """Every open upload under a prefix."""

    def presign(self, key: str, seconds: int) -> str:
        """A URL that works with a bare GET for that many seconds, at most LINK_SECONDS_MAX; made
        without a request.
        """
