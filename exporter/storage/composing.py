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


def plan_steps(sources: Sequence[ObjectInfo], done: int, *, part_size: int) -> Iterator[Step]:
    """Yields the steps that turn the objects, in order, into the parts of one object.

    `done` is the number of bytes that the existing parts hold; the steps continue after them. Each
    step makes exactly `part_size` bytes; only the last step, which ends the file, may make fewer.
    """
    ranges: list[ObjectRange] = []
    missing = part_size
    for source in sources:
        at, done = min(done, source.size), max(done - source.size, 0)
        while at < source.size:
            end = min(at + missing, source.size)
            ranges.append(ObjectRange(source, range(at, end)))
            missing -= end - at
            at = end
            if not missing:
                yield Step(tuple(ranges))
                ranges, missing = [], part_size
    if ranges:
        yield Step(tuple(ranges))
