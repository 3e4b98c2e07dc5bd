"""Creates the exports of data requests, and refuses identical ones."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

import msgspec
import structlog
from fastapi import Request
from starlette.responses import Response

from exporter.api import (
    errors,
    idempotency,
    responses,
    webhook_fields,
)
from exporter.api.refusal import Refusal
from exporter.api.state import service_of
from exporter.api.surfaces.coresignal.request_bodies import (
    Limited,
    Options,
    RequestIdentity,
)
from exporter.api.surfaces.coresignal.versions import (
    Version,
    too_many_matches,
    version_of,
)
from exporter.core import canonical
from exporter.core.exports import Export
from exporter.core.plans import CreditsSpent
from exporter.errors import ConfigurationError, FieldProblem, QueryError, within
from exporter.service.drafts import NewExport
from exporter.service.exports import ExportService
from exporter.store.base import Idempotency
from exporter.store.redis.api_keys import ApiKey

log: structlog.stdlib.BoundLogger = structlog.get_logger()

FILE_RETENTION = timedelta(days=30)
"""Time during which files can be downloaded, any number of times."""
ROWS_PER_FILE = 10_000


class DataRequest(msgspec.Struct):
    """A data request that was accepted."""

    request_id: str


def create_from_ids(
    request: Request,
    caller: ApiKey,
    asked: Options,
    limit: int | None,
    ids: Sequence[int],
) -> Response:
    """Creates a data request for these ids, and returns the response with its id."""
    texts = list(map(str, ids))
    digest = hashlib.sha256("\n".join(texts).encode()).hexdigest()
    mark = _idempotency(request, asked, search={}, limit=limit, ids=digest)
    hook = _read_webhook(request, caller, asked)
    meant, export = _create(request, caller, {}, limit, mark, hook, texts)
    return _created_response(request, export, idempotency.log_and_headers(export, meant))


def create_from_search(
    request: Request, caller: ApiKey, asked: Limited, search: Mapping[str, Any]
) -> Response:
    """Creates a data request for a search, and returns the response with its id.

    Raises Refusal 409, as the vendor documents, if an identical search of the caller is in
    progress. This check is omitted if the caller sends an Idempotency-Key, because the caller then
    decides which requests are the same.

    The check uses an idempotency key of our own, made of the search, which is free again when its
    export has ended. The store compares the key in the step that creates the export, so two
    concurrent requests cannot both create one. The store remembers a key for a day.
    """
    version, limit = version_of(request), asked.limit
    if version.max_rows is not None:
        # One row more than the maximum shows that too many match; no file is served then.
        limit = min(limit or version.max_rows + 1, version.max_rows + 1)
    mark = _idempotency(request, asked, search=dict(search), limit=limit, ids=None)
    hook = _read_webhook(request, caller, asked, search)
    same = "" if mark else _search_digest(request, caller, search, limit)
    payable = _affordable_limit(request, caller, search, limit)
    # A caller's own key cannot contain a blank, so the two kinds of key never collide. The 0 makes
    # the key equal to that of version 0.2.0.
    own = mark or Idempotency(f"identical {same} 0", same, until_ended=True)
    meant, export = _create(request, caller, search, payable, own, hook)
    if mark or export.id == meant:
        return _created_response(request, export, idempotency.log_and_headers(export, meant))
    log.info("export.identical", export_id=export.id, user_id=export.user_id)
    raise Refusal(
        409,
        "identical_request",
        "Identical data request is already in progress.",
        headers={"X-Data-Request-Id": export.id, "Location": _files_path(version, export)},
    )


def _idempotency(request: Request, asked: Options, **rest: Any) -> Idempotency | None:
    marked = RequestIdentity(
        webhook_url=asked.webhook_url, webhook_events=asked.webhook_events, **rest
    )
    return idempotency.read_key(request, marked)


def _read_webhook(
    request: Request,
    caller: ApiKey,
    asked: Options,
    search: Mapping[str, Any] | None = None,
) -> webhook_fields.RequestedWebhook:
    """Returns the webhook that the request asks for.

    Raises Refusal if `webhook_url` or `webhook_events` is wrong; its text names wrong filters of
    the `search`, too.
    """
    wanted = webhook_fields.read_webhook(request, caller.user_id, asked)
    if wanted.wrong:
        service = service_of(request)
        found = service.find_problems(
            user_id=caller.user_id,
            source=service.config.surfaces.coresignal,
            search=search,
            wrong=wanted.wrong,
        )
        raise _to_error(service, QueryError(found))
    return wanted


def find_problems(
    request: Request, caller: ApiKey, fields: Mapping[str, Any]
) -> Sequence[FieldProblem]:
    """Returns the problems of the other fields of a body that does not match its model."""
    service = service_of(request)
    found = service.find_problems(
        user_id=caller.user_id,
        source=service.config.surfaces.coresignal,
        search=fields.get("filters"),
        wrong=webhook_fields.find_problems(request, caller.user_id, fields),
    )
    error = _to_error(service, QueryError(found))
    return error.problems if isinstance(error, Refusal) else ()


def _affordable_limit(
    request: Request, caller: ApiKey, search: Mapping[str, Any], limit: int | None
) -> int | None:
    """Returns the limit; with a metered key, lowered to the number of matching postings.

    Credits are reserved for the limit, so a limit above the number of matches would reserve too
    many. The limit is lowered only if it exceeds the maximum of the contract's version. Raises
    Refusal 422 if more postings match than this maximum, before any credits are reserved.
    """
    service, most = service_of(request), version_of(request).max_rows
    if not caller.plan.metered or most is None or limit is None or limit <= most:
        return limit
    try:
        count = service.estimate(
            service.config.surfaces.coresignal,
            search,
            user_id=caller.user_id,
            limit=limit,
            plan=caller.plan,
        )
    except QueryError as error:
        raise _to_error(service, error) from None
    if count is not None and count > most:
        raise too_many_matches(most)
    return limit if count is None else max(count, 1)


def _search_digest(
    request: Request, caller: ApiKey, search: Mapping[str, Any], limit: int | None
) -> str:
    service = service_of(request)
    try:
        checked = service.source(service.config.surfaces.coresignal).search(
            search, service.clock.now(), user_id=caller.user_id
        )
    except QueryError as error:
        problems = within("search", error.problems)
        raise _to_error(service, QueryError(problems)) from None
    surface = version_of(request).surface
    return canonical.digest({"surface": surface, "query": checked.query, "limit": limit})


def _create(
    request: Request,
    caller: ApiKey,
    search: Mapping[str, Any],
    limit: int | None,
    mark: Idempotency | None,
    hook: webhook_fields.RequestedWebhook,
    ids: Sequence[str] | None = None,
) -> tuple[str, Export]:
    """Creates the export of a data request; returns the id chosen for it, and the export.

    The export has another id if an earlier request with the same idempotency key created it (a
    replay). Raises Refusal 402 if the key has too few credits, before any work is done; the vendor
    reports missing credits only when files are requested.
    """
    service, version = service_of(request), version_of(request)
    new = NewExport(
        user_id=caller.user_id,
        surface=version.surface,
        source=service.config.surfaces.coresignal,
        search=search,
        format="json",
        compression="gzip",
        limit=limit,
        ids=ids,
        rows_per_file=ROWS_PER_FILE,
        # A file must not outlive its record.
        keep=min(FILE_RETENTION, service.settings.record_retention),
        wrong=hook.wrong,
    )
    try:
        export = service.create(new, caller.plan, idempotency=mark, webhook=hook.record)
    except QueryError as error:
        raise _to_error(service, error) from None
    except CreditsSpent:
        raise Refusal(402, "credits_spent", "Insufficient credits") from None
    return new.id, export


def _to_error(service: ExportService, error: QueryError) -> Exception:
    """Returns the exception to raise for a search that the export service rejected.

    The exception is a Refusal with this contract's field names, or ConfigurationError if the
    contract's source is not configured.
    """
    problems: list[FieldProblem] = []
    for one in error.problems:
        place, *rest = one["loc"]
        if place == "source":
            # Callers do not name a source in this contract: only the operator can fix this.
            name = service.config.surfaces.coresignal
            return ConfigurationError(
                f"[surfaces] coresignal = {name!r} is not the name of a configured source"
            )
        if rest == ["es_dsl"] and one["type"] == "extra_forbidden":
            detail = "the source does not support Elasticsearch queries: send filters to …/filter"
            return Refusal(422, "dsl_unsupported", detail)
        field = "filters" if place == "search" else place
        problems.append({**one, "loc": ("body", field, *rest)})
    return errors.invalid(problems)


def _created_response(request: Request, export: Export, headers: Mapping[str, str]) -> Response:
    place = {"Location": _files_path(version_of(request), export)}
    return responses.reply(DataRequest(export.id), 201, {**place, **headers})


def _files_path(version: Version, export: Export) -> str:
    # Without host and base path, like the vendor's Location header.
    return f"{version.path}/{export.id}/files"
