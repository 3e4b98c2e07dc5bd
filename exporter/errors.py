"""Every error that the engine raises on purpose, and who must react to each.

The module that defines an error is given in parentheses unless it is this module. "Export:" gives
the reaction of the worker that runs the export, "API:" the status of the answer to the caller. The
`exporter` command prints the text of an error that reaches it and exits with code 1.

ExporterError
 +-- SourceError            Export: fails with this text. API: 502
 |    +-- SourceRefused         Export: retries in the middle of its pages, then fails.
 |    |    |                     API: 422, 429 or 502
 |    |    +-- Missing              operator: create the table or column (sources.sql.database)
 |    +-- SourceUnavailable     Export: keeps the checkpoint and waits. API: 503, or 429 for a 429
 |    |    +-- PageTooLarge         source: requests a smaller page now
 |    +-- SourceUntrue          Export: waits and retries, then fails
 |         +-- SourceMoved          Export: gives up its partitions and is read as one
 +-- StorageError           Export: fails with this text
 |    +-- StorageUnavailable    Export: keeps the checkpoint and waits. API: 503
 |    |    +-- Refused              operator: do what the text says (storage.s3.failures)
 |    |    +-- Completing           storage: looks for the object, else waits (storage.s3.failures)
 |    +-- UploadGone            Export: looks for the finished file, else begins again
 |    +-- ObjectExists          storage: an object of the expected size is fine. Export: else fails
 |    +-- Missing               storage: no object has the key (storage.s3.failures)
 |    +-- Unsupported           storage: sends the request without the header (storage.s3.failures)
 |    +-- OtherBytes            Export: fails, nothing is published (storage.s3.failures)
 |    +-- WrongParts            storage: seals the upload with all its parts (storage.s3.failures)
 +-- StoreUnavailable       Redis did not answer. Worker: retries or waits. API: 503
 |    +-- StoreFull             Redis keeps the memory that is left for running exports. API: 503
 +-- LeaseLost              worker: writes nothing more; another worker may own the export
 +-- ConfigurationError     operator: correct the setting that the text names
 |    +-- Missing               also a SourceRefused, see above (sources.sql.database)
 |    +-- UnknownFormat         caller of `make`: choose one of the formats (formats.registry)
 |    +-- StillRunning          operator: stop all processes first (store.redis.schema)
 +-- QueryError             caller: correct the fields in `problems`. API: 422
 +-- NotInPlan              caller: the plan of the key excludes the request. API: 403 (core.plans)
 +-- LimitReached           caller: do what the text says. API: status of the limit (core.limits)
 +-- CreditsSpent           caller: the key has too few credits left. API: 402 (core.plans)
 +-- KeyReused              caller: send a new idempotency key. API: 422 (store.base)
 +-- KeySpent               caller: send a new idempotency key. API: 409 (store.base)
 +-- Unreadable             worker: leaves the record to workers of another version, and fails the
 |                          export if none comes. API: shows what can be read (store.base)
 +-- NoListener             caller: the endpoint is no listener any more. API: 404 (webhooks.outbox)
 +-- UnknownKey             operator: choose the id of an existing key (store.redis.credit_accounts)
 +-- ForbiddenAddress       caller: choose another webhook URL. API: 422 (webhooks.addresses)
 +-- NameUnresolved         sender of webhooks: retries the delivery later (webhooks.addresses)
 +-- SecretRefused          caller of the stores: correct the signing secret (webhooks.signatures)
 +-- EndpointDisabled       caller: enable the endpoint first. API: 409 (webhooks.endpoints)
 +-- TooManyEndpoints       caller: delete an endpoint first. API: 409 (webhooks.endpoints)
 +-- ServiceError           user of the command: do what the text says (cli.remote)
 +-- ChildError             user of the local stack: read the log in the text (local.children)
 +-- StoppedEarly           local stack: exits with code 0 (local.stack)
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypedDict


class FieldProblem(TypedDict):
    """A wrong field of a request."""

    loc: Sequence[str | int]
    """Location of the field, such as `("search", "limit")`."""
    msg: str
    """The problem, for people."""
    type: str
    """Stable code of the problem, for programs."""


def problem(loc: Sequence[str | int], msg: str, kind: str = "value_error") -> FieldProblem:
    """Returns the problem of the field at this location."""
    return {"loc": tuple(loc), "msg": msg, "type": kind}


def within(place: str, problems: Iterable[FieldProblem]) -> list[FieldProblem]:
    """Returns the problems of the fields that are inside the field `place`."""
    return [{**one, "loc": (place, *one["loc"])} for one in problems]


class ExporterError(Exception):
    """Base of all errors that the engine raises on purpose."""


REFUSED = "refused"
"""Fault of an answer with a status that refuses the request."""
UNTRUE = "untrue"
"""Fault of an answer that is not HTTP, or whose content is not that of the contract."""


class SourceError(ExporterError):
    """The upstream did not return the requested page."""

    status: int | None = None
    """HTTP status of the upstream's answer; None without an answer and for status 200."""
    upstream: str | None = None
    """Host of the upstream, for logs and commands of operators; the text, for users, omits it."""
    fault: str | None = None
    """Way in which the answer is wrong: REFUSED, UNTRUE or another text; None without an answer.

    An export asks again a few times for an answer that is wrong in the same way, and then fails.
    """


class SourceRefused(SourceError):
    """The upstream refuses this request; repeating it soon gives the same answer."""


class SourceUnavailable(SourceError):
    """The upstream did not answer; a later request may succeed."""

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        """Seconds to wait, as requested by the upstream; None if it requested no wait."""


class PageTooLarge(SourceUnavailable):
    """The upstream did not answer a request for a page of this size; a smaller page may succeed."""

    def __init__(self, message: str, *, guess: bool = False) -> None:
        super().__init__(message)
        self.guess = guess
        """Whether the page's size is only a possible reason; if so, one smaller page is tried."""


class SourceUntrue(SourceError):
    """The upstream's answer contradicts itself or its contract; none of its rows is used."""


class SourceMoved(SourceUntrue):
    """Rows of the source moved while its partitions were read in parallel."""


class StorageError(ExporterError):
    """A request to the object store failed."""


class StorageUnavailable(StorageError):
    """The object store did not answer; a later request may succeed."""


class UploadGone(StorageError):
    """The unfinished file no longer exists: it was published, taken over or discarded."""


class ObjectExists(StorageError):
    """A conditional write failed, because an object with that key exists."""


class StoreUnavailable(ExporterError):
    """The record store did not answer; the requested change may or may not have been made."""


class StoreFull(StoreUnavailable):
    """The record store is almost full; nothing was created, and running exports continue."""


class LeaseLost(ExporterError):
    """This worker's lease has ended, or this worker can no longer be sure that it still has it."""


class ConfigurationError(ExporterError):
    """A setting is wrong or missing; the message names the setting and the correction."""


class QueryError(ExporterError):
    """A request has invalid fields; `problems` has one entry for each."""

    def __init__(self, problems: Sequence[FieldProblem]) -> None:
        self.problems = tuple(problems)
        super().__init__(
            "; ".join(f"{'.'.join(map(str, p['loc']))}: {p['msg']}" for p in self.problems)
        )
