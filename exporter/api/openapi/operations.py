"""Operation ids, response headers and tags of the OpenAPI document."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from exporter.api.edge import IGNORED_HEADER


class Operation(NamedTuple):
    """The id and the response headers of one operation of the document."""

    id: str
    """Published name that generated clients use; never changes."""
    headers: Mapping[str, tuple[str, ...]] = {}
    """Response headers by status, in addition to those common to all operations."""
    limit_headers: tuple[str, ...] = ()
    """Headers about the caller's rate limit, on answers of any status except 401 and 405."""


_TEXT: Mapping[str, Any] = {"type": "string"}
_NUMBER: Mapping[str, Any] = {"type": "integer", "minimum": 0}
_TRUE: Mapping[str, Any] = {"type": "string", "enum": ["true"]}

_HEADERS: Mapping[str, tuple[Mapping[str, Any], str]] = {
    "X-Request-Id": (
        _TEXT,
        "Id of the request in the service's logs: the caller's own id or a new id.",
    ),
    IGNORED_HEADER: (
        _TEXT,
        "Names of parameters and headers of the request that had no effect, and `body` for a body"
        " that had none. Absent if there are none.",
    ),
    "Retry-After": (_NUMBER, "Seconds to wait before the next request."),
    "Location": (_TEXT, "URL of the created or existing resource."),
    "Link": (_TEXT, '`<…>; rel="next"`: URL of the next page. Absent on the last page.'),
    "Allow": (_TEXT, "Methods that the path supports."),
    "WWW-Authenticate": (_TEXT, "How to send an API key, and what is wrong with the key sent."),
    "Idempotency-Replayed": (
        _TRUE,
        "An earlier request with this Idempotency-Key created the export.",
    ),
    "Preference-Applied": (_TEXT, "`respond-async`."),
    "X-RateLimit-Limit": (_NUMBER, "Requests that the key may send in one window."),
    "X-RateLimit-Remaining": (_NUMBER, "Requests left in the window."),
    "X-RateLimit-Reset": (
        _NUMBER,
        "Time at which more requests are allowed, in milliseconds since 1970.",
    ),
    "X-Billing-Code": (_TEXT, "`limit_exceeded`: waiting does not help; a larger plan is needed."),
    "X-Data-Request-Id": (_TEXT, "Id of the data request that is in progress."),
    "ETag": (_TEXT, "Identifies the content of the file."),
    "Accept-Ranges": (_TEXT, "`bytes`."),
    "Content-Disposition": (_TEXT, "Name under which to save the file."),
    "Content-Range": (_TEXT, "Range of bytes, and size of the whole file."),
    "Hirebase-Usage-Feature": (_TEXT, "Metered keys only: the feature that was used."),
    "Hirebase-Usage-Meter": (_TEXT, "Metered keys only: the name of the meter."),
    "Hirebase-Usage-Unit": (_TEXT, "Metered keys only: the unit that is counted."),
    "Hirebase-Usage-Overage-Mode": (_TEXT, "Metered keys only: `block`."),
    "Hirebase-Usage-Period-Start": (_TEXT, "Metered keys only: start of the period."),
    "Hirebase-Usage-Period-End": (_TEXT, "Metered keys only: end of the period."),
    "Hirebase-Usage-Included-Limit": (_NUMBER, "Metered keys only: units included in the period."),
    "Hirebase-Usage-Included-Used": (_NUMBER, "Metered keys only: included units that are used."),
    "Hirebase-Usage-Included-Remaining": (
        _NUMBER,
        "Metered keys only: included units that are left.",
    ),
    "Hirebase-Usage-Overage-Used": (_NUMBER, "Metered keys only: always 0."),
    "Hirebase-Usage-Total-Used": (_NUMBER, "Metered keys only: all units used."),
}
_ALWAYS_SENT = "X-Request-Id"
_UNMETERED_STATUSES = ("401", "405")
_BY_STATUS: Mapping[str, tuple[str, ...]] = {
    "401": ("WWW-Authenticate",),
    "403": ("WWW-Authenticate",),
    "405": ("Allow",),
    "416": ("Content-Range",),
    "429": ("Retry-After", "X-Billing-Code"),
    "503": ("Retry-After",),
}

