"""Every error that the engine raises on purpose, and who must react to each.

The module that defines an error is given in parentheses unless it is this module. "Export:" gives
the reaction of the worker that runs the export, "API:" the status of the answer to the caller. The
`exporter` command prints the text of an error that reaches it and exits with code 1.

ExporterError
 +-- SourceError            Export: fails with this text. API: 502
 |    +-- SourceRefused         a repeated request gets the same refusal. API: 422, 429 or 502
 |    |    +-- Missing              operator: create the table or column (sources.sql.database)
 |    +-- SourceUnavailable     Export: keeps the checkpoint and waits. API: 503, or 429 for a 429
 |    |    +-- PageTooLarge         source: requests a smaller page now
 |    +-- SourceUntrue          Export: waits and retries, then fails
 |         +-- SourceMoved          Export: gives up its partitions and is read as one
 +-- StorageError           Export: fails with this text
 |    +-- StorageUnavailable    Export: keeps the checkpoint and waits. API: 503
 |    |    +-- Refused              operator: do what the text says (storage.s3_failures)
 |    +-- UploadGone            Export: looks for the finished file, else begins again
 |    +-- ObjectExists          storage: an object of the expected size is fine. Export: else fails
 |    +-- Missing               storage: no object has the key (storage.s3_failures)
 +-- StoreUnavailable       Redis did not answer. Worker: retries or waits. API: 503
 +-- LeaseLost              worker: writes nothing more; another worker may own the export
 +-- ConfigurationError     operator: correct the setting that the text names
 |    +-- Missing               also a SourceRefused, see above (sources.sql.database)
 |    +-- UnknownFormat         caller of `make`: choose one of the formats (formats.registry)
 +-- QueryError             caller: correct the fields in `problems`. API: 422
 +-- NotInPlan              caller: the plan of the key excludes the request. API: 403 (core.plans)
 +-- CreditsSpent           caller: the key has too few credits left. API: 402 (core.plans)
 +-- KeyReused              caller: send a new idempotency key. API: 422 (store.base)
 +-- KeySpent               caller: send a new idempotency key. API: 409 (store.base)
 +-- Unreadable             worker: leaves the record to workers of another version, and fails the
 |                          export if none comes (store.redis.records)
 +-- UnknownKey             operator: choose the id of an existing key (store.redis.credit_accounts)
 +-- ForbiddenAddress       caller: choose another webhook URL. API: 422 (webhooks.addresses)
 +-- NameUnresolved         sender of webhooks: retries the delivery later (webhooks.addresses)
 +-- SecretRefused          caller of the stores: correct the signing secret (webhooks.signatures)
 +-- EndpointDisabled       caller: enable the endpoint first. API: 409 (webhooks.endpoints)
 +-- TooManyEndpoints       caller: delete an endpoint first. API: 409 (webhooks.endpoints)
 +-- ServiceError           user of the command: do what the text says (cli.client)
 |    +-- ServiceSilent         command: polls again for a while (cli.client)
 +-- ChildError             user of the local stack: read the log in the text (local.children)
 +-- StoppedEarly           local stack: exits with code 0 (local.stack)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict


class FieldProblem(TypedDict):
    """One thing wrong with a request: where, what, and a stable code."""

    loc: Sequence[str | int]
    msg: str
    type: str


class ExporterError(Exception):
    """Base of all errors that the engine raises on purpose."""


class SourceError(ExporterError):
    """The upstream did not give the page that was asked for."""

    status: int | None = None
    """What it answered instead, if it answered another HTTP status than 200."""


class SourceRefused(SourceError):
    """The upstream will not answer this request, however often it is asked."""


class SourceUnavailable(SourceError):
    """The upstream did not answer now and may answer later."""

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        """Seconds that the upstream asked us to wait, if it did."""


class PageTooLarge(SourceUnavailable):
    """The upstream did not manage a page of this size."""

    def __init__(self, message: str, *, guess: bool = False) -> None:
        super().__init__(message)
        self.guess = guess
        """Whether its size is only one of the possible reasons."""


class SourceUntrue(SourceError):
    """The upstream's answer contradicts itself or its contract, so no row of it is used."""


class SourceMoved(SourceUntrue):
    """Rows were added or removed while the list was read in several places at once."""


class StorageError(ExporterError):
    """The object store did not do what it was asked."""


class StorageUnavailable(StorageError):
    """The object store did not answer now and may answer later."""


class UploadGone(StorageError):
    """The multipart upload no longer exists: it was completed, sealed or aborted."""


class ObjectExists(StorageError):
    """A write that must create a new object found one under that key."""


class StoreUnavailable(ExporterError):
    """The record store did not answer; nothing is known about whether the call took effect."""


class LeaseLost(ExporterError):
    """The right to write this export has ended or cannot be proven any more."""


class ConfigurationError(ExporterError):
    """A setting is wrong or missing; the message names it and says how to mend it."""


class QueryError(ExporterError):
    """A request's search is not valid for its source."""

    def __init__(self, problems: Sequence[FieldProblem]) -> None:
        self.problems = tuple(problems)
        super().__init__(
            "; ".join(f"{'.'.join(map(str, p['loc']))}: {p['msg']}" for p in self.problems)
        )
