"""The table of reactions to answers and errors of an upstream."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, auto

import httpx

from exporter.errors import SourceUntrue


class TooManyBytes(Exception):
    """The upstream sent a page larger than MAX_PAGE_BYTES."""


class Reaction(Enum):
    """The reaction to an answer that is not the requested page.

    A retry is sent after a backoff, or after the upstream's Retry-After if that is longer. If
    Retry-After is long, or MAX_TRIES requests have failed, the export waits in phase waiting
    instead and occupies no worker.
    """

    RETRY = auto()
    """Send the same request again."""
    SLOW_DOWN = auto()
    """Retry, and pause all workers of this source for the time in Retry-After."""
    SMALLER_OR_RETRY = auto()
    """The page may be too large: request a smaller page; if none is possible, retry."""
    RETRY_THEN_SMALLER = auto()
    """Retry; if all tries fail, request a smaller page once."""
    SMALLER = auto()
    """The page is too large: request a smaller page; if none is possible, fail the export."""
    GIVE_UP = auto()
    """A retry cannot help: fail the export with the upstream's text."""
    SPENT = auto()
    """The account at the upstream has used up its plan: fail the export, without a retry."""


QUOTA_HEADER = "x-billing-code"
QUOTA_SPENT = "limit_exceeded"
"""Value of QUOTA_HEADER on a 429 which means that the plan at the upstream is used up.

Without this value, a 429 means too many requests. The vendor's official client distinguishes the
two in the same way.
"""

REACTIONS: Mapping[int | tuple[int, str] | type[Exception], Reaction] = {
    408: Reaction.RETRY,
    413: Reaction.SMALLER,
    421: Reaction.RETRY,
    423: Reaction.RETRY,
    425: Reaction.RETRY,
    429: Reaction.SLOW_DOWN,
    (429, QUOTA_SPENT): Reaction.SPENT,
    # Some upstreams answer 500 to a query that takes too long. Mostly a retry helps, and a page
    # made smaller stays small to the end of the export, so retries come first.
    500: Reaction.RETRY_THEN_SMALLER,
    502: Reaction.RETRY,
    503: Reaction.RETRY,
    504: Reaction.SMALLER_OR_RETRY,
    507: Reaction.RETRY,
    509: Reaction.RETRY,
    520: Reaction.RETRY,
    521: Reaction.RETRY,
    522: Reaction.RETRY,
    523: Reaction.RETRY,
    524: Reaction.SMALLER_OR_RETRY,
    529: Reaction.RETRY,
    # Failed or broken connections, and answers that are not HTTP.
    httpx.TransportError: Reaction.RETRY,
    # No byte for READ_TIMEOUT_SECONDS, or an answer that is not complete at the deadline.
    httpx.ReadTimeout: Reaction.SMALLER_OR_RETRY,
    httpx.UnsupportedProtocol: Reaction.GIVE_UP,
    # For example an API key with a line break.
    httpx.LocalProtocolError: Reaction.GIVE_UP,
    httpx.DecodingError: Reaction.RETRY,
    TooManyBytes: Reaction.SMALLER,
    SourceUntrue: Reaction.RETRY,
}
"""The reaction to each status, to a status with a billing code, and to each type of error.

An error type without an entry has the reaction of its base class; a status without an entry has
GIVE_UP. With a Retry-After, see `to_status`.
"""

FINAL = (Reaction.GIVE_UP, Reaction.SPENT, Reaction.SMALLER)
SMALLER_AT_ONCE = (Reaction.SMALLER, Reaction.SMALLER_OR_RETRY)


def to_status(status: int, billing_code: str, wait: float | None) -> Reaction:
    """Returns the reaction to an answer with that status and value of QUOTA_HEADER.

    `wait` is the time for which the answer asks the client to wait; None if it does not ask. An
    upstream that asks for it will answer later, so no status is final then.
    """
    reaction = REACTIONS.get((status, billing_code)) or REACTIONS.get(status) or Reaction.GIVE_UP
    if wait is None:
        return reaction
    if reaction is Reaction.SMALLER:
        return Reaction.SMALLER_OR_RETRY
    if reaction is Reaction.GIVE_UP:
        # Some upstreams answer 403 to too many requests.
        return Reaction.SLOW_DOWN if status == 403 else Reaction.RETRY
    return reaction


def to_error(error: Exception) -> Reaction:
    """Returns the reaction to the failure of a request."""
    return next(REACTIONS[kind] for kind in type(error).__mro__ if kind in REACTIONS)
