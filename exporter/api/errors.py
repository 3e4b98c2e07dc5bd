"""Answers every error in the error shape of the contract to which the request's path belongs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from http import HTTPStatus
from inspect import iscoroutine
from typing import Annotated, Any, cast

import msgspec
import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from exporter.api import auth
from exporter.api.pipeline_errors import Flat, flat
from exporter.api.refusal import Refusal
from exporter.api.state import run
from exporter.core import public_text
from exporter.core.limits import LimitReached
from exporter.core.plans import CreditsSpent, NotInPlan
from exporter.errors import (
    FieldProblem,
    SourceError,
    SourceUnavailable,
    StorageUnavailable,
    StoreFull,
    StoreUnavailable,
    problem,
)
from exporter.store.base import KeyReused, KeySpent

MAX_PROBLEMS = 100
"""Most wrong fields that one answer lists, so that a large invalid body gets a short answer."""
MAX_QUOTED_PROBLEMS = 20
"""Most wrong fields in the text of a contract whose errors are one text each."""
RETRY_AFTER_SECONDS = 5
"""Value of the Retry-After header if no better value is known."""

log: structlog.stdlib.BoundLogger = structlog.get_logger()


class DetailEntry(msgspec.Struct):
    """A wrong field."""

    loc: list[str | int]
    """Path of the field, for example `["body", "search", "yoe"]`."""
    msg: str
    type: str


class Detail(msgspec.Struct):
    """An error outside of the native and pipeline contracts: one text or a list of wrong fields.

    The list is used on the paths of the Hirebase contract, if fields or headers are wrong.
    """

    detail: str | list[DetailEntry]


class ProblemEntry(msgspec.Struct, omit_defaults=True):
    """A wrong field of the body (`pointer`), or of the query string (`parameter`), or a header."""

    detail: str
    code: str
    pointer: str | None = None
    parameter: str | None = None
    header: str | None = None


class Problem(msgspec.Struct, omit_defaults=True):
    """An error of the native contract by RFC 9457. `code` is stable, texts may change."""

    type: Annotated[str, msgspec.Meta(description="Always about:blank; use `code` instead.")]
    title: str
    status: int
    detail: str
    code: str
    request_id: Annotated[
        str, msgspec.Meta(description="Also in X-Request-Id and in the service's logs.")
    ]
    errors: list[ProblemEntry] = []


def is_native(path: str) -> bool:
    """True if the path belongs to the native contract, whose errors are problem+json."""
    return (path == "/v1" or path.startswith("/v1/")) and not is_bulk(path)


def is_pipeline(path: str) -> bool:
    """True if the path belongs to the pipeline contract, whose errors are one flat object."""
    return path == "/api" or path.startswith("/api/")


def is_bulk(path: str) -> bool:
    """True if the path belongs to the Coresignal contract, whose errors are one text each."""
    return path.startswith(_BULK)


_BULK = ("/cdapi/", "/v1/professional_network/", "/v1/bulk_collect/", "/v2/data_requests/")


def answer(request: Request, refusal: Refusal) -> Response:
    """Returns the refusal as an answer in the error shape of the request's path."""
    problems = refusal.problems[:MAX_PROBLEMS]
    body: Problem | Detail | Flat
    if is_native(request.url.path):
        media_type = "application/problem+json"
        body = Problem(
            type="about:blank",
            title=HTTPStatus(refusal.status).phrase,
            status=refusal.status,
            detail=refusal.detail,
            code=refusal.code,
            request_id=request.state.request_id,
            errors=[_entry(problem) for problem in problems],
        )
    elif is_pipeline(request.url.path):
        media_type = "application/json"
        body = flat(request, refusal)
    else:
        media_type = "application/json"
        entries = [DetailEntry(list(p["loc"]), p["msg"], p["type"]) for p in problems]
        text = refusal.detail
        if refusal.code == INVALID and problems:
            text = _quoted(refusal.problems, MAX_QUOTED_PROBLEMS)
        listed = entries and not is_bulk(request.url.path)
        body = Detail(entries if listed else text)
    return Response(
        msgspec.json.encode(body),
        status_code=refusal.status,
        headers=refusal.headers,
        media_type=media_type,
    )


def _entry(problem: FieldProblem) -> ProblemEntry:
    place, *rest = problem["loc"]
    entry = ProblemEntry(problem["msg"], problem["type"])
    if place == "body":
        entry.pointer = "".join(
            "/" + str(step).replace("~", "~0").replace("/", "~1") for step in rest
        )
    elif place == "query":
        entry.parameter = ".".join(map(str, rest))
    else:
        entry.header = ".".join(map(str, rest))
    return entry


