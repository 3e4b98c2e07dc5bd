"""Error answers of the OpenAPI document: real examples, and one shared entry for equal answers.

Generated clients see each status with its shape. The page /docs shows all errors of an operation as
one answer, because an entry of Swagger UI takes 400 pixels.
"""

from __future__ import annotations

import copy
import json
from datetime import UTC, datetime
from typing import Any

import msgspec

from exporter.api import errors
from exporter.api.refusal import Refusal
from exporter.api.surface import Asked, ErrorShape, Operation
from exporter.core.plans import CreditsSpent
from exporter.errors import problem

_ASKED = Asked("3f2b8c61d0a94e7f", datetime(2026, 3, 2, 9, 15, 4, tzinfo=UTC), {"format": "xlsx"})
_WRONG = problem(("body", "limit"), "Input should be a valid integer", "int_type")
_WRONG_PARAMETER = problem(("query", "limit"), "Input should be a valid integer", "int_parsing")
_DESCRIPTIONS = {
    400: "The request is malformed.",
    401: "No API key, an unknown or revoked key, or two different keys.",
    402: "The key has too few credits left.",
    403: "The key lacks the scope, or its plan does not include the request.",
    404: "The caller has nothing with this id, or the source does not offer the operation.",
    405: "The path does not support this method; Allow lists the methods that it supports.",
    409: "The request conflicts with the current state; `detail` says how.",
    413: "The body is too large.",
    415: "The body's Content-Type is not one of the documented types.",
    416: "The range begins beyond the end of the file.",
    422: "Fields are wrong; the answer names them.",
    429: "Too many requests (Retry-After), or the plan is used up (X-Billing-Code).",
    500: "The service failed; its log says why under the X-Request-Id.",
    502: "The source refused the service's request, or its answer was invalid.",
    503: "Redis, S3 or the source is unavailable; Retry-After says when to try again.",
    505: "The request uses HTTP/1.0, in which an incomplete file looks complete.",
}
_EXAMPLES = {
    400: ("json_invalid", "the body is not JSON: expected `,` or `}` at byte 41"),
    401: ("unauthorized", "the API key is wrong or was revoked"),
    402: ("credits_spent", str(CreditsSpent(500, 120))),
    403: ("scope_missing", "this key may read; the request needs the scope 'write'"),
    404: ("not_found", "nothing of yours has this id"),
    405: ("method_not_allowed", "PUT does not work on this path; allowed: GET, HEAD"),
    409: ("idempotency_key_spent", "the export of this Idempotency-Key is deleted: send a new key"),
    413: ("body_too_large", "the body is larger than 1048576 bytes"),
    415: ("unsupported_media_type", "send the body as application/json"),
    416: (
        "range_not_satisfiable",
        "the file has 3120441 bytes, none of them in the range",
    ),
    422: ("invalid_request", "body.limit: " + _WRONG["msg"]),
    429: ("rate_limited", "600 requests in 60 s are allowed: wait for the seconds in Retry-After"),
    500: ("internal", errors.unexpected().detail),
    502: ("source_refused", "the source answered 401: wrong API key"),
    503: ("source_unavailable", "the source did not answer: timed out"),
    505: ("http_version_not_supported", "over HTTP/1.0 an incomplete file looks complete"),
}
"""Code and text of the usual error by status, for the examples."""
_OTHERS = {
    "idempotency_key_invalid": "Idempotency-Key: give 1 to 255 visible ASCII characters",
    "idempotency_key_reused": "this Idempotency-Key was used with another request: send a new key",
    "not_retryable": "the export is finished; only a failed or canceled export can be retried",
    "no_file": "the export is processing; only a finished export has a file",
    "no_rows": "the first rows are not stored yet: ask again later, at the latest at the end",
    "too_many_endpoints": "the limit of 20 registered endpoints is reached: delete one first",
    "too_many_secrets": "5 secrets sign already: wait for the end of a grace period",
    "endpoint_disabled": "endpoint we_1f0c2a5d6b7e is disabled or deleted: enable it first",
    "lease_lost": "the report came over 30 s after the delivery was taken: it is sent again",
    "nothing_matched": "Request did not find any matching IDs.",
    "identical_request": "Identical data request is already in progress.",
    "not_offered": "the source 'rows' cannot be searched, only exported",
}
"""Texts of further errors by code."""


