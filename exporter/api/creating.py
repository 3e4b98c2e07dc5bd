"""Creates exports: on the event loop if only Redis must be awaited, otherwise in a thread."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeVar, cast

from anyio import to_thread
from fastapi import Request
from pydantic import BaseModel

from exporter.api import bodies, errors, turns, webhook_fields
from exporter.api.refusal import Refusal
from exporter.api.state import runner_of, service_of
from exporter.clock import Clock
from exporter.core.exports import Export, Phase, Spec, State
from exporter.service.exports import ExportService
from exporter.store.base import NO_QUOTA, ExportStore, Idempotency, Quota
from exporter.store.redis.api_keys import ApiKey

MAX_INLINE_BODY_BYTES = 16 * 1024
"""Largest body that is parsed on the event loop; parsing it blocks the loop for at most 1 ms."""
UPSTREAM_CHECKED_FILTERS = frozenset({"industry", "sub_industry", "job_category"})
"""Filters whose values a source compares with lists that it fetches from its upstream."""

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
            if refusal.code != errors.INVALID:
                raise
    return await to_thread.run_sync(partial(bodies.parse, request, body, model, check=check))


def runs_without_waiting(
    caller: ApiKey, body: bytes, asked: webhook_fields.WebhookFields, search: Mapping[str, Any]
) -> bool:
    """True if the export can be created on the event loop: small body, and only Redis is needed.

    Three kinds of requests need other services: a metered caller's search is first counted at the
    source, the host of a webhook URL is resolved, and the values of `UPSTREAM_CHECKED_FILTERS` are
    compared with the upstream's lists.
    """
    return (
        len(body) <= MAX_INLINE_BODY_BYTES
        and asked.webhook_url is None
        and not caller.plan.metered
        and UPSTREAM_CHECKED_FILTERS.isdisjoint(search)
    )


async def create(
    request: Request, make: Callable[[ExportService], Export], *, inline: bool
) -> Export:
    """Creates an export by calling `make` with the export service, and returns the export.

    With `inline` False, `make` runs in a thread, so it may block. With `inline` True, `make` runs
    on the event loop and must not block: the store of its service only remembers the record, which
    is written to the real store afterwards, while the event loop serves other requests. Raises what
    `make` raises.
    """
    service = service_of(request)
    if not inline:
        async with turns.turn(request):
            return await to_thread.run_sync(make, service)
    drafting, drafts = copy.copy(service), _DraftStore(service.clock)
    drafting.store = cast("ExportStore", drafts)
    make(drafting)
    return await runner_of(request).run(lambda turn: turn.store.create(*drafts.asked[-1]))


class _DraftStore:
    """Stand-in for ExportStore: `create` remembers its arguments and writes nothing to Redis."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.asked: list[tuple[Spec, Idempotency | None, Quota]] = []
        """Arguments of the calls of `create`, in order."""

    def create(
        self, spec: Spec, idempotency: Idempotency | None = None, quota: Quota = NO_QUOTA
    ) -> Export:
        self.asked.append((spec, idempotency, quota))
        now = self._clock.now()
        return Export(
            spec=spec,
            state=State.QUEUED,
            phase=Phase.READY,
            progress=0.0,
            created_at=now,
            updated_at=now,
        )
