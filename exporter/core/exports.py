"""The record of an export: its request, its state, its result, and the legal transitions.

Glossary, as these words are used in this code:

- export: one search turned into one file; a "task" or "data request" in other contracts.
- posting, row: one job advertisement of a source; its JSON text, or its shape in the file.
- source: a configured origin of postings: an upstream job API over HTTP, or a SQL table.
- page, cursor: the rows of one answer of a source; the JSON value that asks for the next page.
- format, dialect: the shape of the file (CSV, JSON Lines, …); its options for one contract.
- part: bytes of one or more pages, stored as one part of a multipart upload: the unit of commit.
- checkpoint: the next cursor, the stored parts and all counts; another worker continues from it.
- partition: a range of an export's rows, read in parallel under its own lease and checkpoint.
- slice: the work of one worker on one claimed export or partition, 30 s by default.
- lease: a worker's right to write an export or partition, 30 s by default, renewed as it works.
- fence: the fencing token of a lease: a counter that only grows, plus a random nonce.
- doorbell: the Celery message that wakes a worker; losing or repeating it changes nothing.
- seal: to complete a lost worker's upload early, so that its upload id can no longer be used.
- volume: a byte range of the file that is a complete file by itself (see `Spec.rows_per_file`).
- contract, vendor: the API of a company that users know (Hirebase, Coresignal, …); that company.
- surface: a family of API endpoints with its own contract: native, hirebase, coresignal, pipeline.
- user, tenant: the owner of exports and keys; "tenant" where users compete for workers.
- board: the reference job board that comes with the project, an upstream for trying and testing.
- unknown ids: ids that an export was asked for and that its source does not have.
- guard: a check before each S3 request that raises LeaseLost once the lease has expired.
- outbox: events stored in the same step as the change they report, until webhooks are delivered.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any

import msgspec

from exporter.core.checkpoints import Checkpoint, RowCounts, Volume
from exporter.core.columns import Chosen, name_of


class State(StrEnum):
    """The state of an export, in the five words of every contract; `Phase` has finer detail."""

    QUEUED = "queued"
    """Accepted and not started. A claim by a worker starts the export.

    Without a running worker the export stays queued. Its owner's cancel takes effect at once.
    """
    PROCESSING = "processing"
    """Started by a worker.

    If the worker dies, the lease expires and another worker continues from the checkpoint.
    """
    FINISHED = "finished"
    """The file is published, and it is proven that no row is missing at its end. Terminal."""
    FAILED = "failed"
    """The export ended without a file; `error` has the reason. Terminal."""
    CANCELED = "canceled"
    """Canceled by its owner or an operator; nothing is kept in the bucket. Terminal."""


PRIORITIES = range(10)
"""Valid priorities: 0 is the default, 9 the most urgent."""

TERMINAL = frozenset({State.FINISHED, State.FAILED, State.CANCELED})
"""States that never change again."""

TRANSITIONS: dict[State, frozenset[State]] = {
    State.QUEUED: frozenset({State.PROCESSING, State.CANCELED}),
    State.PROCESSING: TERMINAL,
    State.FINISHED: frozenset(),
    State.FAILED: frozenset(),
    State.CANCELED: frozenset(),
}
"""The states that may follow each state."""


class Phase(StrEnum):
    """The current activity of an export, in more detail than `State`."""

    READY = "ready"
    """Waiting for a worker."""
    READING = "reading"
    """A worker holds the lease and reads pages, or the export's partitions are being read."""
    WAITING = "waiting"
    """Paused until `retry_at`; the export occupies no worker.

    The reason of the pause: the upstream or S3 did not answer, or asked for a pause.
    """
    COMPLETING = "completing"
    """All rows are read; the file is being published."""
    DONE = "done"
    """The state is terminal."""


class EndReason(StrEnum):
    """The reason that proves that no further row belongs in the file."""

    NULL_CURSOR = "null_cursor"
    """The last page has no next cursor, and the source announces no total to compare with."""
    TOTAL_REACHED = "total_reached"
    """The last page has no next cursor, and the number of rows read is the announced total."""
    LIMIT_REACHED = "limit_reached"
    """The requested number of rows was written."""


class Outcome(StrEnum):
    """The completeness of a finished file, judged by the totals that the source announced."""

    COMPLETE = "complete"
    """Every row of the source is in the file."""
    PARTIAL = "partial"
    """The source changed while it was read, or did not have some of the requested ids.

    A change is within the `tolerated_drift` of the source's configuration; rows that moved may be
    missing. The totals and `duplicates_removed` of `Completeness` show the size of the change.
    Missing ids are listed, see `Result.unknown_ids`.
    """
    TRUNCATED = "truncated"
    """The requested limit was reached while the source had more rows, or may have had more."""
    EMPTY = "empty"
    """The file has no row."""