def answer(shape: ErrorShape, status: int, operation: Operation) -> dict[str, Any]:
    """Returns the OpenAPI entry of an error of an operation in this shape, with an example."""
    code, text = _EXAMPLES[status]
    refusal = Refusal(status, code, text, problems=[_WRONG] if status == 422 else [])
    if status in operation.codes:
        code = operation.codes[status]
        refusal = Refusal(status, code, _OTHERS[code])
    elif status == 422 and operation.body is None:
        detail = f"query.limit: {_WRONG_PARAMETER['msg']}"
        refusal = Refusal(status, code, detail, problems=[_WRONG_PARAMETER])
    else:
        refusal = shape.examples.get(status, refusal)
    body = shape.render(refusal, _ASKED)
    content = {
        "schema": {"$ref": f"#/components/schemas/{shape.schema.__name__}"},
        "example": msgspec.to_builtins(body),
    }
    return {"description": _DESCRIPTIONS[status], "content": {shape.media_type: content}}


def share(document: dict[str, Any]) -> None:
    """Moves equal error answers to `components/responses`.

    `document` is changed in place. The shared answers are named by shape and status, such as
    `Problem422`, with a number if their headers differ.
    """
    shared: dict[str, Any] = {}
    names: dict[str, str] = {}
    for operations in document["paths"].values():
        for operation in operations.values():
            responses = operation["responses"]
            for status in filter(_is_error, list(responses)):
                response = responses[status]
                content = next(iter(response["content"].values()))
                if "$ref" not in content["schema"]:
                    continue  # the health checks, whose answers have a shape of their own
                text = json.dumps(response, sort_keys=True)
                if text not in names:
                    name = f"{content['schema']['$ref'].rpartition('/')[2]}{status}"
                    same = sum(other.partition("_")[0] == name for other in shared)
                    names[text] = f"{name}_{same + 1}" if same else name
                    shared[names[text]] = response
                responses[status] = {"$ref": f"#/components/responses/{names[text]}"}
    document["components"]["responses"] = shared


def fold(document: dict[str, Any]) -> dict[str, Any]:
    """Returns a copy of the document for people: one answer has all errors of an operation.

    It lists the statuses, and its example is that of status 422, where there is one. The headers
    that every answer has are left out, since the introduction names them, and so are the members
    of examples that are null or empty. The headers about usage are one.
    """
    page = copy.deepcopy(document)
    # Relative to the document of the page, so that "Try it out" asks the host of the page.
    page["servers"] = [{"url": ".."}]
    page["info"]["description"] = f"{_LINK}\n\n{page['info'].get('description', '')}"
    shared = page["components"]["responses"]
    for operations in page["paths"].values():
        for operation in operations.values():
            responses = operation["responses"]
            for response in responses.values():
                _fold_headers(response.get("headers", {}))
                for content in response.get("content", {}).values():
                    _shorten(response, content)
            failed = {
                status: shared[responses.pop(status)["$ref"].rpartition("/")[2]]
                for status in list(responses)
                if "$ref" in responses[status]
            }
            if failed:
                operation["responses"]["default"] = _folded(failed)
    return page


_ON_EVERY_ANSWER = ("X-Request-Id", "X-Ignored-Parameters", "X-Should-Retry")
_USAGE = "Hirebase-Usage-"
_LINK = "For code generators: [openapi.json](openapi.json), with each status of an error by itself."


def _folded(failed: dict[str, dict[str, Any]]) -> dict[str, Any]:
    typical = failed.get("422") or failed.get("404") or next(iter(failed.values()))
    lines = [f"- `{status}` {response['description']}" for status, response in failed.items()]
    return {
        "description": "\n".join(["**Errors**, all of this shape:", "", *lines]),
        "content": typical["content"],
    }


def _fold_headers(headers: dict[str, Any]) -> None:
    for name in _ON_EVERY_ANSWER:
        headers.pop(name, None)
    usage = [name for name in headers if name.startswith(_USAGE)]
    for name in usage:
        del headers[name]
    if usage:
        parts = ", ".join(name.removeprefix(_USAGE) for name in usage)
        text = f"Metered keys only: {len(usage)} headers: {parts}."
        headers[f"{_USAGE}*"] = {"description": text, "schema": {"type": "string"}}


def _shorten(response: dict[str, Any], content: dict[str, Any]) -> None:
    example = content.get("example")
    short = _without_empty(example)
    if short != example:
        content["example"] = short
        response["description"] += " (The example leaves out what is null or empty.)"


def _without_empty(value: Any) -> Any:
    if isinstance(value, dict):
        members = {name: _without_empty(member) for name, member in value.items()}
        return {name: one for name, one in members.items() if one not in (None, [], {})}
    if isinstance(value, list):
        return [_without_empty(one) for one in value]
    return value


def _is_error(status: str) -> bool:
    return status.isdecimal() and int(status) >= 400
