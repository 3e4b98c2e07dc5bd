"""The page of the sources: whether they answer, how fast, and a test read."""

from __future__ import annotations

from starlette.responses import Response

from exporter.api.surfaces.native import sources
from exporter.console.visits import Visit, route


async def index(visit: Visit) -> Response:
    """Shows the sources."""
    found = await visit.call(sources.index)
    if not found.is_success:
        return visit.failed(found)
    return visit.page("sources.html", sources=found.body["sources"], tested="", result=None)


async def test(visit: Visit) -> Response:
    """Reads the first rows of a source, and shows them or what went wrong."""
    name = visit.request.path_params["name"]
    result = await visit.call(sources.preview, name, body={"query": {}})
    found = await visit.call(sources.index)
    if not found.is_success:
        return visit.failed(found)
    return visit.page("sources.html", sources=found.body["sources"], tested=name, result=result)


ROUTES = (route("/sources", index), route("/sources/{name}/test", test, ["POST"]))