_RATE = ("X-RateLimit-Limit", "X-RateLimit-Remaining")
_USAGE = tuple(name for name in _HEADERS if name.startswith("Hirebase-Usage-"))
_REFUSED = {"429": _USAGE}
_CREATED = ("Location", "Retry-After", "Idempotency-Replayed")
_STOPPED = {"202": ("Retry-After",)}
_POLLED = {"200": ("Retry-After",)}
_LISTED = {"200": ("Link",)}
_PAID = {"200": _USAGE, **_REFUSED}
_EXPORTED = {"202": (*_CREATED, *_USAGE), **_REFUSED}
_COLLECTED = {
    "201": ("Location", "Idempotency-Replayed"),
    "409": ("Location", "X-Data-Request-Id"),
}
_FILE = {
    "200": ("ETag", "Accept-Ranges", "Content-Disposition"),
    "206": ("ETag", "Accept-Ranges", "Content-Disposition", "Content-Range"),
    "302": ("Location",),
    "304": ("ETag", "Accept-Ranges"),
}

OPERATIONS: Mapping[str, Operation] = {
    "POST /v1/exports": Operation("createExport", {"202": _CREATED}),
    "GET /v1/exports": Operation("listExports", _LISTED),
    "POST /v1/exports/estimate": Operation("estimateExport"),
    "GET /v1/exports/{export_id}": Operation("getExport", _POLLED),
    "DELETE /v1/exports/{export_id}": Operation("deleteExport"),
    "POST /v1/exports/{export_id}/cancel": Operation("cancelExport", _STOPPED),
    "POST /v1/exports/{export_id}/retry": Operation("retryExport", {"202": _CREATED}),
    "POST /v2/jobs/export": Operation("createTask", _EXPORTED, _RATE),
    "GET /v2/tasks": Operation("listTasks", _LISTED, _RATE),
    "GET /v2/tasks/{task_id}": Operation("getTask", _POLLED),
    "DELETE /v2/tasks/{task_id}": Operation("deleteTask", {}, _RATE),
    "POST /v2/tasks/{task_id}/cancel": Operation("cancelTask", _STOPPED, _RATE),
    "POST /v2/jobs/search": Operation("searchJobs", _PAID, _RATE),
    "POST /v2/jobs/estimate": Operation("estimateJobs", _PAID, _RATE),
    "GET /v2/jobs/{job_id}": Operation("getJob", _PAID, _RATE),
    "GET /v2/hirebase/companies/{company_slug}/jobs/{job_slug}": Operation(
        "getJobBySlug", _PAID, _RATE
    ),
    "GET /v2/jobs/expired-jobs": Operation("listExpiredJobs", {}, _RATE),
    "POST /v2/jobs/expired-jobs/export": Operation("createExpiredTask", _EXPORTED, _RATE),
    "GET /v2/jobs/data/industries": Operation("listIndustries"),
    "GET /v2/jobs/data/categories": Operation("listCategories"),
    "GET /v2/billing/usage/summary": Operation("getUsage", {}, _RATE),
    "POST /v2/data_requests/job_base/filter": Operation("collectByFilters", _COLLECTED),
    "POST /v2/data_requests/job_base/es_dsl": Operation("collectByQuery", _COLLECTED),
    "POST /v2/data_requests/job_base/ids": Operation("collectByIds", _COLLECTED),
    "POST /v2/data_requests/job_base/id_file": Operation("collectByIdFile", _COLLECTED),
    "GET /v2/data_requests/{request_id}/files": Operation("listFiles", _STOPPED),
    "GET /v2/data_requests/{request_id}/files/{file_name}": Operation("downloadFile", _FILE),
    "POST /v1/professional_network/job/bulk_collect/filter": Operation(
        "collectByFiltersV1", _COLLECTED
    ),
    "POST /v1/professional_network/job/bulk_collect/id_file": Operation(
        "collectByIdFileV1", _COLLECTED
    ),
    "GET /v1/bulk_collect/{request_id}/files": Operation("listFilesV1", _STOPPED),
    "GET /v1/bulk_collect/{request_id}/files/{file_name}": Operation("downloadFileV1", _FILE),
    "GET /api/export": Operation(
        "exportRows",
        {
            "200": ("Content-Disposition",),
            "202": ("Location", "Retry-After", "Preference-Applied"),
        },
        (*_RATE, "X-RateLimit-Reset"),
    ),
    "POST /v1/webhook-endpoints": Operation("createWebhookEndpoint", {"201": ("Location",)}),
    "GET /v1/webhook-endpoints": Operation("listWebhookEndpoints"),
    "GET /v1/webhook-endpoints/{endpoint_id}": Operation("getWebhookEndpoint"),
    "DELETE /v1/webhook-endpoints/{endpoint_id}": Operation("deleteWebhookEndpoint"),
    "GET /v1/webhook-endpoints/{endpoint_id}/secret": Operation("getWebhookSecret"),
    "POST /v1/webhook-endpoints/{endpoint_id}/rotate": Operation("rotateWebhookSecret"),
    "POST /v1/webhook-endpoints/{endpoint_id}/disable": Operation("disableWebhookEndpoint"),
    "POST /v1/webhook-endpoints/{endpoint_id}/enable": Operation("enableWebhookEndpoint"),
    "POST /v1/webhook-endpoints/{endpoint_id}/test": Operation(
        "testWebhookEndpoint", {"202": ("Location",)}
    ),
    "POST /v1/webhook-endpoints/{endpoint_id}/recover": Operation("recoverWebhooks"),
    "GET /v1/webhook-endpoints/{endpoint_id}/deliveries": Operation(
        "listWebhookDeliveriesOfEndpoint", {"200": ("Link",)}
    ),
    "GET /v1/exports/{export_id}/deliveries": Operation(
        "listWebhookDeliveriesOfExport", {"200": ("Link",)}
    ),
    "GET /v1/webhook-deliveries": Operation("listDeadWebhookDeliveries", {"200": ("Link",)}),
    "GET /v1/webhook-deliveries/{delivery_id}": Operation("getWebhookDelivery"),
    "POST /v1/webhook-deliveries/{delivery_id}/redeliver": Operation(
        "redeliverWebhook", {"202": ("Location",)}
    ),
    "GET /health": Operation("getHealth"),
    "GET /health/live": Operation("getLiveness"),
    "GET /v2/health": Operation("getHirebaseHealth"),
}

