"""Response headers of the OpenAPI document that several surfaces use."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from exporter.api.surface import Header

TEXT: Mapping[str, Any] = {"type": "string"}
NUMBER: Mapping[str, Any] = {"type": "integer", "minimum": 0}

REQUEST_ID = Header(
    "X-Request-Id", "Id of the request in the service's logs: the caller's own id or a new id."
)
IGNORED = Header(
    "X-Ignored-Parameters",
    "Names of parameters and headers of the request that had no effect, and `body` for a body"
    " that had none. Absent if there are none.",
)
RETRY_AFTER = Header("Retry-After", "Seconds to wait before the next request.", NUMBER)
RETRY_AFTER_MS = Header("Retry-After-Ms", "Retry-After in milliseconds.", NUMBER)
SHOULD_RETRY = Header(
    "X-Should-Retry",
    "Whether the same request may succeed later.",
    {"type": "string", "enum": ["true", "false"]},
)
LOCATION = Header("Location", "URL of the created or existing resource.")
LINK = Header("Link", '`<…>; rel="next"`: URL of the next page. Absent on the last page.')
ALLOW = Header("Allow", "Methods that the path supports.")
WWW_AUTHENTICATE = Header(
    "WWW-Authenticate", "How to send an API key, and what is wrong with the key sent."
)
REPLAYED = Header(
    "Idempotency-Replayed",
    "An earlier request with this Idempotency-Key created the export.",
    {"type": "string", "enum": ["true"]},
)
RATE_LIMIT = Header("X-RateLimit-Limit", "Requests that the key may send in one window.", NUMBER)
RATE_REMAINING = Header("X-RateLimit-Remaining", "Requests left in the window.", NUMBER)
PREFERENCE_APPLIED = Header(
    "Preference-Applied", "The preferences of the Prefer header that were honored."
)
ACCEL_BUFFERING = Header("X-Accel-Buffering", "`no`: nginx must not collect the events.")
BILLING_CODE = Header(
    "X-Billing-Code", "`limit_exceeded`: waiting does not help; a larger plan is needed."
)
ETAG = Header("ETag", "Identifies the content of the answer, for If-None-Match.")
PARTIAL = Header(
    "X-Exporter-Partial",
    "The export has not ended: more rows follow, and its file may differ. Absent after the end.",
    {"type": "string", "enum": ["true"]},
)
ACCEPT_RANGES = Header("Accept-Ranges", "`bytes`.")
CONTENT_DISPOSITION = Header("Content-Disposition", "Name under which to save the file.")
CONTENT_RANGE = Header("Content-Range", "Range of bytes, and size of the whole file.")

CREATED = (LOCATION, RETRY_AFTER, REPLAYED)
"""Headers of the answer to a request that created an export."""
