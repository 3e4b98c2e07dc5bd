"""The file of one export inside the object store: parts, tail, seal, publication.

Keys are `exports/<export id>/<fence>/<name>`. Since the key contains the fence, two workers never
write the same key. Before a new worker writes, it seals the upload of the worker that lost its
lease: it completes that upload early, so that its upload id can no longer be used.
"""

from __future__ import annotations

import contextlib
from collections import deque
from concurrent import futures
from concurrent.futures import Future
from functools import partial

import structlog

from exporter.core import threads
from exporter.core.checkpoints import Checkpoint, Part, Tail
from exporter.errors import ObjectExists, StorageError, StorageUnavailable, UploadGone
from exporter.storage.base import MAX_PARTS, FileHeaders, ObjectInfo, ObjectRange, Storage
from exporter.storage.composing import Step
from exporter.storage.keys import prefix

log = structlog.get_logger()


EXPECTED_PARTS = MAX_PARTS // 2
"""Maximum number of parts that is planned; a file may become twice as large as expected."""
MAX_GROWTH = 16
"""Largest size of the parts of a file, as a multiple of the configured size.

With parts of 8 MiB, the largest file has 10,000 parts of 128 MiB, which is 1.2 TiB.
"""
FULL_UPLOAD_PARTS = MAX_PARTS - 100
"""Number of parts after which a file of unknown size is copied into larger parts."""
COPIES_AT_ONCE = 8
"""Number of concurrent copies inside the object store when a worker takes over a file."""


