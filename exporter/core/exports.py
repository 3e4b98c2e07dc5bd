"""What an export is: what was asked, where it stands, and which moves are legal."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any

import msgspec

from exporter.core.checkpoints import Checkpoint, RowCounts, Volume


class State(StrEnum):
    """The five words every contract knows. Finer detail is the `Phase` beside it."""

    QUEUED = "queued"
    """Accepted, never started. A worker's claim moves it on; if no worker lives it stays,
    and starts when one comes back. Its owner may cancel it at once."""
    PROCESSING = "processing"
    """Started: some slice ran or runs. Its worker moves it on; if that worker dies, the lease
    expires and another worker goes on from the checkpoint."""
    FINISHED = "finished"
    """The file is published and its end was proven. Nothing moves it."""
    FAILED = "failed"
    """It will never have a file; `error` says why. Nothing moves it."""
    CANCELED = "canceled"
    """Its owner withdrew it; nothing is kept in the bucket. Nothing moves it."""


PRIORITIES = range(10)
"""0 is the default, 9 the most urgent."""

TERMINAL = frozenset({State.FINISHED, State.FAILED, State.CANCELED})

TRANSITIONS: dict[State, frozenset[State]] = {
    State.QUEUED: frozenset({State.PROCESSING, State.CANCELED}),
    State.PROCESSING: TERMINAL,
    State.FINISHED: frozenset(),
    State.FAILED: frozenset(),
    State.CANCELED: frozenset(),
}


class Phase(StrEnum):
    """What a live export is doing right now."""

    READY = "ready"
    """Waits for a worker."""
    READING = "reading"
    """A worker holds its lease and reads pages."""
    WAITING = "waiting"
    """The upstream or S3 asked for patience; `retry_at` says until when. Holds no worker."""
    COMPLETING = "completing"
    """All rows are read; the file is being published."""
    DONE = "done"
    """In a terminal state."""


class EndReason(StrEnum):
    """How it is known that no row follows."""

    NULL_CURSOR = "null_cursor"
    TOTAL_REACHED = "total_reached"
    LIMIT_REACHED = "limit_reached"


class Outcome(StrEnum):
    """What a finished file holds, measured against what the source announced."""

    COMPLETE = "complete"
    """Every row that the source announced."""
    PARTIAL = "partial"
    """Read to the end, but the source changed meanwhile, by no more than its configuration
    tolerates: rows that moved may be missing. The totals and `duplicates_removed` say how much.
    Or ids were asked for that the source does not have; they are listed."""
    TRUNCATED = "truncated"
    """The requested limit was reached while the source had more."""
    EMPTY = "empty"
    """The search matched nothing; the file has no row."""


class Dialect(msgspec.Struct, frozen=True):
    """How one contract wants a format, as data."""

    guard: bool = False
    """Whether CSV text cells that a spreadsheet would run as a formula get a leading
    apostrophe. Off for machines, whose readers must see the value; on for files people open."""
    joined: bool = False
    """Whether a CSV cell of a list shows its values joined by "; " instead of as JSON text."""
    exported_at: str | None = None
    """When the export was asked for, as its file says it; fixed here, so that whoever goes on
    with the file writes the same."""


class Completeness(msgspec.Struct, frozen=True):
    """The proof of a finished file: what was announced, what was written, how the end showed."""

    outcome: Outcome
    end_reason: EndReason
    exported: int
    expected: int | None
    """Rows that the last announcement, cut to the limit, promised; None if none was made."""
    duplicates_removed: int
    """Rows that the source gave twice, within a window, and that are in the file once."""
    skipped: int
    """What was asked for or given, less all that is accounted for otherwise: the ids that the
    source does not have. A row that cannot be written is not skipped, it fails the export."""
    total_at_start: int | None
    total_at_end: int | None


class Result(msgspec.Struct, frozen=True):
    """A published file. Its URL is never stored: it is signed at each poll."""

    key: str
    file_size: int
    record_count: int
    completeness: Completeness
    row_counts: RowCounts = msgspec.field(name="tally")
    pages: int
    volumes: tuple[Volume, ...] = ()
    """With `Spec.rows_per_file`: the stretches that are handed out as files of their own."""
    unknown_ids: Volume | None = None
    """Ids that were asked for and that the source does not have: one a line, compressed like the
    rest."""


class Hook(msgspec.Struct, frozen=True):
    """Whom to tell of one export, beside the endpoints that its user registered for all."""

    endpoint_id: str
    events: tuple[str, ...]
    """Names such as `export.finished`."""


class Spec(msgspec.Struct, frozen=True, kw_only=True):
    """What was asked, fixed at creation."""

    id: str
    user_id: str
    surface: str
    """The contract it was created on."""
    source: str
    """The source's name in the configuration."""
    query: dict[str, Any]
    """Canonical: one spelling a filter, relative dates already absolute."""
    query_sha256: str
    request: dict[str, Any]
    """The search as its surface echoes it."""
    format: str
    dialect: Dialect
    columns: tuple[str, ...] = ()
    """Columns of a CSV in their order, or the fields kept of each JSON row; empty: all fields."""
    limit: int | None = None
    """Rows at most; None: all."""
    offset: int = 0
    """Rows of the search skipped before the first one exported."""
    ids: int | None = None
    """How many postings are wanted by their ids, which stand in the bucket; None: those that the
    query matches."""
    compression: str = "none"
    rows_per_file: int | None = None
    """Rows at most in each volume of the file; None: all in one."""
    keep_seconds: float | None = None
    """How long the file is kept; None: as long as the settings say."""
    priority: int = 0
    """0 to 9, higher is more urgent."""
    account: str | None = None
    """The key whose credits pay for the records; None: nobody's."""
    reserved: int = 0
    """Credits set aside at creation."""
    concurrency: int = 0
    """Slices of its user that may run at once by their plan; 0: as many as the settings say."""
    webhook: Hook | None = None
    """The endpoint of its `webhook_url`."""
    file_name: str
    """Name that the download suggests."""


