"""The limits of the service: everything that one caller, request or connection can use up.

This table is the only place of a limit's default. The code reads it here, settings take their
defaults from here, and `deploy/LIMITS.md` is generated from here. To add a limit, add a constant of
the type `Limit` and run `python -m exporter.core.limits > deploy/LIMITS.md`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from exporter.core.rates import API_SHARE, Rate
from exporter.errors import ExporterError

Value = TypeVar("Value", int, Rate)


@dataclass(frozen=True)
class Limit(Generic[Value]):
    """A limit of the service, with the answer to a caller who reaches it.

    The answer has the error shape of the surface that was called, and says what to do.
    """

    name: str
    """Name of the limit in the documentation."""
    bounds: str
    """The bounded thing and its scope, such as "body of one request"."""
    default: Value
    unit: str
    """Unit of the value, in the plural; empty for a rate."""
    answer: str
    """Description of the answer to a caller who reaches the limit, without status and code."""
    status: int | None = None
    """HTTP status of the answer; None if no answer is sent and `answer` describes the effect."""
    code: str | None = None
    """Stable code of the answer, in shapes that have one."""
    setting: str | None = None
    """Field of `Settings` by which the operator changes the limit; None: it is fixed."""
    per_key: bool = False
    """Whether `exporter keys set --limit` can change the limit for one key."""

    @staticmethod
    def of_requests(
        name: str, bounds: str, rate: Rate, *, setting: str | None = None
    ) -> Limit[Rate]:
        """Returns a limit of requests in a time; with a setting, it can also be changed per key."""
        return Limit(
            name,
            bounds,
            rate,
            "",
            "refused, with Retry-After",
            429,
            "rate_limited",
            setting=setting,
            per_key=setting is not None,
        )


# Requests

BODY_BYTES = Limit(
    "body_bytes",
    "body of one request, except lists of ids",
    1024 * 1024,
    "bytes",
    "refused, before more than this is read",
    413,
    "body_too_large",
)
NESTING = Limit(
    "nesting",
    "objects and lists within each other in the body of one request",
    32,
    "levels",
    "refused, before the body is parsed; the problem names the field",
    422,
    "invalid_request",
)
VALUES = Limit(
    "values",
    "fields and entries of lists in the body of one request, all together, except lists of ids",
    10_000,
    "values",
    "refused, before the values are checked",
    422,
    "invalid_request",
)
FIELDS = Limit(
    "fields",
    "fields of one object in the body of one request",
    200,
    "fields",
    "refused, before the values are checked",
    422,
    "invalid_request",
)
ID_LIST_BYTES = Limit(
    "id_list_bytes",
    "body of one request with a list of ids",
    16 * 1024 * 1024,
    "bytes",
    "refused, before more than this is read",
    413,
    "body_too_large",
)
STORED_SEARCH_BYTES = Limit(
    "stored_search_bytes",
    "search of one export, as JSON in its record",
    64 * 1024,
    "bytes",
    "refused, before anything is stored",
    422,
    "invalid_request",
)
COLUMNS = Limit(
    "columns",
    "columns of one export",
    1_000,
    "columns",
    "refused; the problem names the field",
    422,
    "invalid_request",
)
FILE_NAME_BYTES = Limit(
    "file_name_bytes",
    "file_name of one export, in UTF-8 and without an added extension",
    200,
    "bytes",
    "refused; the problem names the field",
    422,
    "invalid_request",
)
EXPORT_NAME_CHARS = Limit(
    "export_name_chars",
    "name of one export",
    100,
    "characters",
    "refused; the problem names the field",
    422,
    "invalid_request",
)
METADATA_PAIRS = Limit(
    "metadata_pairs",
    "pairs in the metadata of one export",
    20,
    "pairs",
    "refused; the problem names the field",
    422,
    "invalid_request",
)
METADATA_KEY_CHARS = Limit(
    "metadata_key_chars",
    "key of one pair of metadata",
    40,
    "characters",
    "refused; the problem names the field",
    422,
    "invalid_request",
)
METADATA_VALUE_CHARS = Limit(
    "metadata_value_chars",
    "value of one pair of metadata",
    500,
    "characters",
    "refused; the problem names the field",
    422,
    "invalid_request",
)
PAGE_SIZE = Limit(
    "page_size",
    "exports or deliveries on one page of a list",
    100,
    "records",
    "lowered to the limit",
)
BULK_EXPORTS = Limit(
    "bulk_exports",
    "exports that one act in the console cancels, retries or downloads",
    500,
    "exports",
    "the page says so, and the others are left for the next act",
)
PAGE_BYTES = Limit(
    "page_bytes",
    "stored searches of the exports on one page of a list",
    256 * 1024,
    "bytes",
    "the page ends earlier, with a next_cursor",
)
LISTED_QUERY_BYTES = Limit(
    "listed_query_bytes",
    "query of one export in a list, as JSON",
    4 * 1024,
    "bytes",
    "shown as null; the export itself shows it",
)
FIRST_ROWS = Limit(
    "first_rows",
    "rows in the preview of one export",
    100,
    "rows",
    "the preview ends there",
)
FIRST_ROWS_BYTES = Limit(
    "first_rows_bytes",
    "preview of one export",
    256 * 1024,
    "bytes",
    "the preview ends earlier, after a whole row",
)
IDEMPOTENCY_KEY_CHARS = Limit(
    "idempotency_key_chars",
    "Idempotency-Key of one request",
    255,
    "characters",
    "refused (422 on the paths of Hirebase and Coresignal); the problem names the header",
    400,
    "idempotency_key_invalid",
)

# Exports of a user

QUEUED_EXPORTS = Limit(
    "queued_exports",
    "exports of one user that have not ended",
    2_000,
    "exports",
    "refused, with Retry-After: wait until exports end, or cancel some",
    429,
    "too_many_queued_exports",
    setting="max_queued_exports",
    per_key=True,
)
KEPT_EXPORTS = Limit(
    "kept_exports",
    "records of one user, ended exports included until their retention is over",
    50_000,
    "exports",
    "refused: delete exports that are no longer needed",
    409,
    "too_many_kept_exports",
    setting="max_kept_exports",
    per_key=True,
)
STORED_BYTES = Limit(
    "stored_bytes",
    "searches of all kept exports of one user",
    64 * 1024 * 1024,
    "bytes",
    "refused: delete exports that are no longer needed",
    409,
    "too_many_stored_bytes",
    setting="max_stored_bytes",
    per_key=True,
)
REDIS_MEMORY = Limit(
    "redis_memory",
    "share of the maxmemory of Redis in which exports are created",
    90,
    "percent",
    "refused, with Retry-After; the rest is kept for the exports that run",
    503,
    "store_full",
)

# Webhooks

REGISTERED_ENDPOINTS = Limit(
    "registered_endpoints",
    "registered webhook endpoints of one user",
    20,
    "endpoints",
    "refused: delete an endpoint first",
    409,
    "too_many_endpoints",
)
URL_ENDPOINTS = Limit(
    "url_endpoints",
    "webhook endpoints of one user that were created for a webhook_url and are not expired",
    10_000,
    "endpoints",
    "an export with another webhook_url is refused: use a known URL, or a registered endpoint",
    409,
    "too_many_endpoints",
)
LISTENER_TTL = Limit(
    "listener_ttl",
    "time without a take after which a webhook endpoint of the kind `listener` is deleted",
    600,
    "seconds",
    "refused; the problem names the field",
    422,
    "invalid_request",
)
KEPT_DELIVERIES = Limit(
    "kept_deliveries",
    "webhook deliveries of one user, finished ones included until their retention is over",
    20_000,
    "deliveries",
    "the oldest are deleted",
    setting="webhook_kept_deliveries",
)
SIGNING_SECRETS = Limit(
    "signing_secrets",
    "secrets of one webhook endpoint that sign: the current one and those in their grace period",
    5,
    "secrets",
    "refused: wait for the end of a grace period, or rotate without one",
    409,
    "too_many_secrets",
)
USER_ATTEMPTS = Limit(
    "user_attempts",
    "webhooks of one user that all processes together send at the same time",
    8,
    "webhooks",
    "the user's other webhooks wait",
    setting="webhook_user_concurrency",
)

# Connections and threads of one API process

KEY_REQUESTS = Limit(
    "key_requests",
    "requests of one key that one API process works on at once, polls and plain creations apart",
    8,
    "requests",
    "further requests wait for their turn",
)
KEY_WAITING_REQUESTS = Limit(
    "key_waiting_requests",
    "requests of one key that wait for their turn in one API process",
    256,
    "requests",
    "refused, with Retry-After",
    429,
    "too_many_requests",
)
WAITING_POLLS = Limit(
    "waiting_polls",
    "polls with `?wait=` of one key that wait in one API process",
    20,
    "polls",
    "answered at once, like a poll without `?wait=`",
    per_key=True,
)
KEY_STREAMS = Limit(
    "key_streams",
    "bodies of /api/export that one process sends to one key at once",
    3,
    "streams",
    "refused, with Retry-After",
    429,
    "too_many_streams",
    per_key=True,
)
KEY_EVENT_STREAMS = Limit(
    "key_event_streams",
    "event streams that one process serves to one key at once",
    5,
    "streams",
    "refused, with Retry-After",
    429,
    "too_many_event_streams",
    per_key=True,
)
EVENT_STREAMS = Limit(
    "event_streams",
    "event streams that one process serves at once",
    500,
    "streams",
    "refused, with Retry-After",
    429,
    "too_many_event_streams",
)
KEY_DOWNLOADS = Limit(
    "key_downloads",
    "files that one process sends to one key at once",
    32,
    "files",
    "refused, with Retry-After",
    429,
    "too_many_downloads",
    per_key=True,
)
STREAMS = Limit(
    "streams",
    "bodies of /api/export that one process sends at once",
    8,
    "streams",
    "refused, with Retry-After",
    503,
    "service_unavailable",
)
CONNECTIONS = Limit(
    "connections",
    "connections that one API process serves at once; fewer if the process may open few files",
    4_000,
    "connections",
    "the connection that waited longest for a request is closed; if there is none, the new one is"
    " refused in plain text, with Retry-After",
    503,
    setting="max_connections",
)
HEAD_BYTES = Limit(
    "head_bytes",
    "head of one request, and its trailers",
    64 * 1024,
    "bytes",
    "refused in plain text, before it is parsed",
    431,
)
HEAD_TIMEOUT = Limit(
    "head_timeout",
    "time for the head of one request to arrive",
    10,
    "seconds",
    "refused in plain text; a connection that sent nothing is closed",
    408,
    setting="head_timeout",
)
BODY_TIMEOUT = Limit(
    "body_timeout",
    "time for each megabyte of the body of one request to arrive",
    60,
    "seconds",
    "refused in plain text",
    408,
    setting="body_timeout",
)
READER_TIMEOUT = Limit(
    "reader_timeout",
    "time for which a caller does not read what was sent to it",
    60,
    "seconds",
    "the connection is closed, also before the end of a body",
    setting="reader_timeout",
)
PIPELINED_REQUESTS = Limit(
    "pipelined_requests",
    "requests that one connection sends before the first of them is answered",
    16,
    "requests",
    "the connection is closed",
)
BUFFERED_BYTES = Limit(
    "buffered_bytes",
    "answers of one API process that callers have not read yet",
    32 * 1024 * 1024,
    "bytes",
    "the connection whose caller has not read for the longest time is closed",
)

# Requests in a time, by what is done

CREATE_RATE = Limit.of_requests(
    "create_rate",
    "exports created or retried with one key, on any contract",
    Rate(600, 60),
    setting="create_rate",
)
CHANGE_RATE = Limit.of_requests(
    "change_rate",
    "exports canceled or deleted with one key, on any contract",
    Rate(600, 60),
    setting="change_rate",
)
LIST_RATE = Limit.of_requests(
    "list_rate",
    "lists of exports read with one key, on any contract",
    Rate(600, 60),
    setting="list_rate",
)
ESTIMATE_RATE = Limit.of_requests(
    "estimate_rate",
    "estimates with one key, on any contract",
    Rate(60, 60),
    setting="estimate_rate",
)
PREVIEW_RATE = Limit.of_requests(
    "preview_rate",
    "previews of a source's rows with one key, which cost no credits",
    Rate(10, 60),
    setting="preview_rate",
)
SIGN_IN_RATE = Limit.of_requests(
    "sign_in_rate", "tries to sign in to the console from one address", Rate(10, 60)
)
SOURCE_SHARE = Limit(
    "source_share",
    "share of a source's rate for estimates and searches, while workers need it",
    int(100 * API_SHARE),
    "percent",
    "refused, with Retry-After (429 or 503 as for a source that is too slow)",
    503,
    "source_unavailable",
)
HIREBASE_RATE = Limit.of_requests(
    "hirebase_rate",
    "requests of one key on the paths of the Hirebase contract, except polls of a task",
    Rate(100, 60),
    setting="hirebase_rate",
)
PIPELINE_RATE = Limit.of_requests(
    "pipeline_rate",
    "exports of one's own rows with one key, on any contract",
    Rate(10, 3600),
    setting="pipeline_rate",
)


class LimitReached(ExporterError):
    """The caller has reached a limit; nothing was done. The text says what to do."""

    def __init__(self, limit: Limit[Any], detail: str, *, retry_after: float | None = None) -> None:
        super().__init__(detail)
        self.limit = limit
        self.retry_after = retry_after
        """Seconds after which a repeated request may succeed; None: waiting does not help."""


WEBHOOK_RESENDS = Limit.of_requests(
    "webhook_resends",
    "tests, redeliveries and recoveries of webhooks that one user asks for",
    Rate(20, 60),
    setting="webhook_resend_rate",
)
WEBHOOK_RESENDS_TO_HOST = Limit.of_requests(
    "webhook_resends_to_host",
    "tests, redeliveries and recoveries of webhooks to one host that all users ask for",
    Rate(200, 60),
)

LIMITS: tuple[Limit[Any], ...] = tuple(
    value for value in tuple(globals().values()) if isinstance(value, Limit)
)
"""All limits, in the order of this file."""


def check(values: Mapping[str, int | Rate]) -> None:
    """Raises ValueError unless each name is that of a limit per key, with a value of its type."""
    known = {limit.name: limit for limit in LIMITS if limit.per_key}
    for name, value in values.items():
        if name not in known:
            raise ValueError(f"limit {name!r} is unknown: give one of {', '.join(known)}")
        if type(value) is not type(known[name].default) or (isinstance(value, int) and value < 0):
            example = known[name].default
            raise ValueError(f"limit {name} is {value}: give a value such as {example}")


_HEAD = """\
# Limits

Everything that one caller can use up is bounded. Answers have the error shape of the contract that
was called. A setting is an environment variable; as a number, 0 means no limit. "key" means that
`exporter keys set ID --limit NAME=VALUE` changes the limit for one key. This file is generated:
`python -m exporter.core.limits > deploy/LIMITS.md`.

| limit | bounds | default | setting | answer |
|---|---|---|---|---|
"""


def document() -> str:
    """Returns the text of `deploy/LIMITS.md`."""
    return _HEAD + "".join(f"{line}\n" for line in _rows())


def _rows() -> Iterator[str]:
    for limit in LIMITS:
        amount = f"{limit.default:,} {limit.unit}" if limit.unit else str(limit.default)
        setting = f"`EXPORTER_{limit.setting.upper()}`" if limit.setting else "fixed"
        code = f"{limit.status} `{limit.code}`: " if limit.code else ""
        if limit.status and not limit.code:
            code = f"{limit.status}: "
        cells = (
            f"`{limit.name}`",
            limit.bounds,
            amount,
            setting + (", key" if limit.per_key else ""),
            code + limit.answer,
        )
        yield f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    print(document(), end="")  # noqa: T201 - the generator of the document
