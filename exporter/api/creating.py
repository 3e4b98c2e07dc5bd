"""Creating an export without a thread, where nothing is waited for but Redis."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, cast

from anyio import to_thread
from fastapi import Request
from pydantic import BaseModel

from exporter.api import bodies, webhook_fields
from exporter.api.state import runner_of, service_of
from exporter.clock import Clock
from exporter.core.exports import Export, Phase, Spec, State
from exporter.service.exports import ExportService
from exporter.store.base import ExportStore, Idempotency
from exporter.store.redis.api_keys import ApiKey

MAX_INLINE_BODY_BYTES = 16 * 1024
"""Bytes of a body that is looked at while everybody waits, which takes a millisecond at most."""
UPSTREAM_CHECKED_FILTERS = frozenset({"industry", "sub_industry", "job_category"})
"""Filters whose values a source asks its upstream for."""

Model = TypeVar("Model", bound=BaseModel)


async def parse_body(request: Request, body: bytes, model: type[Model]) -> Model:
    """The body as the model; see `bodies.parse`."""
    if len(body) <= MAX_INLINE_BODY_BYTES:
        return bodies.parse(request, body, model)
    return await to_thread.run_sync(bodies.parse, request, body, model)


def runs_without_waiting(
    caller: ApiKey, body: bytes, asked: webhook_fields.WebhookFields, search: Mapping[str, Any]
) -> bool:
    """Whether all that an export is made of is known without asking anybody.

    A metered caller's is counted by the source first, a webhook's host looked up, and the values
    of some filters compared with what the source knows.
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
    """The export that an engine makes. Raises what it raises.

    Unless it is `inline` a thread makes it. Otherwise an engine drafts it, whose store keeps what
    it is to record, and that is then recorded while others are served.
    """
    service = service_of(request)
    if not inline:
        return await to_thread.run_sync(make, service)
    drafting, drafts = copy.copy(service), _DraftStore(service.clock)
    drafting.store = cast("ExportStore", drafts)
    make(drafting)
    return await runner_of(request).run(lambda turn: turn.store.create(*drafts.asked[-1]))


class _DraftStore:
    """As much of an ExportStore as creating takes; it records nothing."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.asked: list[tuple[Spec, Idempotency | None]] = []
        """What was to be recorded."""

    def create(self, spec: Spec, idempotency: Idempotency | None = None) -> Export:
        self.asked.append((spec, idempotency))
        now = self._clock.now()
        return Export(
            spec=spec,
            state=State.QUEUED,
            phase=Phase.READY,
            progress=0.0,
            created_at=now,
            updated_at=now,
        )