class Partition(msgspec.Struct, frozen=True):
    """A stretch of an export's rows that is read beside the others, into an object of its own."""

    place: int
    """0 for the first."""
    offset: int
    """Rows of the export before it."""
    rows: int
    total: int
    """Rows that the source announced for the whole search when the export was cut. Whoever finds
    another number cannot trust the cut."""


class Export(msgspec.Struct, frozen=True, kw_only=True):
    """The unit of work as the store knows it: one export, or one of its partitions."""

    spec: Spec
    state: State
    phase: Phase
    progress: float
    """0.0 to 1.0; never goes back, and is 1.0 only when finished."""
    created_at: datetime
    updated_at: datetime
    started_at: datetime | None = None
    completed_at: datetime | None = None
    worker_id: str | None = None
    """The worker of the latest slice."""
    error: str | None = None
    """For a failed export, why; for a waiting one, what it waits for."""
    attempts: int = 0
    """Workers lost in a row without a committed part between them."""
    stalls: int = 0
    """Waits in a row without a committed part between them."""
    stalled_since: datetime | None = None
    retry_at: datetime | None = None
    cancel_requested: bool = False
    checkpoint: Checkpoint | None = None
    closing: Result | None = None
    """What will be published; written before the last S3 call, so that a lost answer is known."""
    result: Result | None = None
    file_expires_at: datetime | None = None
    """When the file is deleted; None until finished."""
    rows: int = 0
    """Rows in committed parts; of an export that was cut, those of all partitions."""
    partition: Partition | None = None
    """Which stretch of the export this is; None: the export itself."""
    partitions: int | None = None
    """How many it was cut into; 0: it is read as one and never cut; None: not yet decided."""

    @property
    def id(self) -> str:
        """The export's id; of a partition, that with its place behind a slash."""
        return self.spec.id if self.partition is None else f"{self.spec.id}/{self.partition.place}"

    @property
    def user_id(self) -> str:
        return self.spec.user_id

    @property
    def terminal(self) -> bool:
        return self.state in TERMINAL


def progress(rows: int, total: int | None, limit: int | None) -> float:
    """The share of rows written, below 1.0: only publishing makes an export whole.

    >>> progress(50, 200, 100), progress(0, None, None), progress(7, 7, None)
    (0.5, 0.0, 0.99)
    """
    known = [n for n in (total, limit) if n is not None]
    if not known or min(known) <= 0:
        return 0.0
    return min(0.99, rows / min(known))
