"""Errors of the client, each with what happened and what to do.

ClientError
 +-- ConnectionFailed     the service did not answer, also after the retries
 +-- ApiError             the service answered with an error; `code` is stable, texts may change
 |    +-- InvalidRequest       correct the fields in `problems`; nothing was changed
 |    +-- Unauthorized         send another API key
 |    +-- Forbidden            the key lacks the scope or the feature
 |    +-- NotFound             the key's user has no such export
 |    +-- Conflict             the state of the export or the idempotency key does not allow it
 |    +-- QuotaExceeded        too many requests, exports or records: see `retry_after` and `detail`
 |    +-- ServerFailed         the service failed; it was asked again before this was raised
 +-- ExportFailed         the export ended without a file; `export` has the reason
 +-- WaitExpired          the export has not ended in time; it goes on
 +-- DownloadFailed       the file could not be completed; the next try continues
 +-- WebhookRefused       the webhook is not authentic, or too old
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from exporter.client.models import Export


class ClientError(Exception):
    """Base of all errors of the client."""


class ConnectionFailed(ClientError):
    """The service did not answer, or its answer broke off; a later try may succeed."""

    def __init__(self, url: str, reason: str) -> None:
        super().__init__(f"{url} does not answer: {reason}")
        self.url = url
        """Scheme and host of the service or of the download link."""


class ApiError(ClientError):
    """The service answered with an error."""

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        *,
        title: str = "",
        problems: Sequence[Mapping[str, Any]] = (),
        request_id: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        lines = [f"{status} {title}: {detail}" if title else f"{status}: {detail}"]
        lines += [f"{_place(one)}: {one.get('detail', '')}" for one in problems]
        super().__init__("\n  ".join(lines))
        self.status = status
        self.code = code
        """Stable name of the error, such as `not_found`; `http_error` if the service named none."""
        self.detail = detail
        self.problems = tuple(problems)
        """The wrong fields; each has `detail`, `code`, and `pointer`, `parameter` or `header`."""
        self.request_id = request_id
        """Also in the logs of the service."""
        self.retry_after = retry_after
        """Seconds after which the request may be sent again, if the service named them."""


class InvalidRequest(ApiError):
    """Fields of the request are wrong; nothing was changed."""


class Unauthorized(ApiError):
    """The API key is missing, wrong or revoked."""


class Forbidden(ApiError):
    """The API key lacks the scope or its plan the feature that the request needs."""


class NotFound(ApiError):
    """The user of the key has nothing with this id."""


class Conflict(ApiError):
    """The state of the export, or the idempotency key, does not allow the request."""


class QuotaExceeded(ApiError):
    """The key has too few credits, too many exports, or sent too many requests."""


class ServerFailed(ApiError):
    """The service failed, or something between here and there did."""


class ExportFailed(ClientError):
    """The export ended without a file."""

    def __init__(self, export: Export) -> None:
        why = f": {export.error}" if export.error else ""
        super().__init__(f"export {export.id} is {export.state}{why}")
        self.export = export


class WaitExpired(ClientError):
    """The export has not ended in the given time; it goes on, and can be waited for again."""

    def __init__(self, export: Export, seconds: float) -> None:
        super().__init__(f"export {export.id} is still {export.state} after {seconds:g} s")
        self.export = export


class DownloadFailed(ClientError):
    """The file did not arrive whole; the next call continues where this one has stopped."""


class WebhookRefused(ClientError):
    """The webhook has no valid signature, or its time is too far from now."""


def of_status(status: int) -> type[ApiError]:
    """Returns the class of the error with this status."""
    if status >= 500:
        return ServerFailed
    return _OF_STATUS.get(status, ApiError)


_OF_STATUS: Mapping[int, type[ApiError]] = {
    **dict.fromkeys((400, 413, 415, 416, 422), InvalidRequest),
    401: Unauthorized,
    402: QuotaExceeded,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    429: QuotaExceeded,
}


def _place(problem: Mapping[str, Any]) -> str:
    return str(problem.get("pointer") or problem.get("parameter") or problem.get("header") or "")
