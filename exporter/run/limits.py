"""The limits of a slice, and the computation of the time that an export must wait."""

from __future__ import annotations

from datetime import datetime, timedelta

import msgspec

from exporter.core.exports import Export, WrongAnswers
from exporter.errors import REFUSED, SourceError

FIRST_WAIT_SECONDS = 2.0
MAX_WAIT_SECONDS = 60.0
"""Longest wait of the backoff for an upstream or S3, in seconds.

The first wait takes FIRST_WAIT_SECONDS; each further wait in a row takes twice as long.
"""


MAX_WRONG_WAITS = 3
"""Number of waits in a row after which an answer that is wrong in the same way fails the export.

The waits take 2, 4 and 8 s; a proxy may send a web page instead of an answer for that long.
"""
MAX_REFUSED_WAITS = 7
"""Number of waits in a row after which a refusal in the middle of the pages fails the export.

The waits take three minutes together; an upstream that is being deployed may answer 302, 401 or 404
for that long.
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
    """Number of pieces that may be on their way to the storage while the next piece is made.

    Each of these pieces occupies memory.
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
        self,
        export: Export,
        now: datetime,
        reason: str,
        *,
        advanced: bool,
        at_least: float,
        wrong_answers: WrongAnswers | None = None,
    ) -> timedelta | str:
        """Returns how long the export must wait, or the text of the error with which it must fail.

        The wait is at least `at_least` seconds and otherwise doubles with each wait in a row. With
        `advanced`, the export has made progress since its last wait, so the wait counts as the
        first. With `wrong_answers`, only the waits for these count. The export must fail if its
        waits in a row have lasted longer than `patience`, or if the next wait would end after its
        deadline. `reason` is the cause of the wait, for the error text.
        """
        stalls = 0 if advanced else export.stalls
        if wrong_answers is not None:
            stalls = wrong_answers.waits - 1
        since = None if advanced else export.stalled_since
        seconds = max(min(FIRST_WAIT_SECONDS * 2 ** min(stalls, 10), MAX_WAIT_SECONDS), at_least)
        if since is not None and now - since > self.patience:
            return f"gave up after waiting since {since:%Y-%m-%d %H:%M:%S}Z: {reason}"
        if now + timedelta(seconds=seconds) > self.deadline_of(export):
            return f"not finished within {self.deadline} of its creation: {reason}"
        return timedelta(seconds=seconds)


def wrong_answers(
    export: Export, error: SourceError, *, advanced: bool, has_pages: bool
) -> WrongAnswers | None:
    """Returns the waits for wrong answers, with the wait that this error would cause.

    With `advanced`, the export has made progress since its last wait. Returns None if the error is
    no wrong answer, or a refusal before the first page: then no page ever came well.
    """
    if error.fault is None or (error.fault == REFUSED and not has_pages):
        return None
    before = None if advanced else export.wrong_answers
    if before is None or before.fault != error.fault:
        return WrongAnswers(error.fault, 1)
    return WrongAnswers(error.fault, before.waits + 1)


def is_final(answers: WrongAnswers) -> bool:
    """True if the upstream was asked often enough."""
    most = MAX_REFUSED_WAITS if answers.fault == REFUSED else MAX_WRONG_WAITS
    return answers.waits > most
