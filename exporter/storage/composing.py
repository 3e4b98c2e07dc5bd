"""Plan for composing one object from several inside the store, mostly by server-side copies."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from exporter.storage.base import ObjectInfo

COPY_STEP_BYTES = 64 * 1024**2
"""Bytes that one step copies. A worker can shut down only between two steps."""
MAX_STEPS = 5_000
"""Maximum number of copy steps; it keeps the largest file below the 10,000 parts of S3."""


class ObjectRange(msgspec.Struct, frozen=True):
    """Range of bytes of an object."""

    source: ObjectInfo
    span: range


class Step(msgspec.Struct, frozen=True):
    """The work that makes the next part of the composed object.

    Either `read`, ranges of bytes that must be read and stored again, or `copy`, one range that is
    copied inside the store.
    """

    read: tuple[ObjectRange, ...] = ()
    copy: ObjectRange | None = None

    @property
    def size(self) -> int:
        """Size of the part in bytes."""
        return sum(len(one.span) for one in (*self.read, *((self.copy,) if self.copy else ())))


def plan_steps(sources: Sequence[ObjectInfo], done: int, *, min_bytes: int) -> Iterator[Step]:
    """Yields the steps that turn the objects, in order, into the parts of one object.

    `done` is the number of bytes that the existing parts hold; the steps continue after them. Each
    step makes at least `min_bytes` bytes; only the last step, which ends the file, may make fewer.
    An object that is smaller than `min_bytes` is read and stored again, together with bytes of the
    next object.
    """
    piece = max(
        COPY_STEP_BYTES, 2 * min_bytes, -(-sum(source.size for source in sources) // MAX_STEPS)
    )
    pending: list[ObjectRange] = []
    pending_bytes = 0
    for source in sources:
        at, done = min(done, source.size), max(done - source.size, 0)
        left = source.size - at
        if pending_bytes and left:
            # Take enough to fill a part; take all if the rest would be too small for a copy.
            taken = min(left, min_bytes - pending_bytes)
            if left - taken < min_bytes:
                taken = left
            pending.append(ObjectRange(source, range(at, at + taken)))
            pending_bytes += taken
            at, left = at + taken, left - taken
            if pending_bytes >= min_bytes:
                yield Step(read=tuple(pending))
                pending, pending_bytes = [], 0
        if left >= min_bytes:
            count = -(-left // piece)
            for n in range(count):
                begin, end = at + left * n // count, at + left * (n + 1) // count
                yield Step(copy=ObjectRange(source, range(begin, end)))
        elif left:
            pending.append(ObjectRange(source, range(at, source.size)))
            pending_bytes += left
    if pending:
        yield Step(read=tuple(pending))
