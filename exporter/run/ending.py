"""How a slice ends."""

from __future__ import annotations

from enum import StrEnum


class Ending(StrEnum):
    """How a slice ended."""

    FINISHED = "finished"
    FAILED = "failed"
    CANCELED = "canceled"
    HANDED_OVER = "handed_over"
    """More to do: the budget was used up, or this worker shuts down."""
    CUT = "cut"
    """Its partitions are read by others now, and its end comes after theirs."""
    WAITING = "waiting"
    """The upstream or S3 needs time; the export comes back by itself."""
    LOST = "lost"
    """Another worker owns the export, or may: nothing more was written."""
