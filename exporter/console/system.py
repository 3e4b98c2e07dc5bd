"""The page of the installation, for operators."""

from __future__ import annotations

from starlette.responses import Response

from exporter.api.surfaces.native import system
from exporter.console.visits import Visit, route


async def show(visit: Visit) -> Response:
    """Shows the processes, queues, waits, webhooks, Redis and the bucket."""
    found = await visit.call(system.system)
    return visit.page("system.html", now=found.body) if found.is_success else visit.failed(found)


ROUTES = (route("/system", show),)
