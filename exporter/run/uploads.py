"""Parts on their way to the store while the next one is made."""

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
from exporter.storage.composing import Stretch
from exporter.storage.export_file import File

MOST_BYTES = 64 * 1024 * 1024
"""Of parts under way while the next one is made. Parts of very large files are larger, and of the
largest none is under way then."""


class _Sent(NamedTuple):
    at: Checkpoint
    size: int
    """Bytes that it holds in memory."""
    part: Future[Part] | None
    """None if nothing had to be stored for this checkpoint."""
    closing: Result | None


class Stored(NamedTuple):
    """What may be committed, because every byte that it names is stored."""

    at: Checkpoint
    closing: Result | None


class PartUploader:
    """Stores parts in threads, and gives back their checkpoints in order, each once it is true.

    A part that was not given back may reach the store at any time, until `settled` says that none
    can any more.
    """

    def __init__(self, file: File, *, ahead: int, check: Callable[[], None]) -> None:
        """`ahead` parts at most are under way when there is room for the next. `check` is the
        guard of the store."""
        self._file = file
        self._ahead = ahead
        self._check = check
        self._sent: deque[_Sent] = deque()
        self._opened: Checkpoint | None = None
        self._is_wanted = True

    def __len__(self) -> int:
        return len(self._sent)

    def send(self, at: Checkpoint, data: bytearray, closing: Result | None = None) -> None:
        """Store the next part, if there are any bytes; `at` is where it ends. `data` must not
        change after this."""
        at = self._into(at)
        part: Future[Part] | None = None
        if data:
            number = self._number(at)
            part = self._start(lambda: self._file.put(at, number, data))
        self._sent.append(_Sent(at, len(data), part, closing))

    def copy(self, at: Checkpoint, stretch: Stretch) -> None:
        """Make the next part of a stretch of another object, inside the store."""
        at = self._into(at)
        number = self._number(at)
        part = self._start(lambda: self._file.copy(at, number, stretch))
        self._sent.append(_Sent(at, 0, part, None))

    def stored(self, before: Checkpoint, go_on: Callable[[], bool], *, all_: bool) -> Stored | None:
        """The oldest checkpoint, behind what `before` names, if its part is stored.

        Waits for it while there is no room for another part, or any under way if `all_`, and as
        long as `go_on` says. Raises what the storing raised.
        """
        if not self._sent:
            return None
        oldest = self._sent[0]
        if oldest.part is not None:
            if self.is_full(all_=all_):
                if not threads.wait(oldest.part, go_on):
                    return None
            elif not oldest.part.done():
                return None
            at = oldest.at.evolve(parts=(*before.parts, oldest.part.result()))
        else:
            at = oldest.at.evolve(parts=before.parts)
        self._sent.popleft()
        return Stored(at, oldest.closing)

    def is_full(self, *, all_: bool) -> bool:
        """Whether one must be waited for before another may be sent; if `all_`, before the end."""
        if all_:
            return bool(self._sent)
        return len(self._sent) > self._ahead or sum(one.size for one in self._sent) > MOST_BYTES

    def forget(self) -> None:
        """Let no request begin any more, and give back no checkpoint."""
        self._is_wanted = False

    def settled(self, go_on: Callable[[], bool]) -> bool:
        """Whether none of the parts can reach the store any more; waits for that as long as
        `go_on` says. What became of them is not looked at."""
        self.forget()
        return all(one.part is None or threads.wait(one.part, go_on) for one in self._sent)

    def _into(self, at: Checkpoint) -> Checkpoint:
        if self._opened is None:
            self._opened = self._file.opened(at)
        return at.evolve(key=self._opened.key, upload_id=self._opened.upload_id, tail=None)

    def _number(self, at: Checkpoint) -> int:
        return len(at.parts) + len(self._sent) + 1

    def _start(self, store: Callable[[], Part]) -> Future[Part]:
        def guarded_store() -> Part:
            with guarded(self._still_wanted):
                return store()

        return threads.start(guarded_store, "part")

    def _still_wanted(self) -> None:
        if not self._is_wanted:
            raise LeaseLost("this part is not wanted any more")
        self._check()
