"""Creates exports: on the event loop if only Redis must be awaited, otherwise in a thread."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any, TypeVar

import msgspec
from anyio import to_thread
from fastapi import Request
from pydantic import BaseModel, Field

from exporter.api import admission, bodies, error_shapes, idempotency, turns, webhook_fields
from exporter.api.openapi import bounds
from exporter.api.refusal import Refusal
from exporter.api.state import is_beside_keys, run, service_of
from exporter.core.exports import Export
from exporter.service.drafts import NewExport
from exporter.store.redis.api_keys import ApiKey

MAX_INLINE_BODY_BYTES = 16 * 1024
"""Largest body that is parsed on the event loop; parsing it blocks the loop for at most 1 ms."""

Columns = Annotated[list[Annotated[str, Field(max_length=200)]], Field(fail_fast=True)] | None
COLUMNS: Any = Field(
    None,
    description="Columns of a CSV file in their order, or the fields kept of each JSON row.",
    json_schema_extra=bounds.COLUMNS,
)
PRIORITY: Any = Field(
    0, description="0 to 9; a higher number is more urgent.", json_schema_extra=bounds.PRIORITY
)

Model = TypeVar("Model", bound=BaseModel)


async def parse_body(
    request: Request, body: bytes, model: type[Model], check: bodies.Check
) -> Model:
    """Returns the JSON body, validated as an instance of `model` by `bodies.parse`.

    A body of more than MAX_INLINE_BODY_BYTES is parsed in a thread, all others on the event loop.
    The `check` of other fields may block, so a body that does not match is parsed in a thread, too.
    """
    if len(body) <= MAX_INLINE_BODY_BYTES:
        try:
            return bodies.parse(request, body, model)
        except Refusal as refusal:
            if refusal.code != error_shapes.INVALID:
                raise
    await admission.settle(request)
    return await to_thread.run_sync(partial(bodies.parse, request, body, model, check=check))


async def create(
    request: Request,
    caller: ApiKey,
    body: bytes,
    asked: webhook_fields.WebhookFields,
    new: NewExport,
) -> Export:
    """Creates the export `new` with the webhook and the idempotency key of the request.

    The event loop drafts the export and awaits only Redis, unless the body is large, the host of a
    webhook URL must be resolved, or the export itself needs more than the store: then a thread
    creates it. Raises Refusal for a wrong idempotency key, and the errors of
    `ExportService.create`.
    """
    service = service_of(request)

    def create_in_thread() -> Export:
        mark = idempotency.read_key(request, asked)
        hook = webhook_fields.read_webhook(request, caller.user_id, asked)
        whole = msgspec.structs.replace(new, wrong=hook.wrong)
        return service.create(whole, caller.plan, idempotency=mark, webhook=hook.record)

    if (
        len(body) > MAX_INLINE_BODY_BYTES
        or asked.webhook_url is not None
        or service.needs_more_than_store(new, caller.plan)
    ):
        await admission.settle(request)
        async with turns.turn(request):
            return await to_thread.run_sync(create_in_thread)
    mark = idempotency.read_key(request, asked)
    wrong = webhook_fields.read_webhook(request, caller.user_id, asked).wrong
    whole = msgspec.structs.replace(new, wrong=wrong) if wrong else new
    spec = service.draft(whole, caller.plan)
    quota = service.quota(caller.plan)
    if is_beside_keys(service.store, request):
        call = service.store.create_call(spec, mark, quota, admission.take(request))
        return await run(request, call)
    await admission.settle(request)
    return service.store.create(spec, mark, quota)
