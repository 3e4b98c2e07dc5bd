"""Every error the engine raises on purpose, and who must react to it.

ExporterError
 +-- SourceError            the upstream; its text is shown to the user
 |    +-- SourceRefused         will not answer this, now or later: fail the export
 |    +-- SourceUnavailable     may answer later: keep the checkpoint, wait, go on
 |    |    +-- PageTooLarge          may answer a smaller page now
 |    +-- SourceUntrue          answered something that cannot be true: retry, then fail
 +-- StorageError           S3
 |    +-- StorageUnavailable    may answer later: keep the checkpoint, wait, go on
 |    +-- UploadGone            this upload id is dead: sealed, completed or aborted
 |    +-- ObjectExists          a conditional write found the key taken
 +-- StoreUnavailable       Redis: callers of the API get 503, workers wait
 +-- LeaseLost              somebody else may own the export now: write nothing more
 +-- ConfigurationError     the operator must mend a setting; the text says which and how
 +-- QueryError             the caller must mend the request; carries the fields
 +-- NotInPlan              the caller's key does not hold this: 403 (plans)
 +-- CreditsSpent           the caller's key has too few credits left: 402 (plans)
 +-- ForbiddenAddress       a webhook must not be sent there (webhooks.addresses)
 +-- NameUnresolved         a webhook's host has no address now (webhooks.addresses)
 +-- SecretRefused          no secret of a webhook (webhooks.signatures)
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
