"""Making one object of several inside the store, without their bytes passing through here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from exporter.storage.base import ObjectInfo

PIECE = 64 * 1024**2
"""Bytes that one step copies: a worker is asked to leave between two steps only."""
PIECES = 5_000
"""Steps at most, so that the parts of the largest file stay below S3's 10,000."""


class Stretch(msgspec.Struct, frozen=True):
    """Some bytes of an object."""

    source: ObjectInfo
    span: range


class Step(msgspec.Struct, frozen=True):
    """What makes the next part: stretches to be read and stored anew, or else one to be copied."""

    read: tuple[Stretch, ...] = ()
    copy: Stretch | None = None

    @property
    def size(self) -> int:
        """Bytes of that part."""
        return sum(len(one.span) for one in (*self.read, *((self.copy,) if self.copy else ())))


def steps(sources: Sequence[ObjectInfo], done: int, *, least: int) -> Iterator[Step]:
    """How the objects, one behind the other, become the parts of one, from byte `done` of them on.

    Each step makes at least `least` bytes, but for the last, whose read bytes may be fewer: they
    are what ends the file. Objects smaller than that are joined with what follows them.
    """
    piece = max(PIECE, 2 * least, -(-sum(source.size for source in sources) // PIECES))
    hand: list[Stretch] = []
    held = 0
    for source in sources:
        at, done = min(done, source.size), max(done - source.size, 0)
        left = source.size - at
        if held and left:
            # Enough that the hand is a part, and all if what is left would be none.
            taken = min(left, least - held)
            if left - taken < least:
                taken = left
            hand.append(Stretch(source, range(at, at + taken)))
            held += taken
            at, left = at + taken, left - taken
            if held >= least:
                yield Step(read=tuple(hand))
                hand, held = [], 0
        if left >= least:
            count = -(-left // piece)
            for n in range(count):
                begin, end = at + left * n // count, at + left * (n + 1) // count
                yield Step(copy=Stretch(source, range(begin, end)))
        elif left:
            hand.append(Stretch(source, range(at, source.size)))
            held += left
    if hand:
        yield Step(read=tuple(hand))
