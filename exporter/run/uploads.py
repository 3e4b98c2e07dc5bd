"""Upload of parts in threads while the next part is made."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import NamedTuple

from exporter.core import threads
from exporter.core.checkpoints import Checkpoint, Part
from exporter.core.exports import Result
from exporter.errors import LeaseLost, StorageError
from exporter.storage.base import MAX_PARTS, guarded
from exporter.storage.composing import Step
from exporter.storage.export_file import File

MAX_UPLOADING_BYTES = 64 * 1024 * 1024
"""Maximum size of the parts that are being uploaded while the next part is made.

A single part of a very large file is larger than this (see `export_file.part_size`); then the next
part is made only after that part is stored.
"""


class Position(NamedTuple):
    """A position of the reader, and how many bytes of the file come before it."""

    at: Checkpoint
    bytes_before: int


class _Sent(NamedTuple):
    position: Position | None
    """The position that the bytes up to this part include; None if there is no new position."""
    size: int
    """Bytes that the part occupies in memory."""
    part: Future[Part] | None
    """The running upload of the part; None if the position needs no new part."""
    closing: Result | None = None


class Stored(NamedTuple):
    """A checkpoint that may be committed, because every byte that it names is stored."""

    at: Checkpoint
    closing: Result | None


class PartUploader:
    """Uploads parts in threads, and returns the checkpoints that they complete, in order.

    A checkpoint is returned only after all bytes before its position are stored. Uploads whose
    checkpoint was not returned may still complete in the background until `settled()` has returned
    True.
    """

    def __init__(self, file: File, *, ahead: int, check: Callable[[], None]) -> None:
        """Allows at most `ahead` running uploads while the next part is made.

        `check` is called before each request to the object store; it must raise LeaseLost if the
        lease is lost.
        """
        self._file = file
        self._ahead = ahead
        self._check = check
        self._sent: deque[_Sent] = deque()
        self._upload: Checkpoint | None = None
        """The checkpoint with which the first part was sent; it names the upload."""
        self._parts: list[Part] = []
        """The stored parts of the upload, those of earlier slices included."""
        self._is_active = True

    @property
    def is_used(self) -> bool:
        """True if a part was sent, even if it is stored by now or its upload has failed."""
        return self._upload is not None

    def send(
        self,
        at: Checkpoint,
        data: bytearray,
        position: Position | None = None,
        closing: Result | None = None,
    ) -> None:
        """Starts the upload of `data` as the next part of the upload that `at` names, if it does.

        `position` is the latest position before the end of this part; without one, the part counts
        for the position of a later part. If `data` is empty, no part is made, and only the position
        is queued. The caller must not change `data` afterwards. Raises StorageError if the upload
        has as many parts as S3 accepts.
        """
        upload = self._opened(at)
        part: Future[Part] | None = None
        if data:
            number = self._next_number()
            part = self._start(lambda: self._file.put(upload, number, data))
        self._sent.append(_Sent(position, len(data), part, closing))

    def compose(self, position: Position, step: Step) -> None:
        """Starts the making of the next part from bytes of other objects; see `File.compose`.

        `position` is the position after this part.
        """
        upload = self._opened(position.at)
        number = self._next_number()
        part = self._start(lambda: self._file.compose(upload, number, step))
        self._sent.append(_Sent(position, 0 if step.copy else step.size, part))

    def next_stored(self, keep_waiting: Callable[[], bool], *, all_: bool) -> Stored | None:
        """Returns the oldest checkpoint whose bytes are stored, and removes it from the queue.

        Its parts are all parts stored so far. Returns None if the queue is empty or the oldest part
        is still being uploaded. If `is_full(all_=all_)`, this method first waits for the oldest
        part, as long as `keep_waiting` returns True. Raises the error of a failed upload.
        """
        while self._sent:
            oldest = self._sent[0]
            if oldest.part is not None:
                if self.is_full(all_=all_):
                    if not threads.wait(oldest.part, keep_waiting):
                        return None
                elif not oldest.part.done():
                    return None
                self._parts.append(oldest.part.result())
            self._sent.popleft()
            if oldest.position is not None:
                return Stored(self.checkpoint(oldest.position), oldest.closing)
        return None

    def checkpoint(self, position: Position) -> Checkpoint:
        """Returns the checkpoint of a position, with all parts that are stored.

        If this slice has sent no part, the checkpoint names those of earlier slices.
        """
        if self._upload is None:
            return position.at
        parts, overhang = self._parts, 0
        if parts:
            overhang = sum(part.size for part in parts) - position.bytes_before
        if overhang:
            last = parts[-1]
            parts = [*parts[:-1], Part(last.etag, last.size - overhang)]
        return position.at.evolve(
            key=self._upload.key,
            upload_id=self._upload.upload_id,
            parts=tuple(parts),
            overhang=overhang,
            tail=None,
        )

    def is_full(self, *, all_: bool) -> bool:
        """True if a part must be stored before the next part may be sent.

        With `all_`: True if any part or position is not yet returned by `next_stored`.
        """
        if all_:
            return bool(self._sent)
        return (
            len(self._sent) > self._ahead
            or sum(one.size for one in self._sent) > MAX_UPLOADING_BYTES
        )

    def abandon(self) -> None:
        """Makes all later requests of the running uploads fail; a sent request continues."""
        self._is_active = False

    def settled(self, keep_waiting: Callable[[], bool]) -> bool:
        """Abandons all uploads, waits for their threads, and returns True when all have ended.

        Afterwards none of the parts can reach the object store any more. Returns False if
        `keep_waiting` returned False first. The results of the uploads are ignored.
        """
        self.abandon()
        return all(one.part is None or threads.wait(one.part, keep_waiting) for one in self._sent)

    def _opened(self, at: Checkpoint) -> Checkpoint:
        if self._upload is None:
            self._upload = self._file.with_upload(at)
            self._parts = list(at.stored_parts)
        return self._upload

    def _next_number(self) -> int:
        number = len(self._parts) + sum(one.part is not None for one in self._sent) + 1
        if number > MAX_PARTS:
            raise StorageError(
                f"the file has more than {MAX_PARTS} parts of {self._parts[0].size} bytes, "
                "the most that S3 accepts: export fewer rows, or set a larger EXPORTER_PART_SIZE"
            )
        return number

    def _start(self, store: Callable[[], Part]) -> Future[Part]:
        def guarded_store() -> Part:
            with guarded(self._check_active):
                return store()

        return threads.start(guarded_store, "part")

    def _check_active(self) -> None:
        if not self._is_active:
            raise LeaseLost("the upload of this part was abandoned")
        self._check()
