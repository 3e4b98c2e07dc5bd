"""The service's numbers for Prometheus.

No key is asked for, because scrapers have none: let it be reached from the inside network alone.
It tells how much is done, never for whom.
"""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from exporter import metrics
from exporter.api.state import engine_of

router = APIRouter(include_in_schema=False)


@router.get("/metrics")
def show(request: Request) -> Response:
    """All counters and gauges; the same from every API process, for they are the store's."""
    store = engine_of(request).store
    return Response(
        metrics.render(store.counters(), store.census()),
        headers={"Content-Type": metrics.CONTENT_TYPE},
    )
