"""The pages of webhooks: the endpoints, and one endpoint with its deliveries."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from anyio import to_thread
from starlette.responses import Response

from exporter.api.state import deliveries_of
from exporter.api.surfaces.webhooks import deliveries, endpoints, resends
from exporter.console.visits import Visit, route
from exporter.core import events
from exporter.webhooks.deliveries import DeliveryState

SHOWN_DELIVERIES = 20


async def index(visit: Visit) -> Response:
    """Shows the endpoints."""
    found = await visit.call(endpoints.index)
    if not found.is_success:
        return visit.failed(found)
    return visit.page("webhooks.html", endpoints=found.body["endpoints"], **_NEW)


async def create(visit: Visit) -> Response:
    """Registers an endpoint, and shows its secret once."""
    body = {
        "url": visit.field("url"),
        "events": list(visit.form.get("events", ())),
        "description": visit.field("description"),
        "ordered": bool(visit.field("ordered")),
        "include_download_url": bool(visit.field("include_download_url")),
    }
    made = await visit.call(endpoints.create, body=body)
    if made.is_success:
        return await _page(visit, made.body["id"], secret=made.body["secret"])
    found = await visit.call(endpoints.index)
    listed = found.body["endpoints"] if found.is_success else []
    context = {**_NEW, "wrong": made.problems, "detail": made.detail, "form": visit.form}
    return visit.page("webhooks.html", made.status, endpoints=listed, **context)


async def show(visit: Visit) -> Response:
    """Shows an endpoint with its latest deliveries, each with its request and its answers."""
    return await _page(visit, visit.request.path_params["endpoint_id"])


async def act(visit: Visit) -> Response:
    """Tests, switches, rotates, recovers or deletes an endpoint."""
    one, act = visit.request.path_params["endpoint_id"], visit.field("act")
    if act == "rotate":
        hours = visit.field("grace", "24")
        grace = int(hours) * 3600 if hours.isdigit() else hours
        done = await visit.call(endpoints.rotate, one, body={"grace_seconds": grace})
        if done.is_success:
            return await _page(visit, one, secret=done.body["secret"])
    elif act == "recover":
        done = await visit.call(resends.recover, one, body={"since": visit.field("since")})
        act = "recovered"
    elif act == "delete":
        done = await visit.call(endpoints.delete, one)
        if done.is_success:
            return visit.go("/webhooks", "deleted")
    elif act in _SIMPLE:
        done = await visit.call(_SIMPLE[act], one)
        act = {"enable": "enabled", "disable": "disabled"}.get(act, act)
    else:
        return visit.page("error.html", 422, title="Unknown act", detail="Nothing was changed.")
    return visit.go(f"/webhooks/{one}", act) if done.is_success else visit.failed(done)


async def redeliver(visit: Visit) -> Response:
    """Sends a delivery again, and leads back to where it was asked for."""
    done = await visit.call(resends.redeliver, visit.request.path_params["delivery_id"])
    if not done.is_success:
        return visit.failed(done)
    back = visit.field("back")
    export = f"/exports/{done.body['export_id']}"
    target = export if back == "export" else f"/webhooks/{done.body['endpoint_id']}"
    return visit.go(target, "redelivered")


async def _page(visit: Visit, endpoint_id: str, *, secret: str = "") -> Response:
    found = await visit.call(endpoints.show, endpoint_id)
    if not found.is_success:
        return visit.failed(found)
    state = visit.field("state")
    page = await to_thread.run_sync(
        lambda: deliveries_of(visit.request).of_endpoint(
            found.body["id"],
            limit=SHOWN_DELIVERIES,
            state=DeliveryState(state) if state in list(DeliveryState) else None,
        )
    )
    return visit.page(
        "webhook.html",
        one=found.body,
        secret=secret,
        state=state,
        states=[state.value for state in DeliveryState],
        deliveries=[deliveries.full_view(one) for one in page.deliveries],
    )


_SIMPLE = {"test": resends.test, "enable": endpoints.enable, "disable": endpoints.disable}
_NEW: Mapping[str, Any] = {
    "events": events.EVENTS,
    "chosen": events.DEFAULT_EVENTS,
    "wrong": {},
    "detail": "",
    "form": {},
}

ROUTES = (
    route("/webhooks", index),
    route("/webhooks", create, ["POST"]),
    route("/webhooks/{endpoint_id}", show),
    route("/webhooks/{endpoint_id}", act, ["POST"]),
    route("/deliveries/{delivery_id}/redeliver", redeliver, ["POST"]),
)
