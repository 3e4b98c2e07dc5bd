"""Plan for composing one object from several inside the store, mostly by server-side copies."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from exporter.storage.base import ObjectInfo, ObjectRange


class Step(msgspec.Struct, frozen=True):
    """The consecutive ranges of bytes that make the next part of the composed object."""

    ranges: tuple[ObjectRange, ...]

    @property
    def size(self) -> int:
        """Size of the part in bytes."""
        return sum(len(one.span) for one in self.ranges)

    @property
    def copy(self) -> ObjectRange | None:
        """The range to copy inside the store; None if several ranges must be read and joined."""
        return self.ranges[0] if len(self.ranges) == 1 else None


def plan_steps(sources: Sequence[ObjectInfo], done: int, *, sizes: range) -> Iterator[Step]:
    """Yields the steps that turn the objects, in order, into the parts of one object.

    `done` is the number of bytes that the existing parts hold; the steps continue after them. Each
    step makes a part of one of the sizes; only the last step, which ends the file, may make less.
    If the sizes allow it, parts end where objects end, so that few parts must be read.
    """
    ranges: list[ObjectRange] = []
    missing = sizes[0]
    for source in sources:
        at, done = min(done, source.size), max(done - source.size, 0)
        while at < source.size:
            left = source.size - at
            size = min(left, missing) if ranges else _copied(left, sizes)
            ranges.append(ObjectRange(source, range(at, at + size)))
            missing -= size
            at += size
            if missing <= 0:
                yield Step(tuple(ranges))
                ranges, missing = [], sizes[0]
    if ranges:
        yield Step(tuple(ranges))


def _copied(left: int, sizes: range) -> int:
    """Returns how many of the last `left` bytes of an object the next copy takes.

    The bytes after the copy are enough for another one, if that is possible.
    """
    smallest, largest = sizes[0], sizes[-1]
    if largest < left < largest + smallest and left >= 2 * smallest:
        return left - smallest
    return min(left, largest)
