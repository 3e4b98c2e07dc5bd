"""Outcomes of a slice."""

from __future__ import annotations

from enum import StrEnum


class Ending(StrEnum):
    """The way in which a slice ended."""

    FINISHED = "finished"
    """The file, or the object of the partition, is published."""
    FAILED = "failed"
    """The export or partition ended with an error."""
    CANCELED = "canceled"
    """The export or partition was canceled and its files were deleted."""
    HANDED_OVER = "handed_over"
    """More work remains: the slice's budget is used up, or this worker shuts down."""
    CUT = "cut"
    """The export was divided into partitions; it continues when all of them have ended."""
    WAITING = "waiting"
    """The upstream or S3 needs time; the export becomes ready again after a delay."""
    LOST = "lost"
    """Another worker owns the export or may own it, so this worker writes nothing more."""
