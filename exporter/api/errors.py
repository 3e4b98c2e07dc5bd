"""Answers every error in the error shape of the surface to which the request's path belongs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from inspect import iscoroutine
from typing import cast

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
    except Exception as refused:  # noqa: BLE001 - raised again if no answer is known
        return await handle(request, refused)
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
