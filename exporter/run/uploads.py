"""Upload of parts in threads while the next part is made."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import NamedTuple

from exporter.core import threads
from exporter.core.checkpoints import Checkpoint, Part
from exporter.core.exports import Result
from exporter.errors import LeaseLost
from exporter.storage.base import guarded
from exporter.storage.composing import ObjectRange
from exporter.storage.export_file import File

MAX_UPLOADING_BYTES = 64 * 1024 * 1024
"""Maximum size of the parts that are being uploaded while the next part is made.

A single part of a very large file is larger than this (see `export_file.part_size`); then the next
part is made only after that part is stored.
"""


class _Sent(NamedTuple):
    at: Checkpoint
    size: int
    """Bytes that the part occupies in memory."""
    part: Future[Part] | None
    """The running upload of the part; None if the checkpoint needs no new part."""
    closing: Result | None


class Stored(NamedTuple):
    """A checkpoint that may be committed, because every byte that it names is stored."""

    at: Checkpoint
    closing: Result | None


class PartUploader:
    """Uploads parts in threads, and returns their checkpoints in order.

    A checkpoint is returned only after its part and all earlier parts are stored. Uploads whose
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
        self._opened: Checkpoint | None = None
        self._is_active = True

    def __len__(self) -> int:
        return len(self._sent)

    def send(self, at: Checkpoint, data: bytearray, closing: Result | None = None) -> None:
        """Starts the upload of `data` as the next part; `at` is the checkpoint after this part.

        If `data` is empty, no part is made, and only the checkpoint is queued. The caller must not
        change `data` afterwards.
        """
        at = self._with_upload(at)
        part: Future[Part] | None = None
        if data:
            number = self._number(at)
            part = self._start(lambda: self._file.put(at, number, data))
        self._sent.append(_Sent(at, len(data), part, closing))

    def copy(self, at: Checkpoint, span: ObjectRange) -> None:
        """Starts a copy, inside the store, of a range of another object as the next part."""
        at = self._with_upload(at)
        number = self._number(at)
        part = self._start(lambda: self._file.copy(at, number, span))
        self._sent.append(_Sent(at, 0, part, None))

    def next_stored(
        self, before: Checkpoint, keep_waiting: Callable[[], bool], *, all_: bool
    ) -> Stored | None:
        """Returns the oldest checkpoint whose part is stored, and removes it from the queue.

        Its parts are those of `before`, the checkpoint committed last, plus its own part. Returns
        None if the queue is empty or the oldest part is still being uploaded. If
        `is_full(all_=all_)`, this method first waits for the oldest part, as long as `keep_waiting`
        returns True. Raises the error of a failed upload.
        """
        if not self._sent:
            return None
        oldest = self._sent[0]
        if oldest.part is not None:
            if self.is_full(all_=all_):
                if not threads.wait(oldest.part, keep_waiting):
                    return None
            elif not oldest.part.done():
                return None
            at = oldest.at.evolve(parts=(*before.parts, oldest.part.result()))
        else:
            at = oldest.at.evolve(parts=before.parts)
        self._sent.popleft()
        return Stored(at, oldest.closing)

    def is_full(self, *, all_: bool) -> bool:
        """True if a part must be stored before the next part may be sent.

        With `all_`: True if any part is not yet returned by `next_stored`.
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

    def _with_upload(self, at: Checkpoint) -> Checkpoint:
        if self._opened is None:
            self._opened = self._file.with_upload(at)
        return at.evolve(key=self._opened.key, upload_id=self._opened.upload_id, tail=None)

    def _number(self, at: Checkpoint) -> int:
        return len(at.parts) + len(self._sent) + 1

    def _start(self, store: Callable[[], Part]) -> Future[Part]:
        def guarded_store() -> Part:
            with guarded(self._check_active):
                return store()

        return threads.start(guarded_store, "part")

    def _check_active(self) -> None:
        if not self._is_active:
            raise LeaseLost("the upload of this part was abandoned")
        self._check()
