"""A surface that only the tests have: orders of files, with errors of their own shape."""

from __future__ import annotations

from typing import Annotated

import msgspec
from fastapi import Query, Request
from pydantic import ConfigDict, Field
from starlette.responses import Response

from exporter.api import auth, creating, deeds, headers, idempotency, responses, webhook_fields
from exporter.api.bodies import TheBody
from exporter.api.openapi import bounds
from exporter.api.refusal import Refusal
from exporter.api.state import run, service_of
from exporter.api.surface import Answer, Asked, Body, ErrorShape, Operation, Surface
from exporter.core import limits
from exporter.service.drafts import NewExport


class OrderRequest(webhook_fields.WebhookFields):
    """An order of postings."""

    model_config = ConfigDict(extra="forbid", strict=True)

    most: int = Field(ge=1, description="Most postings.", json_schema_extra=bounds.COUNT)


class Order(msgspec.Struct):
    """An order."""

    order: str
    state: str


class Fault(msgspec.Struct):
    """An error."""

    fault: str
    status: int
    fields: list[str]


def _fault(refusal: Refusal, _: Asked) -> Fault:
    fields = [".".join(map(str, one["loc"])) for one in refusal.problems]
    return Fault(refusal.code, refusal.status, fields)


async def create(request: Request, body: TheBody) -> Response:
    """Orders a file."""
    caller = auth.writer(request)
    await run(request, deeds.count_call(request, caller, limits.CREATE_RATE))
    asked = await creating.parse_body(request, body, OrderRequest, lambda _: ())
    new = NewExport(
        user_id=caller.user_id,
        surface=SURFACE.name,
        source="board",
        search={},
        format="csv",
        limit=asked.most,
    )
    export = await creating.create(request, caller, body, asked, new)
    place = responses.address(service_of(request), f"/orders/{export.id}")
    return responses.reply(Order(export.id, export.state), 202, {"Location": place})


async def show(request: Request, order_id: str, depth: Annotated[int, Query(ge=0)] = 0) -> Response:
    """Returns an order."""
    export = await responses.find_export(request, order_id)
    return responses.reply(Order(export.id, export.state))


_EXAMPLE = {"order": "0b8c2c4e-6a57-4a2b-9a50-0e6a3a2f6b11", "state": "queued"}

SURFACE = Surface(
    name="orders",
    tag="orders",
    description="Orders of files.",
    prefixes=("/orders",),
    errors=ErrorShape(Fault, _fault, "application/fault+json"),
    feature="export",
    operations=(
        Operation(
            "POST /orders",
            create,
            "createOrder",
            "Order a file",
            {202: Answer("The order.", Order, _EXAMPLE, (headers.LOCATION,))},
            (400, 409, 413, 415, 422, 429),
            Body(OrderRequest, {"most": 10}),
            parameters=(idempotency.PARAMETER,),
            is_frequent=True,
        ),
        Operation(
            "GET /orders/{order_id}",
            show,
            "getOrder",
            "Get an order",
            {200: Answer("The order.", Order, _EXAMPLE)},
            (404, 422),
            is_frequent=True,
        ),
    ),
)
