"""The numbers that a slice works by, and how long an export may wait by them."""

from __future__ import annotations

from datetime import datetime, timedelta

import msgspec

from exporter.core.exports import Export

FIRST_WAIT = 2.0
LONGEST_WAIT = 60.0
"""Seconds: the first wait for an upstream or S3, and what doubling stops at."""


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """The numbers that a slice works by; see `settings.Settings` for their meaning."""

    part_size: int
    slice: timedelta
    lease: timedelta
    patience: timedelta
    deadline: timedelta
    max_attempts: int
    keep_file: timedelta
    keep_record: timedelta
    parts_ahead: int = 2
    """Parts that may be under way to the store while the next one is made: each is memory."""

    partition_rows: int = 0
    partitions: int = 16

    def until(self, export: Export) -> datetime:
        """When the export must have ended."""
        return export.created_at + self.deadline

    def keep(self, export: Export) -> timedelta:
        """How long its file is kept."""
        own = export.spec.keep_seconds
        return self.keep_file if own is None else timedelta(seconds=own)

    def wait(
        self, export: Export, now: datetime, reason: str, *, advanced: bool, at_least: float
    ) -> timedelta | str:
        """How long the export has to wait because of that reason, at least so many seconds; or
        why it fails instead, if that is longer than it may take.

        Each wait is twice the one before, unless the export has `advanced` since that.
        """
        stalls = 0 if advanced else export.stalls
        since = None if advanced else export.stalled_since
        seconds = max(min(FIRST_WAIT * 2 ** min(stalls, 10), LONGEST_WAIT), at_least)
        if since is not None and now - since > self.patience:
            return f"gave up after waiting since {since:%Y-%m-%d %H:%M:%S}Z: {reason}"
        if now + timedelta(seconds=seconds) > self.until(export):
            return f"not finished within {self.deadline} of its creation: {reason}"
        return timedelta(seconds=seconds)
