"""Answers every error in the error shape of the surface to which the request's path belongs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec
import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from exporter.api import auth
from exporter.api.error_shapes import INVALID, quoted
from exporter.api.refusal import Refusal
from exporter.api.state import run, service_of, surfaces_of
from exporter.api.surface import Asked, ErrorShape
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
from exporter.webhooks.endpoints import EndpointDisabled, TooManyEndpoints

RETRY_AFTER_SECONDS = 5
"""Value of the Retry-After header if no better value is known."""

log: structlog.stdlib.BoundLogger = structlog.get_logger()


def shape_of(request: Request) -> ErrorShape:
    """Returns the error shape of the request's path."""
    return surfaces_of(request).errors(request.url.path)


def answer(request: Request, refusal: Refusal) -> Response:
    """Returns the refusal as an answer in the error shape of the request's path."""
    shape = shape_of(request)
    refusal.status = shape.status(refusal.code, refusal.status)
    asked = Asked(request.state.request_id, service_of(request).clock.now(), request.query_params)
    return Response(
        msgspec.json.encode(shape.render(refusal, asked)),
        status_code=refusal.status,
        headers=refusal.headers,
        media_type=shape.media_type,
    )


def invalid(problems: Sequence[FieldProblem]) -> Refusal:
    """Returns the 422 refusal of a request with wrong fields; its text quotes the first three."""
    return Refusal(422, INVALID, quoted(problems, 3), problems=problems)


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


def _http(request: Request, error: HTTPException) -> Refusal:
    if error.status_code == 404:
        return no_path(request.url.path)
    if error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "").split(", ")
        return wrong_method(request.method, request.url.path, allowed)
    return Refusal(error.status_code, "http_error", error.detail)


def _store_unavailable(request: Request, error: StoreUnavailable) -> Refusal:
    log.warning("api.store_unavailable", error=str(error))
    detail = "the record store does not answer; try again"
    if request.method == "POST":
        detail += (
            ", with the same Idempotency-Key if you sent one. Without a key, look at your list"
            " first: the request may have taken effect"
        )
    return _unavailable("store_unavailable", detail)


def _store_full(_: Request, error: StoreFull) -> Refusal:
    log.warning("api.store_full", error=str(error))
    detail = "the record store is almost full, so nothing was created; try again later"
    return _unavailable("store_full", detail)


def _key_reused(_: Request, __: KeyReused) -> Refusal:
    detail = "this Idempotency-Key was used with another request: send a new key"
    return _wrong_key(422, "idempotency_key_reused", detail)


def _key_spent(_: Request, __: KeySpent) -> Refusal:
    detail = (
        "the export that this Idempotency-Key created is deleted or past its retention:"
        " send a new key to create another"
    )
    return _wrong_key(409, "idempotency_key_spent", detail)


def _wrong_key(status: int, code: str, detail: str) -> Refusal:
    wrong = problem(("header", "idempotency-key"), detail, code)
    return Refusal(status, code, detail, problems=[wrong])


def _limit_reached(_: Request, error: LimitReached) -> Refusal:
    status, code = error.limit.status or 429, error.limit.code or error.limit.name
    headers = {}
    if error.retry_after is not None:
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_after)))
    return Refusal(status, code, str(error), headers=headers)


def _source_failed(_: Request, error: SourceError) -> Refusal:
    """Returns the answer to a request that failed because the upstream of a source failed.

    If the upstream is unavailable, the answer is 503 with Retry-After. The vendor has two kinds of
    429, which are kept apart: after a rate limit the answer has Retry-After, and after a used-up
    plan it has the header X-Billing-Code. A 422 of the upstream is passed on, because the caller's
    search is wrong. Any other refusal is not the caller's fault, and the answer is 502.
    """
    log.warning("api.source_failed", error=str(error), status=error.status, upstream=error.upstream)
    detail = public_text.without_addresses(str(error))
    headers: dict[str, str] = {}
    problems: list[FieldProblem] = []
    if isinstance(error, SourceUnavailable):
        headers["Retry-After"] = str(math.ceil(error.retry_after or RETRY_AFTER_SECONDS))
        status, code = 503, "source_unavailable"
        if error.status == 429:
            status, code = 429, "source_rate_limited"
    elif error.status == 429:
        headers["X-Billing-Code"] = "limit_exceeded"
        status, code = 429, "source_quota_spent"
    elif error.status == 422:
        status, code = 422, "source_refused"
        problems.append(problem(("body",), detail, code))
    else:
        status, code = 502, "source_refused"
    return Refusal(status, code, detail, problems=problems, headers=headers)


def _storage_unavailable(_: Request, error: StorageUnavailable) -> Refusal:
    log.warning("api.storage_unavailable", error=str(error))
    return _unavailable("storage_unavailable", "the file store does not answer; try again")


def _unavailable(code: str, detail: str) -> Refusal:
    return Refusal(503, code, detail, headers={"Retry-After": str(RETRY_AFTER_SECONDS)})


def _plain(status: int, code: str) -> Callable[[Request, Exception], Refusal]:
    return lambda _, error: Refusal(status, code, str(error))


_REFUSALS: Mapping[type[Exception], Callable[[Request, Any], Refusal]] = {
    Refusal: lambda _, refusal: refusal,
    HTTPException: _http,
    KeyReused: _key_reused,
    KeySpent: _key_spent,
    StoreFull: _store_full,
    StoreUnavailable: _store_unavailable,
    StorageUnavailable: _storage_unavailable,
    SourceError: _source_failed,
    LimitReached: _limit_reached,
    NotInPlan: _plain(403, "not_in_plan"),
    CreditsSpent: _plain(402, "credits_spent"),
    EndpointDisabled: _plain(409, "endpoint_disabled"),
    TooManyEndpoints: _plain(409, "too_many_endpoints"),
}
"""All expected errors, except that of a wrong query string, and their answers."""


async def handle(request: Request, error: Exception) -> Response:
    """Returns the answer to an expected error. Raises any other error again."""
    if isinstance(error, RequestValidationError):
        # The framework validates the query string before the handler checks the key. A caller
        # without a right key must learn only that.
        try:
            if request.method in ("GET", "HEAD"):
                await run(request, auth.reader_call(request))
            else:
                await auth.identify(request)
        except Exception as refused:  # noqa: BLE001 - raised again if no answer is known
            return await handle(request, refused)
        found = error.errors()
        problems = [problem(entry["loc"], entry["msg"], entry["type"]) for entry in found]
        return answer(request, invalid(problems))
    refusal_of = next((_REFUSALS[kind] for kind in type(error).__mro__ if kind in _REFUSALS), None)
    if refusal_of is None:
        raise error
    return answer(request, refusal_of(request, error))


def install(app: FastAPI) -> None:
    """Makes `handle` answer all expected errors of the app's handlers."""
    for kind in (*_REFUSALS, RequestValidationError):
        app.add_exception_handler(kind, handle)