INVALID = "invalid_request"
"""Code of the refusal of a request with wrong fields."""


def invalid(problems: Sequence[FieldProblem]) -> Refusal:
    """Returns the 422 refusal of a request with wrong fields; its text quotes the first three."""
    return Refusal(422, INVALID, _quoted(problems, 3), problems=problems)


def _quoted(problems: Sequence[FieldProblem], most: int) -> str:
    named = "; ".join(
        f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}" for problem in problems[:most]
    )
    return named + (f"; and {len(problems) - most} more" if len(problems) > most else "")


def field_problems(error: ValidationError, model: type[BaseModel]) -> list[FieldProblem]:
    """Converts the errors that pydantic found in a body to field problems.

    Each location begins with `body`. The message for an unknown field lists the fields of `model`.
    """
    problems: list[FieldProblem] = []
    for found in error.errors(include_url=False, include_context=False, include_input=False):
        message = found["msg"]
        if found["type"] == "extra_forbidden":
            message = f"unknown field; known: {', '.join(model.model_fields)}"
        problems.append(problem(("body", *found["loc"]), message, found["type"]))
    return problems


def missing(export_id: str) -> Refusal:
    """Returns the 404 refusal of an export that does not exist or belongs to another user."""
    return Refusal(
        404,
        "not_found",
        f"no export of yours has the id {export_id[:100]!r}; it may be deleted or expired",
    )


def no_path(path: str) -> Refusal:
    """Returns the 404 refusal of a path that the API does not have."""
    return Refusal(404, "not_found", f"nothing is at {path[:200]}")


def wrong_method(method: str, path: str, allowed: Iterable[str]) -> Refusal:
    """Returns the 405 refusal of a method that the path does not support."""
    allow = ", ".join(sorted(allowed))
    detail = f"{method} does not work on {path[:200]}; allowed: {allow}"
    return Refusal(405, "method_not_allowed", detail, headers={"Allow": allow})


def unexpected() -> Refusal:
    """Returns the 500 refusal of an unexpected failure, without any detail of the failure."""
    return Refusal(
        500,
        "internal",
        "the service failed at this request; its log has the reason under the X-Request-Id",
    )


async def _refused(request: Request, error: Exception) -> Response:
    return answer(request, cast("Refusal", error))


async def _http(request: Request, error: Exception) -> Response:
    failure = cast("HTTPException", error)
    refusal = Refusal(failure.status_code, "http_error", failure.detail)
    if failure.status_code == 404:
        refusal = no_path(request.url.path)
    elif failure.status_code == 405:
        allowed = (failure.headers or {}).get("Allow", "").split(", ")
        refusal = wrong_method(request.method, request.url.path, allowed)
    return answer(request, refusal)


async def _invalid(request: Request, error: Exception) -> Response:
    # The framework validates the query string before the handler checks the key. A caller without
    # a right key must learn only that.
    try:
        if request.method in ("GET", "HEAD"):
            await run(request, auth.reader_call(request))
        else:
            await auth.identify(request)
    except Refusal as refusal:
        return answer(request, refusal)
    except StoreUnavailable as unavailable:
        return await _store_unavailable(request, unavailable)
    found = cast("RequestValidationError", error).errors()
    problems = [problem(entry["loc"], entry["msg"], entry["type"]) for entry in found]
    return answer(request, invalid(problems))


async def _store_unavailable(request: Request, error: Exception) -> Response:
    log.warning("api.store_unavailable", error=str(error))
    detail = "the record store does not answer; try again"
    if request.method == "POST":
        detail += (
            ", with the same Idempotency-Key if you sent one. Without a key, look at your list"
            " first: the request may have taken effect"
        )
    return _unavailable(request, "store_unavailable", detail)


async def _store_full(request: Request, error: Exception) -> Response:
    log.warning("api.store_full", error=str(error))
    detail = "the record store is almost full, so nothing was created; try again later"
    return _unavailable(request, "store_full", detail)


async def _key_reused(request: Request, _: Exception) -> Response:
    detail = "this Idempotency-Key was used with another request: send a new key"
    return _wrong_key(request, 422, "idempotency_key_reused", detail)


async def _key_spent(request: Request, _: Exception) -> Response:
    detail = (
        "the export that this Idempotency-Key created is deleted or past its retention:"
        " send a new key to create another"
    )
    return _wrong_key(request, 409, "idempotency_key_spent", detail)


def _wrong_key(request: Request, status: int, code: str, detail: str) -> Response:
    wrong = problem(("header", "idempotency-key"), detail, code)
    return answer(request, Refusal(status, code, detail, problems=[wrong]))