def part_size(base: int, expected_bytes: int) -> int:
    """Returns the size of each part but the last for a file of about `expected_bytes` bytes.

    The size is `base` or, for files of more than EXPECTED_PARTS parts of that size, larger.

    >>> part_size(8, 0), part_size(8, 40_000), part_size(8, 50_000), part_size(8, 10**9)
    (8, 8, 10, 128)
    """
    return min(max(base, -(-expected_bytes // EXPECTED_PARTS)), base * MAX_GROWTH)


def needs_larger_parts(at: Checkpoint, base: int) -> bool:
    """True if the upload is nearly full, and larger parts would make room in a new upload."""
    return len(at.parts) >= FULL_UPLOAD_PARTS and at.part_size < base * MAX_GROWTH


class File:
    """Writes the file of one export under one fence.

    Stored bytes belong to the file only if a committed checkpoint names them.
    """

    def __init__(
        self, storage: Storage, export_id: str, fence: str, name: str, content_type: str
    ) -> None:
        self._storage = storage
        self._prefix = prefix(export_id)
        self._own = f"{self._prefix}{fence}/"
        self._headers = FileHeaders(content_type=content_type, file_name=name)
        self.key = self._own + name
        """Object key of the file, unless this worker resumes an upload of an earlier worker."""

    def with_upload(self, at: Checkpoint) -> Checkpoint:
        """Returns the checkpoint with an upload; opens a new upload if the checkpoint has none."""
        if at.upload_id is not None and at.key is not None:
            return at
        return at.evolve(key=self.key, upload_id=self._storage.begin(self.key, self._headers))

    def put(self, at: Checkpoint, number: int, data: bytearray) -> Part:
        """Uploads a part into the upload of the checkpoint; `number` counts parts from 1."""
        assert at.key is not None
        assert at.upload_id is not None
        return self._storage.put_part(at.key, at.upload_id, number, data)

    def compose(self, at: Checkpoint, number: int, step: Step) -> Part:
        """Makes a part of bytes of other objects; a single range is copied inside the store."""
        if step.copy is None:
            return self.put(at, number, self.read_ranges(step))
        assert at.key is not None
        assert at.upload_id is not None
        return self._storage.copy_part(step.copy, at.key, at.upload_id, number)

    def read_ranges(self, step: Step) -> bytearray:
        """Returns the bytes of a step, read from the other objects."""
        data = bytearray()
        for one in step.ranges:
            for piece in self._storage.stream(one.source.key, one.span.start, one.span.stop):
                data += piece
        return data

    def store_tail(self, at: Checkpoint, data: bytearray) -> Checkpoint:
        """Stores encoded rows that are too few for a part, as an object for the next slice.

        Returns the checkpoint with that object as its tail.
        """
        key = f"{self._own}tail-{at.pages}"
        self._put_once(key, data)
        return at.evolve(tail=Tail(key=key, size=len(data)))

    def read_tail(self, at: Checkpoint) -> bytearray:
        """Returns the bytes that the last slice stored as a tail; no bytes if there is no tail.

        Raises StorageError if the size of the tail differs from the checkpoint.
        """
        if at.tail is None:
            return bytearray()
        data = self._storage.read(at.tail.key)
        if len(data) != at.tail.size:
            raise StorageError(
                f"{at.tail.key} has {len(data)} bytes, but the checkpoint says {at.tail.size}"
            )
        return bytearray(data)

    def publish_small(self, data: bytearray) -> None:
        """Stores the whole file at once, at `key`."""
        self._put_once(self.key, data)

    def _put_once(self, key: str, data: bytearray) -> None:
        # Only this fence writes this key: an existing object comes from an earlier try whose
        # answer was lost.
        try:
            self._storage.put_small(key, data, self._headers)
        except ObjectExists:
            if not self.is_stored(key, len(data)):
                raise

    def complete(self, at: Checkpoint) -> None:
        """Joins the parts into one object; does nothing if an earlier call has already done so."""
        assert at.key is not None
        assert at.upload_id is not None
        try:
            self._storage.complete(at.key, at.upload_id, at.stored_parts)
        except (UploadGone, ObjectExists):
            if not self.is_stored(at.key, at.uploaded + at.overhang):
                raise

    def is_stored(self, key: str, size: int) -> bool:
        """True if there is an object of exactly that size at that key."""
        found = self._storage.head(key)
        return found is not None and found.size == size

    def check_stored(self, key: str, size: int) -> None:
        """Raises StorageError unless there is an object of exactly that size at that key."""
        if not self.is_stored(key, size):
            raise StorageError(
                f"{key} was stored, but the object store has no object of {size} bytes there"
            )

    def take_over(self, at: Checkpoint, new_part_size: int) -> Checkpoint | None:
        """Returns a checkpoint, under this fence, from which this worker can continue the file.

        `at` is the checkpoint of the previous worker, which may still be alive. First, its upload
        is sealed: it is completed with the committed parts, so that its upload id is invalid and no
        part can be added or replaced. The sealed object begins with the bytes of these parts; more
        bytes may follow, which no checkpoint names. The committed bytes are then copied inside the
        store into a new upload, as parts of `new_part_size`; bytes that do not fill such a part
        become the tail. The call can be repeated after a crash at any point. Returns None if the
        committed parts no longer exist; the file must then be restarted.
        """
        for upload in self._storage.open_uploads(self._prefix):
            if upload.upload_id != at.upload_id:
                self._storage.abort(upload.key, upload.upload_id)
        if at.key is None or at.upload_id is None:
            return at
        if not at.parts:
            self._storage.abort(at.key, at.upload_id)
            return at.evolve(key=None, upload_id=None)
        # An earlier call, or the previous worker, may have completed the upload already.
        with contextlib.suppress(UploadGone, ObjectExists):
            self._storage.seal(at.key, at.upload_id, at.stored_parts)
        sealed = self._storage.head(at.key)
        if sealed is None or sealed.size < at.uploaded + at.overhang:
            return None
        copied = at.uploaded // new_part_size * new_part_size
        taken = at.evolve(key=None, upload_id=None, parts=(), part_size=new_part_size, overhang=0)
        if copied:
            taken = self.with_upload(taken)
            taken = taken.evolve(parts=self._copy(sealed, copied, taken))
        if copied < at.uploaded:
            rest = ObjectRange(sealed, range(copied, at.uploaded))
            taken = self.store_tail(taken, self.read_ranges(Step((rest,))) + self.read_tail(at))
        return taken

    def _copy(self, sealed: ObjectInfo, size: int, into: Checkpoint) -> tuple[Part, ...]:
        """Copies the first `size` bytes of an object as parts; several copies run at once."""
        running: deque[Future[Part]] = deque()
        parts: list[Part] = []
        try:
            for number, begin in enumerate(range(0, size, into.part_size), 1):
                if len(running) == COPIES_AT_ONCE:
                    parts.append(running.popleft().result())
                step = Step((ObjectRange(sealed, range(begin, begin + into.part_size)),))
                running.append(threads.start(partial(self.compose, into, number, step), "copy"))
            return (*parts, *(one.result() for one in running))
        finally:
            # After a failure too: no copy may reach the store after its upload was aborted.
            futures.wait(running)

    def delete_object(self, key: str) -> None:
        """Deletes an object that no checkpoint names any more."""
        self._storage.delete([key])

    def delete_all(self, *, keep: str | None = None) -> None:
        """Deletes every object and open upload of the export, except the object at `keep`."""
        for upload in self._storage.open_uploads(self._prefix):
            self._storage.abort(upload.key, upload.upload_id)
        stale = [info.key for info in self._storage.objects(self._prefix) if info.key != keep]
        if stale:
            self._storage.delete(stale)

    def delete_leftovers(self, *, keep: str) -> None:
        """Deletes all objects and uploads of the export except the published file at `keep`.

        If the store refuses, a warning is logged and the bucket cleanup deletes the rest later.
        Raises StorageUnavailable if the store does not answer: the export then waits, and its next
        slice finds that the file is published.
        """
        try:
            self.delete_all(keep=keep)
        except StorageUnavailable:
            raise
        except StorageError as error:
            log.warning("export.leftovers_not_deleted", reason=str(error))
