"""Upload of pieces in threads while the next piece is made."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import NamedTuple

from exporter.core import threads
from exporter.core.checkpoints import Checkpoint
from exporter.core.exports import Result
from exporter.errors import LeaseLost
from exporter.storage.base import FileWriter, Store, guarded
from exporter.storage.composing import Step

MAX_UPLOADING_BYTES = 64 * 1024 * 1024
"""Maximum size of the pieces that are being uploaded while the next piece is made.

A single piece of a very large file is larger than this (see `FileWriter.expect`); then the next
piece is made only after that piece is stored.
"""


class Position(NamedTuple):
    """A position of the reader, and how many bytes of the file come before it."""

    at: Checkpoint
    bytes_before: int


class _Sent(NamedTuple):
    position: Position | None
    """The position that the bytes up to this piece include; None if there is no new position."""
    size: int
    """Bytes that the piece occupies in memory."""
    stored: Future[None] | None
    """The running upload of the piece; None if the position needs no new piece."""
    closing: Result | None = None
    data: bytearray | None = None


class Stored(NamedTuple):
    """A checkpoint that may be committed, because every byte that it names is stored."""

    at: Checkpoint
    closing: Result | None


class PieceUploader:
    """Uploads pieces in threads, and returns the checkpoints that they complete, in order.

    A checkpoint is returned only after all bytes before its position are stored. Uploads whose
    checkpoint was not returned may still complete in the background until `settled()` has returned
    True.
    """

    def __init__(
        self,
        file: FileWriter,
        *,
        ahead: int,
        check: Callable[[], None],
        spare: list[bytearray] | None = None,
    ) -> None:
        """Allows at most `ahead` running uploads while the next piece is made.

        `check` is called before each request to the object store; it must raise LeaseLost if the
        lease is lost. Pieces that are stored are put into `spare`.
        """
        self._file = file
        self._ahead = ahead
        self._check = check
        self._sent: deque[_Sent] = deque()
        self._is_active = True
        self._spare = spare

    def send(
        self,
        data: bytearray,
        position: Position | None = None,
        closing: Result | None = None,
    ) -> None:
        """Starts the upload of `data` as the next piece of the file.

        `position` is the latest position before the end of this piece; without one, the piece
        counts for the position of a later piece. If `data` is empty, no piece is made, and only the
        position is queued. The caller must not change `data` before it is in `spare`. Raises
        StorageError if the file is too large.
        """
        stored = self._start(self._file.append(data)) if data else None
        self._sent.append(_Sent(position, len(data), stored, closing, data))

    def compose(self, step: Step) -> None:
        """Starts the making of the next piece from bytes of other files; see `FileWriter.copy`.

        The piece counts for the position of a later piece.
        """
        stored = self._start(self._file.copy(step.ranges))
        self._sent.append(_Sent(None, 0 if step.copy else step.size, stored))

    def next_stored(self, keep_waiting: Callable[[], bool], *, all_: bool) -> Stored | None:
        """Returns the oldest checkpoint whose bytes are stored, and removes it from the queue.

        Returns None if the queue is empty or the oldest piece is still being uploaded. If
        `is_full(all_=all_)`, this method first waits for the oldest piece, as long as
        `keep_waiting` returns True. Raises the error of a failed upload.
        """
        while self._sent:
            oldest = self._sent[0]
            if oldest.stored is not None:
                if self.is_full(all_=all_):
                    if not threads.wait(oldest.stored, keep_waiting):
                        return None
                elif not oldest.stored.done():
                    return None
                oldest.stored.result()
            self._sent.popleft()
            # No more than can be in use: a page may be larger than several pieces.
            if self._spare is not None and oldest.data and len(self._spare) < self._ahead:
                self._spare.append(oldest.data)
            if oldest.position is not None:
                at, bytes_before = oldest.position
                return Stored(at.with_file(self._file.state(bytes_before)), oldest.closing)
        return None

    def is_full(self, *, all_: bool) -> bool:
        """True if a piece must be stored before the next piece may be sent.

        With `all_`: True if any piece or position is not yet returned by `next_stored`.
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

        Afterwards none of the pieces can reach the object store any more. Returns False if
        `keep_waiting` returned False first. The results of the uploads are ignored.
        """
        self.abandon()
        return all(
            one.stored is None or threads.wait(one.stored, keep_waiting) for one in self._sent
        )

    def _start(self, store: Store) -> Future[None]:
        def guarded_store() -> None:
            with guarded(self._check_active):
                store()

        return threads.start(guarded_store, "piece")

    def _check_active(self) -> None:
        if not self._is_active:
            raise LeaseLost("the upload of this piece was abandoned")
        self._check()
