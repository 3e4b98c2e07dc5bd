"""Interface of a destination: where files are written, kept and read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime
from typing import Protocol
from urllib.parse import quote

import msgspec

from exporter.core.checkpoints import FileState


class ObjectInfo(msgspec.Struct, frozen=True):
    """Key, size and etag of an object."""

    key: str
    size: int
    etag: str


class ObjectRange(msgspec.Struct, frozen=True):
    """Range of bytes of an object."""

    source: ObjectInfo
    span: range


class UnfinishedFile(msgspec.Struct, frozen=True):
    """A file that was begun and is neither published nor discarded."""

    key: str
    """Key under which the file would be published."""
    upload_id: str
    """The destination's name of the unfinished file, see `FileState.upload_id`."""
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


Store = Callable[[], None]
"""Stores a piece of a file; returns when the piece is stored."""


class FileWriter(Protocol):
    """Writes one file under one fence, from its first byte to its last.

    - Nothing can be read at `key` before `publish` or `publish_whole`, and nothing changes there
      afterwards. Committed bytes may lie at the key of an earlier worker until `forget`.
    - Stored bytes belong to the file only if a committed state names them. The states that `state`
      and `pause` return name stored bytes only.
    - Every worker writes under a fence of its own, and a key contains the fence. After `resume`,
      no request of an earlier worker can change the bytes that this worker names.
    - Every call can be repeated after a crash or a lost answer, by this worker or by the next one
      from the last committed state; no byte is lost or doubled by it.

    All methods are called in one thread, in the order of the file. Only the `Store` calls that
    `append` and `copy` return run in threads, several at the same time and in any order.

    Every method raises the errors that `Storage` names, and UploadGone if stored bytes of the file
    no longer exist: the file must then be begun again.
    """

    @property
    def key(self) -> str:
        """Key under which the file is published."""

    @property
    def is_begun(self) -> bool:
        """True if `append` or `copy` was called for this file, by this or an earlier worker."""

    @property
    def is_full(self) -> bool:
        """True if this slice should end: `resume` makes room that the file will soon need."""

    @property
    def piece_size(self) -> int:
        """Exact size in bytes of every appended piece but the last, which may be smaller."""

    def expect(self, size: int) -> None:
        """Announces a file of about `size` bytes, before its first piece; 0: size unknown.

        The destination may choose larger pieces for it. A size that is chosen never changes, except
        by `resume`; later calls have no effect.
        """

    def resume(self, *, clean: bool) -> FileState:
        """Continues the file after the state with which this writer was opened.

        Returns the state from which this worker continues, which must be committed if it differs;
        it names the same bytes of the file. With `clean`, all requests of earlier workers have
        ended. Otherwise such a worker may still be alive, and this method first makes its requests
        harmless: they fail, or write bytes that no state names.
        """

    def read_rest(self) -> bytearray:
        """Returns the bytes after `uploaded` that the last slice stored with `pause`."""

    def append(self, data: bytearray) -> Store:
        """Adds the next piece to the file; the returned call stores it.

        The caller must not change `data` until that call has returned. Raises StorageError if the
        file is too large.
        """

    def copy(self, ranges: Sequence[ObjectRange]) -> Store:
        """Adds the bytes of published files, in order, as the next piece; see `append`.

        A single range is copied without more memory than a few buffers.
        """

    def copy_sizes(self, sources: Sequence[ObjectInfo]) -> range:
        """Returns the sizes in bytes that a copied piece may have; the last may be smaller.

        If they are unknown, they are tried at the destination, with bytes of the published files
        `sources`. `expect` comes before.
        """

    def state(self, position: int) -> FileState:
        """Returns the state at a position: that many bytes of the file come before it.

        All pieces before the position must be stored. A piece may extend beyond the position.
        """

    def pause(self, position: int, rest: bytearray) -> FileState:
        """Stores `rest`, which are all bytes after the pieces; returns the state after these bytes.

        `position` is the end of the last piece, and `rest` is too small for a piece.
        """

    def publish(self) -> None:
        """Publishes the file that consists of all pieces; their state must be committed.

        Does nothing if an earlier call has already done so.
        """

    def publish_whole(self, data: bytearray) -> None:
        """Publishes a file of which nothing is stored yet."""

    def forget(self, before: FileState, now: FileState) -> None:
        """Deletes what the state `before` names and the state `now`, which is committed, does not.

        Bytes of a published file are never deleted.
        """


class Storage(Protocol):
    """Stores files and small objects.

    Every method raises StorageUnavailable if the store does not answer in time, after some retries,
    and StorageError if it refuses. Inside a `guarded` block, every method that makes a request also
    raises the errors of the guard, such as LeaseLost.
    """

    def open(self) -> None:
        """Prepares this process for requests, without sending one.

        Raises ConfigurationError if a setting has a wrong value.
        """

    def check(self) -> None:
        """Raises ConfigurationError, with the correction, unless files can be listed and written.

        Raises StorageUnavailable if the store does not answer within about 5 s. Leaves nothing.
        """

    def open_file(
        self,
        folder: str,
        fence: str,
        headers: FileHeaders,
        state: FileState,
        *,
        piece_bytes: int,
    ) -> FileWriter:
        """Returns the writer of a file for the worker with this fence, without a request.

        The keys of the file begin with `folder`, and new keys continue with the fence. `state` is
        the committed state; a default FileState begins the file. `piece_bytes` is the wanted size
        of pieces, see `FileWriter.piece_size`. A GET of the published file is answered with
        `headers`.
        """

    def put_small(self, key: str, data: bytes | bytearray, headers: FileHeaders) -> None:
        """Stores a whole object at once. Raises ObjectExists if other bytes have this key."""

    def read(self, key: str) -> bytes:
        """Returns a whole object, which must be small."""

    def stream(self, key: str, start: int, end: int) -> Iterator[bytes]:
        """Yields bytes `start` to `end` (exclusive) of an object in pieces, in bounded memory.

        The object is requested before this method returns, so that the caller can still answer with
        an error. If the download breaks off, the remaining bytes are requested again. If that fails
        too, the iterator raises StorageUnavailable; it never ends before `end` without an error.
        """

    def head(self, key: str) -> ObjectInfo | None:
        """Returns key, size and etag of the object, or None if there is no such object."""

    def delete(self, keys: Sequence[str]) -> None:
        """Deletes objects; ignores keys without an object."""

    def delete_all(self, prefix: str, *, keep: str | None = None) -> None:
        """Deletes every object and unfinished file under a prefix, except the object `keep`."""

    def objects(self, prefix: str) -> Iterator[ObjectInfo]:
        """Yields every object and published file under a prefix, in the order of keys."""

    def unfinished(self, prefix: str) -> Iterator[UnfinishedFile]:
        """Yields every unfinished file under a prefix."""

    def discard(self, file: UnfinishedFile) -> None:
        """Deletes an unfinished file; does nothing if it no longer exists."""

    def presign(self, key: str, seconds: int) -> str:
        """Returns a URL that a plain GET can read for that many seconds.

        A destination may have a shorter longest lifetime. No request is made.
        """


def read_ranges(storage: Storage, ranges: Sequence[ObjectRange]) -> bytearray:
    """Returns the bytes of several ranges, in order."""
    data = bytearray()
    for one in ranges:
        for piece in storage.stream(one.source.key, one.span.start, one.span.stop):
            data += piece
    return data