TAGS = (
    ("exports", "The native contract: any source, and all details of an export."),
    ("hirebase", "The Hirebase contract: an export is a task. Its official client works here."),
    ("coresignal", "The Coresignal contract: postings in bulk, as files of gzipped JSON Lines."),
    ("pipeline", "The pipeline contract: the caller's own rows, streamed in the answer."),
    (
        "webhooks",
        "Receivers of signed events (Standard Webhooks) about exports, and their deliveries.",
    ),
    ("health", "Checks of the service. No API key is needed."),
)
"""Names and descriptions of the document's tags, in the order of the document."""


def describe(document: dict[str, Any]) -> None:
    """Sets the tags, the operation ids and the response headers of the document."""
    document["tags"] = [{"name": name, "description": text} for name, text in TAGS]
    document["components"]["headers"] = {
        name: {"description": text, "schema": dict(schema), "required": name == _ALWAYS_SENT}
        for name, (schema, text) in _HEADERS.items()
    }
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            known = OPERATIONS.get(f"{method.upper()} {path}", Operation(operation["operationId"]))
            operation["operationId"] = known.id
            for status, response in operation["responses"].items():
                names = (
                    _ALWAYS_SENT,
                    IGNORED_HEADER,
                    *_BY_STATUS.get(status, ()),
                    *known.headers.get(status, ()),
                )
                if status not in _UNMETERED_STATUSES:
                    names += known.limit_headers
                response["headers"] = {
                    name: {"$ref": f"#/components/headers/{name}"} for name in names
                }
