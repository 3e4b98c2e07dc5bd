"""Files made from multipart uploads: parts, tail, seal, publication.

Before a new worker writes, it seals the upload of the worker that lost its lease: it completes that
upload early, so that its upload id can no longer be used.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent import futures
from concurrent.futures import Future
from typing import Protocol

import msgspec

from exporter.core import threads
from exporter.core.checkpoints import FileState, Part, Tail
from exporter.errors import ObjectExists, StorageError, StorageUnavailable, UploadGone
from exporter.storage.base import (
    FileHeaders,
    ObjectInfo,
    ObjectRange,
    Storage,
    Store,
    UnfinishedFile,
    read_ranges,
)
from exporter.storage.s3 import checksums
from exporter.storage.s3.limits import MAX_PARTS

EXPECTED_PARTS = MAX_PARTS // 2
"""Maximum number of parts that is planned; a file may become twice as large as expected."""
MAX_GROWTH = 16
"""Largest size of the parts of a file, as a multiple of the configured size.

With parts of 8 MiB, the largest file has 10,000 parts of 128 MiB, which is 1.2 TiB.
"""
FULL_UPLOAD_PARTS = MAX_PARTS - 100
"""Number of parts after which a file of unknown size is copied into larger parts."""
COPY_BYTES = 32 * 1024 * 1024
"""Size of the largest part that is copied, where the parts of an upload may differ in size.