class Dialect(msgspec.Struct, frozen=True):
    """Options of a format that differ between contracts."""

    guard: bool = False
    """Whether CSV text cells that a spreadsheet would run as a formula get a leading apostrophe.

    Off for files that programs read, because programs must see the unchanged value; on for files
    that people open.
    """
    joined: bool = False
    """Whether a list in CSV is written as its values, joined by "; ", instead of as JSON text."""
    bom: bool = False
    """Whether a CSV file begins with a byte order mark, for Excel."""
    exported_at: str | None = None
    """Time of the request, as text that the format writes into the file; None: no time.

    The text is part of the request, so that every worker writes the same bytes.
    """


class Completeness(msgspec.Struct, frozen=True):
    """The proof of a finished file: rows announced, rows written, and the proof of the end."""

    outcome: Outcome
    end_reason: EndReason
    exported: int
    """Rows in the file."""
    expected: int | None
    """Number of expected rows: the last total that the source announced, or a smaller limit.

    None if the source announced no total.
    """
    duplicates_removed: int
    """Number of repeated rows that were left out of the file.

    Only repetitions within the latest 1,000 rows are recognized; repetitions further apart come
    from the source itself and are kept.
    """
    skipped: int
    """Number of requested ids that the source does not have.

    A row that cannot be encoded is never counted here; it fails the export.
    """
    total_at_start: int | None
    """Rows that the source announced with the first page; None if it announces no total."""
    total_at_end: int | None
    """Rows that the source announced with the last page; None if it announces no total."""


class Result(msgspec.Struct, frozen=True):
    """A published file. Its URL is not stored: each poll signs a new URL."""

    key: str
    """Object key of the file."""
    file_size: int
    """Bytes of the file."""
    record_count: int
    """Rows in the file."""
    completeness: Completeness
    row_counts: RowCounts = msgspec.field(name="tally")
    pages: int
    """Pages that were read."""
    volumes: tuple[Volume, ...] = ()
    """The volumes of the file, each downloadable by itself; empty without `Spec.rows_per_file`."""
    unknown_ids: Volume | None = None
    """Byte range of the file that lists the requested ids that the source does not have.

    It has one id per line and is compressed like the file. None if the source has all ids.
    """


class Hook(msgspec.Struct, frozen=True):
    """The webhook of one export, in addition to the endpoints that its user has registered."""

    endpoint_id: str
    events: tuple[str, ...]
    """Names of the events to send, such as `export.finished`."""


class Spec(msgspec.Struct, frozen=True, kw_only=True):
    """The request of an export; fixed at creation."""

    id: str
    user_id: str
    surface: str
    """Name of the surface that created the export."""
    source: str
    """Name of the source in the configuration."""
    query: dict[str, Any]
    """The canonical search: one spelling for each filter, relative dates made absolute."""
    query_sha256: str
    """Digest of `query`; see `canonical.digest`."""
    request: dict[str, Any]
    """The search as its surface echoes it to the caller."""
    format: str
    """Name of the format; see `formats.registry.FORMATS`."""
    dialect: Dialect
    columns: tuple[Chosen, ...] = ()
    """CSV: the columns in order. JSON: the fields kept in each row, or all fields if empty."""
    types: dict[str, str] = {}
    """Types of the columns that are not text, by name, as the source declared them at creation."""
    limit: int | None = None
    """Maximum number of rows; None: all rows."""
    offset: int = 0
    """Number of rows at the beginning of the search result that are not exported."""
    ids: int | None = None
    """Number of postings that were requested by their ids; None if the query selects the postings.

    The ids themselves are stored as an object in the bucket.
    """
    compression: str = "none"
    """Name of the compression; see `formats.registry.COMPRESSIONS`."""
    rows_per_file: int | None = None
    """Maximum number of rows in each volume of the file; None: one volume with all rows."""
    keep_seconds: float | None = None
    """Retention of the file in seconds; None: the retention of the settings."""
    priority: int = 0
    """0 to 9; 9 is the most urgent."""
    account: str | None = None
    """Id of the API key whose credits pay for the records; None: the export is not charged."""
    reserved: int = 0
    """Credits reserved at creation."""
    concurrency: int = 0
    """Maximum number of slices of the user that may run at the same time, by the user's plan.

    0: only the limit of the settings applies.
    """
    webhook: Hook | None = None
    """The endpoint of the request's `webhook_url`; None if the request has none."""
    file_name: str
    """File name that the download suggests."""
    name: str = ""
    """Name that the caller gave the export; empty: none."""
    metadata: dict[str, str] = {}
    """Texts of the caller, which are echoed and by which lists are filtered."""
    created_by: str | None = None
    """Id of the API key that created the export; None: unknown."""
    retry_of: str | None = None
    """Id of the export whose request is repeated; None: it is no repetition."""
    schedule_id: str | None = None
    """Id of the schedule that created the export; None: none did."""

    @property
    def column_names(self) -> tuple[str, ...]:
        """The names of the columns in the file."""
        return tuple(map(name_of, self.columns))


