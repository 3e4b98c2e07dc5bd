"""The limits of a slice, and the computation of the time that an export must wait."""

from __future__ import annotations

from datetime import datetime, timedelta

import msgspec

from exporter.core.exports import Export

FIRST_WAIT_SECONDS = 2.0
MAX_WAIT_SECONDS = 60.0
"""Longest wait of the backoff for an upstream or S3, in seconds.

The first wait takes FIRST_WAIT_SECONDS; each further wait in a row takes twice as long.
"""


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """The limits of a slice; `settings.Settings` explains each of them."""

    part_size: int
    slice: timedelta
    lease: timedelta
    patience: timedelta
    deadline: timedelta
    max_attempts: int
    keep_file: timedelta
    keep_record: timedelta
    charge_canceled: bool = False
    parts_ahead: int = 2
    """Number of parts that may be on their way to the object store while the next part is made.

    Each of these parts occupies memory.
    """

    partition_rows: int = 0
    partitions: int = 16

    def deadline_of(self, export: Export) -> datetime:
        """Returns the time by which the export must have ended."""
        return export.created_at + self.deadline

    def file_retention(self, export: Export) -> timedelta:
        """Returns how long the file of the export is kept."""
        own = export.spec.keep_seconds
        return self.keep_file if own is None else timedelta(seconds=own)

    def wait_or_reason(
        self, export: Export, now: datetime, reason: str, *, advanced: bool, at_least: float
    ) -> timedelta | str:
        """Returns how long the export must wait, or the text of the error with which it must fail.

        The wait is at least `at_least` seconds and otherwise doubles with each wait in a row. With
        `advanced`, the export has made progress since its last wait, so the wait counts as the
        first. The export must fail if its waits in a row have lasted longer than `patience`, or if
        the next wait would end after its deadline. `reason` is the cause of the wait, for the error
        text.
        """
        stalls = 0 if advanced else export.stalls
        since = None if advanced else export.stalled_since
        seconds = max(min(FIRST_WAIT_SECONDS * 2 ** min(stalls, 10), MAX_WAIT_SECONDS), at_least)
        if since is not None and now - since > self.patience:
            return f"gave up after waiting since {since:%Y-%m-%d %H:%M:%S}Z: {reason}"
        if now + timedelta(seconds=seconds) > self.deadline_of(export):
            return f"not finished within {self.deadline} of its creation: {reason}"
        return timedelta(seconds=seconds)