A store that copies 10 MB a second answers in a fifth of `clients.READ_TIMEOUT_SECONDS`.
"""
COPIES_AT_ONCE = 8
"""Number of concurrent copies inside the object store when a worker takes over a file."""


def part_size(base: int, expected_bytes: int) -> int:
    """Returns the size of each part but the last for a file of about `expected_bytes` bytes.

    The size is `base` or, for files of more than EXPECTED_PARTS parts of that size, larger.

    >>> part_size(8, 0), part_size(8, 40_000), part_size(8, 50_000), part_size(8, 10**9)
    (8, 8, 10, 128)
    """
    return min(max(base, -(-expected_bytes // EXPECTED_PARTS)), base * MAX_GROWTH)


class MultipartStorage(Storage, Protocol):
    """Makes the files of `Storage` from multipart uploads; a subclass has the calls of S3."""

    _takes_all_sizes: bool | None = None
    """What the store answered, see `takes_all_sizes`; None before it was asked."""

    def begin(self, key: str, headers: FileHeaders) -> str:
        """Opens a multipart upload and returns its id.

        When the object is complete, a plain GET of it is answered with `headers`.
        """

    def begin_checked(self, key: str, headers: FileHeaders) -> tuple[str, bool]:
        """Opens a multipart upload for parts with checksums; returns its id, and whether it is one.

        It is one only if the store has confirmed that it knows these checksums, and if this machine
        can compute them quickly. Then every part must be stored by `put_part` with its checksum.
        """

    def put_part(
        self, key: str, upload_id: str, number: int, data: bytes | bytearray, checksum: str = ""
    ) -> Part:
        """Stores one part, numbered from 1 to MAX_PARTS.

        The store compares the bytes with `checksum`, see `begin_checked`, or else with their MD5.
        Raises UploadGone if the upload no longer exists. Every part but the last must have at least
        MIN_PART_BYTES; S3 checks this only in `complete`.
        """

    def copy_part(self, source: ObjectRange, key: str, upload_id: str, number: int) -> Part:
        """Copies a range of an object, inside the store, into an open upload as one part.

        Unless the range is the whole object, it must have at least MIN_PART_BYTES. Raises
        UploadGone if the upload no longer exists.
        """

    def complete(
        self, key: str, upload_id: str, parts: Sequence[Part], checks: Sequence[str] = ()
    ) -> None:
        """Joins the parts into one object, if no object has that key yet.

        With `checks`, the checksums of all parts, the store also compares the object with the
        checksum that follows from them. If it differs, nothing is published, and this method raises
        StorageError.

        All parts but the last must have the same size, and the last must not be larger, unless
        the store `takes_all_sizes`; Cloudflare R2 does not. Raises UploadGone if the upload no
        longer exists, ObjectExists if the key is taken. Both errors are also possible after an
        earlier call that succeeded but whose answer was lost: `head` then shows that the object
        exists. Raises StorageError if a part is missing, replaced or too small.
        """

    def seal(
        self, key: str, upload_id: str, parts: Sequence[Part], checks: Sequence[str] = ()
    ) -> None:
        """Ends an upload like `complete`, so that nothing can be added to it.

        The object begins with the parts. Other parts of the upload may follow, if the store takes
        no completion without them.
        """
        self.complete(key, upload_id, parts, checks)

    def takes_all_sizes(
        self, source: ObjectInfo, size: int, key: str, headers: FileHeaders
    ) -> bool:
        """True if the parts of an upload may differ in size; the store is asked once.

        The answer must be known before such a part is committed: otherwise the next worker, perhaps
        of an older version, could neither complete nor seal the upload. To ask, the first `size`
        bytes of a larger object and one byte more are copied into an upload of `key`, which stays,
        or becomes an object.
        """
        if self._takes_all_sizes is None:
            upload_id = self.begin(key, headers)
            parts = [
                self.copy_part(ObjectRange(source, range(one)), key, upload_id, number)
                for number, one in enumerate((size, size + 1, size), 1)
            ]
            try:
                self.complete(key, upload_id, parts)
            except StorageUnavailable:
                raise
            except StorageError:
                # Perhaps only the answer to an earlier try was lost.
                self._takes_all_sizes = self.head(key) is not None
            else:
                self._takes_all_sizes = True
        return self._takes_all_sizes

    def abort(self, key: str, upload_id: str) -> None:
        """Deletes an open upload and its parts; does nothing if the upload no longer exists."""

    def open_uploads(self, prefix: str) -> Iterator[UnfinishedFile]:
        """Yields every open upload under a prefix."""

    def open_file(
        self,
        folder: str,
        fence: str,
        headers: FileHeaders,
        state: FileState,
        *,
        piece_bytes: int,
    ) -> MultipartFile:
        return MultipartFile(self, folder, fence, headers, state, piece_bytes=piece_bytes)

    def delete_all(self, prefix: str, *, keep: str | None = None) -> None:
        for upload in self.open_uploads(prefix):
            self.abort(upload.key, upload.upload_id)
        stale = [info.key for info in self.objects(prefix) if info.key != keep]
        if stale:
            self.delete(stale)

    def unfinished(self, prefix: str) -> Iterator[UnfinishedFile]:
        return self.open_uploads(prefix)

    def discard(self, file: UnfinishedFile) -> None:
        self.abort(file.key, file.upload_id)


class MultipartFile:
    """Writes a file as a multipart upload; see `FileWriter`.

    The key of the file has the fence of the worker that opened the upload. A worker that continues
    the upload keeps the key.
    """

    def __init__(
        self,
        storage: MultipartStorage,
        folder: str,
        fence: str,
        headers: FileHeaders,
        state: FileState,
        *,
        piece_bytes: int,
    ) -> None:
        self._storage = storage
        self._folder = folder
        self._own = f"{folder}{fence}/"
        self._headers = headers
        self._base = piece_bytes
        self._continue(state)

    def _continue(self, state: FileState) -> None:
        self._state = state
        self._parts = dict(enumerate(state.stored_parts, 1))
        self._checks = dict(enumerate(state.checksums or (), 1))
        self._sent = len(self._parts)

    @property
    def key(self) -> str:
        return self._state.key or f"{self._own}{self._headers.file_name}"

    @property
    def is_begun(self) -> bool:
        return self._state.upload_id is not None

    @property
    def is_full(self) -> bool:
        """True if the upload is nearly full, and larger parts would make room in a new upload."""
        return self._sent >= FULL_UPLOAD_PARTS and self._state.part_size < self._base * MAX_GROWTH

    @property
    def piece_size(self) -> int:
        return self._state.part_size or self._base

    def expect(self, size: int) -> None:
        if not self._state.part_size:
            self._change(part_size=part_size(self._base, size))

    def resume(self, *, clean: bool) -> FileState:
        """Continues the upload, or takes it over if that is necessary.

        It is if an earlier worker may still be alive, if the last part extends beyond the position,
        if the upload is nearly full, or if it wants checksums that this machine cannot compute.
        """
        wants_checksums = self._state.checksums is not None and not checksums.is_available()
        if not clean or self._state.overhang or self.is_full or wants_checksums:
            size = self._base * MAX_GROWTH if self.is_full else self.piece_size
            self._continue(self._take_over(size))
        return self._state

    def read_rest(self) -> bytearray:
        """Returns the bytes of the tail; raises StorageError if its size differs from the state."""
        return self._read_tail(self._state.tail)

    def append(self, data: bytearray) -> Store:
        key, upload_id = self._upload(checked=True)
        number = self._next_number()
        return lambda: self._put(key, upload_id, number, data)

    def copy(self, ranges: Sequence[ObjectRange]) -> Store:
        """Adds ranges of objects as a part; a single range is copied inside the store.

        An upload that begins with a copy has no checksums: they would be those that the store
        computes itself, and MinIO takes no copies into an upload with checksums.
        """
        key, upload_id = self._upload(checked=False)
        number = self._next_number()

        def store() -> None:
            if len(ranges) == 1 and self._state.checksums is None:
                self._parts[number] = self._storage.copy_part(ranges[0], key, upload_id, number)
            else:
                self._put(key, upload_id, number, read_ranges(self._storage, ranges))

        return store

    def copy_sizes(self, sources: Sequence[ObjectInfo]) -> range:
        largest = max(sources, key=lambda one: one.size)
        if largest.size <= self._base or not self._storage.takes_all_sizes(
            largest, self._base, f"{self._own}sizes", self._headers
        ):
            return range(self.piece_size, self.piece_size + 1)
        return range(self._base, max(self.piece_size, COPY_BYTES) + 1)

    def state(self, position: int) -> FileState:
        if position == self._state.uploaded:
            return self._state
        parts: list[Part] = []
        missing = position
        while missing > 0:
            part = self._parts[len(parts) + 1]
            parts.append(part)
            missing -= part.size
        if missing:
            parts[-1] = Part(parts[-1].etag, parts[-1].size + missing)
        return msgspec.structs.replace(
            self._state,
            parts=tuple(parts),
            overhang=-missing,
            tail=None,
            checksums=self._checksums(len(parts)),
        )

    def pause(self, position: int, rest: bytearray) -> FileState:
        """Stores `rest` as an object of its own, the tail, because a part would be too small."""
        tail = Tail(key=f"{self._own}tail-{position + len(rest)}", size=len(rest))
        self._put_once(tail.key, rest)
        return msgspec.structs.replace(self.state(position), tail=tail)

    def publish(self) -> None:
        key, upload_id = self._upload(checked=True)
        parts = [self._parts[number] for number in range(1, self._sent + 1)]
        try:
            self._storage.complete(key, upload_id, parts, self._checksums(len(parts)) or ())
        except (UploadGone, ObjectExists):
            if not self._is_stored(key, sum(part.size for part in parts)):
                raise

    def publish_whole(self, data: bytearray) -> None:
        self._put_once(self.key, data)

    def forget(self, before: FileState, now: FileState) -> None:
        """Deletes a tail that was read, and an upload that was sealed and copied."""
        stale = []
        if before.tail is not None and before.tail != now.tail:
            stale.append(before.tail.key)
        if before.key is not None and before.key != now.key and before.parts:
            stale.append(before.key)
        if stale:
            self._storage.delete(stale)

    def _change(self, **changes: object) -> None:
        self._state = msgspec.structs.replace(self._state, **changes)

    def _checksums(self, parts: int) -> tuple[str, ...] | None:
        """Returns the checksums of the first parts; None if the upload has none."""
        if self._state.checksums is None:
            return None
        return tuple(self._checks[number] for number in range(1, parts + 1))

    def _put(self, key: str, upload_id: str, number: int, data: bytearray) -> None:
        checksum = "" if self._state.checksums is None else checksums.of(data)
        self._parts[number] = self._storage.put_part(key, upload_id, number, data, checksum)
        self._checks[number] = checksum

    def _upload(self, *, checked: bool) -> tuple[str, str]:
        """Returns key and id of the upload; opens a new upload if there is none."""
        if self._state.upload_id is None:
            key, has_checksums = self.key, False
            if checked:
                upload_id, has_checksums = self._storage.begin_checked(key, self._headers)
            else:
                upload_id = self._storage.begin(key, self._headers)
            self._change(
                key=key,
                upload_id=upload_id,
                part_size=self.piece_size,
                checksums=() if has_checksums else None,
            )
        assert self._state.key is not None
        assert self._state.upload_id is not None
        return self._state.key, self._state.upload_id

    def _next_number(self) -> int:
        if self._sent >= MAX_PARTS:
            raise StorageError(
                f"the file has more than {MAX_PARTS} parts of {self.piece_size} bytes, "
                "the most that S3 accepts: export fewer rows, or set a larger EXPORTER_PART_SIZE"
            )
        self._sent += 1
        return self._sent

    def _read_tail(self, tail: Tail | None) -> bytearray:
        if tail is None:
            return bytearray()
        data = self._storage.read(tail.key)
        if len(data) != tail.size:
            raise StorageError(
                f"{tail.key} has {len(data)} bytes, but the checkpoint says {tail.size}"
            )
        return bytearray(data)

    def _put_once(self, key: str, data: bytearray) -> None:
        # Only this fence writes this key: an existing object comes from an earlier try whose
        # answer was lost.
        try:
            self._storage.put_small(key, data, self._headers)
        except ObjectExists:
            if not self._is_stored(key, len(data)):
                raise

    def _is_stored(self, key: str, size: int) -> bool:
        found = self._storage.head(key)
        return found is not None and found.size == size

    def _take_over(self, new_part_size: int) -> FileState:
        """Returns a state, under this fence, from which this worker can continue the file.

        First, the upload of the previous worker, which may still be alive, is sealed: it is
        completed with the committed parts, so that its upload id is invalid and no part can be
        added or replaced. The sealed object begins with the bytes of these parts; more bytes may
        follow, which no checkpoint names. The committed bytes are then copied inside the store into
        a new upload, as parts of `new_part_size`; bytes that do not fill such a part become the
        tail. Raises UploadGone if the committed parts no longer exist.
        """
        at = self._state
        for upload in self._storage.open_uploads(self._folder):
            if upload.upload_id != at.upload_id:
                self._storage.abort(upload.key, upload.upload_id)
        if at.key is None or at.upload_id is None:
            return at
        if not at.parts:
            self._storage.abort(at.key, at.upload_id)
            return msgspec.structs.replace(at, key=None, upload_id=None, checksums=None)
        # An earlier call, or the previous worker, may have completed the upload already.
        with contextlib.suppress(UploadGone, ObjectExists):
            self._storage.seal(at.key, at.upload_id, at.stored_parts, at.checksums or ())
        sealed = self._storage.head(at.key)
        if sealed is None or sealed.size < at.uploaded + at.overhang:
            raise UploadGone(f"the committed parts at {at.key} no longer exist in the object store")
        copied = at.uploaded // new_part_size * new_part_size
        self._continue(FileState(part_size=new_part_size))
        self._copy(sealed, copied)
        if copied == at.uploaded:
            return msgspec.structs.replace(self.state(copied), tail=at.tail)
        rest = read_ranges(self._storage, [ObjectRange(sealed, range(copied, at.uploaded))])
        return self.pause(copied, rest + self._read_tail(at.tail))

    def _copy(self, sealed: ObjectInfo, size: int) -> None:
        """Copies the first `size` bytes of an object as parts; several copies run at once."""
        running: deque[Future[None]] = deque()
        try:
            for begin in range(0, size, self.piece_size):
                if len(running) == COPIES_AT_ONCE:
                    running.popleft().result()
                span = range(begin, begin + self.piece_size)
                running.append(threads.start(self.copy([ObjectRange(sealed, span)]), "copy"))
            for one in running:
                one.result()
        finally:
            # After a failure too: no copy may reach the store after its upload was aborted.
            futures.wait(running)
