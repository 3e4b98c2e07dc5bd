"""Error answers of the OpenAPI document: real examples, and one shared entry for equal answers.

Generated clients see each status with its shape. The page /docs shows all errors of an operation as
one answer, because an entry of Swagger UI takes 400 pixels.
"""

from __future__ import annotations

import copy
import json
from http import HTTPStatus
from typing import Any

import msgspec

from exporter.api import errors, pipeline_errors
from exporter.api.pipeline_errors import API_VERSION, Flat, FlatEntry
from exporter.core.plans import CreditsSpent

_REQUEST_ID = "3f2b8c61d0a94e7f"
_FIELD = "Input should be a valid integer"
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
    422: ("invalid_request", "body.limit: " + _FIELD),
    429: ("rate_limited", "600 requests in 60 s are allowed: wait for the seconds in Retry-After"),
    500: ("internal", errors.unexpected().detail),
    502: ("source_refused", "the source answered 401: wrong API key"),
    503: ("source_unavailable", "the source did not answer: timed out"),
    505: ("http_version_not_supported", "over HTTP/1.0 an incomplete file looks complete"),
}
"""Code and text of an error by status, for the examples."""


def share(document: dict[str, Any]) -> None:
    """Gives each error answer an example, and moves equal answers to `components/responses`.

    `document` is changed in place. The shared answers are named by shape and status, such as
    `Problem422`, with a number if their headers differ.
    """
    shared: dict[str, Any] = {}
    names: dict[str, str] = {}
    for path, operations in document["paths"].items():
        for operation in operations.values():
            responses = operation["responses"]
            for status in filter(_is_error, list(responses)):
                response = responses[status]
                content = next(iter(response["content"].values()))
                if "$ref" not in content["schema"]:
                    continue  # the health checks, whose answers have a shape of their own
                content["example"] = _example(path, int(status))
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


_ON_EVERY_ANSWER = ("X-Request-Id", "X-Ignored-Parameters")
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


def _example(path: str, status: int) -> Any:
    code, text = _EXAMPLES[status]
    wrong = status == 422
    shape: errors.Problem | errors.Detail | Flat
    if errors.is_native(path):
        entries = [errors.ProblemEntry(_FIELD, "int_type", pointer="/limit")] if wrong else []
        title = HTTPStatus(status).phrase
        shape = errors.Problem("about:blank", title, status, text, code, _REQUEST_ID, entries)
    elif errors.is_pipeline(path):
        fields = []
        if status == 400:
            code, text = "validation_error", "query.format: choose csv or json"
            fields = [FlatEntry("format", "choose csv or json", "xlsx")]
        moment = "2026-03-02T09:15:04Z"
        name = pipeline_errors.code(code)
        shape = Flat(name, status, text, {}, fields, _REQUEST_ID, moment, API_VERSION)
    elif wrong and not errors.is_bulk(path):
        where: list[str | int] = ["body", "search", "limit"]
        shape = errors.Detail([errors.DetailEntry(where, _FIELD, "int_type")])
    else:
        shape = errors.Detail(text)
    return msgspec.to_builtins(shape)