class Partition(msgspec.Struct, frozen=True):
    """A range of an export's rows, read in parallel with the other ranges into its own object."""

    place: int
    """Index of the partition; the first is 0."""
    offset: int
    """Rows of the export before the partition."""
    rows: int
    """Rows in the partition."""
    total: int
    """Total that the source announced for the whole search when the export was partitioned.

    If the source later announces another total, its rows have moved: the partitions are dropped and
    the export is read again without partitions.
    """
    first_rows: str = ""
    """Digests of the ids of the export's first rows, in base64.

    If many of these rows come again in a later partition, the source repeats its list.
    """
    page_rows: int = 0
    """Rows on each page, if all partitions begin with whole pages of one size; 0: unknown."""
    page_bytes: int = 0
    """Size of the first page's rows; with it, the first pages are requested together."""


class WrongAnswers(msgspec.Struct, frozen=True, array_like=True):
    """The waits in a row of an export for an upstream that is wrong in the same way each time."""

    fault: str
    """See `exporter.errors.SourceError.fault`."""
    waits: int


class Export(msgspec.Struct, frozen=True, kw_only=True):
    """The stored record of one export, or of one of its partitions."""

    spec: Spec
    state: State
    phase: Phase
    progress: float
    """0.0 to 1.0; never decreases, and is 1.0 only when finished."""
    created_at: datetime
    updated_at: datetime
    started_at: datetime | None = None
    completed_at: datetime | None = None
    worker_id: str | None = None
    """Id of the worker of the latest slice."""
    error: str | None = None
    """Reason of the failure, in state failed; else the reason of the latest wait.

    Users see it, so stores return it without addresses of the deployment. A checkpoint with
    progress clears the reason of a wait.
    """
    attempts: int = 0
    """Number of workers in a row that lost their lease since the last checkpoint with progress."""
    stalls: int = 0
    """Number of waits in a row since the last checkpoint with progress."""
    stalled_since: datetime | None = None
    """Start of the first wait since the last checkpoint with progress; None without a wait."""
    wrong_answers: WrongAnswers | None = None
    """The latest waits for wrong answers; None after another wait, and after progress."""
    retry_at: datetime | None = None
    """Time at which the current wait ends; None unless the phase is waiting."""
    cancel_requested: bool = False
    """Whether the owner asked to cancel the export while it was processing."""
    checkpoint: Checkpoint | None = None
    """The latest committed checkpoint; None before the first commit."""
    closing: Result | None = None
    """The result that is about to be published.

    The result is stored before the last S3 request. If the answer to that request is lost, the next
    worker checks whether the file of this result exists.
    """
    result: Result | None = None
    """The published file; None until finished."""
    file_expires_at: datetime | None = None
    """Time at which the file is deleted; None until finished."""
    rows: int = 0
    """Rows in committed parts; of a partitioned export, the sum over its partitions."""
    partition: Partition | None = None
    """The range of rows, if this record is a partition; None if it is the export itself."""
    readable: bool = True
    """False if this version cannot read the whole record, which then is only shown, never run."""
    partitions: int | None = None
    """Number of partitions; 0: read without partitions; None: not yet decided."""

    @property
    def id(self) -> str:
        """Id of the export; for a partition, `<export id>/<place>`."""
        return self.spec.id if self.partition is None else f"{self.spec.id}/{self.partition.place}"

    @property
    def user_id(self) -> str:
        """Id of the user who owns the export."""
        return self.spec.user_id

    @property
    def terminal(self) -> bool:
        """True if the state never changes again."""
        return self.state in TERMINAL


def progress(rows: int, total: int | None, limit: int | None) -> float:
    """Returns the share of rows written, at most 0.99; 1.0 is reserved for a published export.

    The share is 0.0 if neither total nor limit is known.

    >>> progress(50, 200, 100), progress(0, None, None), progress(7, 7, None)
    (0.5, 0.0, 0.99)
    """
    known = [n for n in (total, limit) if n is not None]
    if not known or min(known) <= 0:
        return 0.0
    return min(0.99, rows / min(known))