async def _not_in_plan(request: Request, error: Exception) -> Response:
    return answer(request, Refusal(403, "not_in_plan", str(error)))


async def _credits_spent(request: Request, error: Exception) -> Response:
    return answer(request, Refusal(402, "credits_spent", str(error)))


async def _limit_reached(request: Request, error: Exception) -> Response:
    reached = cast("LimitReached", error)
    status, code = reached.limit.status or 429, reached.limit.code or reached.limit.name
    headers = {}
    if reached.retry_after is not None:
        headers["Retry-After"] = str(max(1, math.ceil(reached.retry_after)))
    return answer(request, Refusal(status, code, str(error), headers=headers))


async def _source_failed(request: Request, error: Exception) -> Response:
    """Returns the answer to a request that failed because the upstream of a source failed.

    If the upstream is unavailable, the answer is 503 with Retry-After. The vendor has two kinds of
    429, which are kept apart: after a rate limit the answer has Retry-After, and after a used-up
    plan it has the header X-Billing-Code. A 422 of the upstream is passed on, because the caller's
    search is wrong. Any other refusal is not the caller's fault, and the answer is 502.
    """
    failure = cast("SourceError", error)
    log.warning(
        "api.source_failed",
        error=str(error),
        status=failure.status,
        upstream=failure.upstream,
    )
    detail = public_text.without_addresses(str(error))
    headers: dict[str, str] = {}
    problems: list[FieldProblem] = []
    if isinstance(failure, SourceUnavailable):
        headers["Retry-After"] = str(math.ceil(failure.retry_after or RETRY_AFTER_SECONDS))
        status, code = 503, "source_unavailable"
        if failure.status == 429:
            status, code = 429, "source_rate_limited"
    elif failure.status == 429:
        headers["X-Billing-Code"] = "limit_exceeded"
        status, code = 429, "source_quota_spent"
    elif failure.status == 422:
        status, code = 422, "source_refused"
        problems.append(problem(("body",), detail, code))
    else:
        status, code = 502, "source_refused"
    return answer(request, Refusal(status, code, detail, problems=problems, headers=headers))


async def _storage_unavailable(request: Request, error: Exception) -> Response:
    log.warning("api.storage_unavailable", error=str(error))
    return _unavailable(request, "storage_unavailable", "the file store does not answer; try again")


def _unavailable(request: Request, code: str, detail: str) -> Response:
    headers = {"Retry-After": str(RETRY_AFTER_SECONDS)}
    return answer(request, Refusal(503, code, detail, headers=headers))


async def handle(request: Request, error: Exception) -> Response:
    """Returns the app's answer to an error. Raises the error if the app has no handler for it."""
    handlers = cast("FastAPI", request.app).exception_handlers
    for kind in type(error).__mro__:
        handler = handlers.get(kind)
        if handler is not None:
            found = handler(request, error)
            return cast("Response", await found if iscoroutine(found) else found)
    raise error


def install(app: FastAPI) -> None:
    """Registers the handlers of all expected errors; they answer in the error shape of the path."""
    app.add_exception_handler(Refusal, _refused)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(KeyReused, _key_reused)
    app.add_exception_handler(KeySpent, _key_spent)
    app.add_exception_handler(StoreFull, _store_full)
    app.add_exception_handler(StoreUnavailable, _store_unavailable)
    app.add_exception_handler(StorageUnavailable, _storage_unavailable)
    app.add_exception_handler(SourceError, _source_failed)
    app.add_exception_handler(LimitReached, _limit_reached)
    app.add_exception_handler(NotInPlan, _not_in_plan)
    app.add_exception_handler(CreditsSpent, _credits_spent)


_STATUS_DESCRIPTIONS = {
    400: "The request is malformed.",
    401: "No API key, an unknown or revoked key, or two different keys.",
    402: "The key has too few credits left.",
    403: "The key lacks the scope, or its plan does not include the request.",
    404: "The caller has nothing with this id.",
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


def documented(
    shape: type[Problem | Detail | Flat], *statuses: int
) -> dict[int | str, dict[str, Any]]:
    """Returns the OpenAPI entries of an operation's error answers, whose body has this shape.

    The entries are those of the given statuses and of the statuses that all operations may answer:
    401, 403, 405, 500 and 503.
    """
    media_type = "application/problem+json" if shape is Problem else "application/json"
    content = {media_type: {"schema": {"$ref": f"#/components/schemas/{shape.__name__}"}}}
    return {
        status: {"description": _STATUS_DESCRIPTIONS[status], "content": content}
        for status in sorted({*statuses, 401, 403, 405, 500, 503})
    }
