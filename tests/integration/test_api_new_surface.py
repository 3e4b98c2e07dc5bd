"""A surface of one module and one line of the registry has all that the API promises."""

from __future__ import annotations

import uuid
from typing import Any

import httpx
import pytest

from exporter.api import shortcut
from exporter.api.app import create_app
from exporter.api.surfaces.registry import SURFACES
from exporter.core.plans import Plan
from exporter.core.rates import Rate
from tests import orders_surface
from tests.integration.api_server import Server, Service


@pytest.fixture
def api(server: Server, api: Service) -> Service:
    """The service with the orders among its surfaces."""
    server.app = create_app(api.engine, api.keys, (*SURFACES, orders_surface.SURFACE))
    return api


def fault(answer: httpx.Response, status: int) -> dict[str, Any]:
    """The body of an error, after checking that it has the surface's shape."""
    assert answer.status_code == status, answer.text
    assert answer.headers["Content-Type"] == "application/fault+json"
    body: dict[str, Any] = answer.json()
    assert set(body) == {"fault", "status", "fields"}
    assert body["status"] == status
    return body


def test_its_operations_answer_by_the_framework_and_by_the_shortcut(
    api: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given
    store = api.engine.store

    # When
    created = api.http.post("/orders", json={"most": 5})
    place = f"/orders/{created.json()['order']}"
    quick = api.http.get(place.upper().replace("/ORDERS", "/orders"))
    monkeypatch.setattr(shortcut.Shortcut, "endpoint", lambda self, scope: None)
    slow = api.http.get(place.upper().replace("/ORDERS", "/orders"))

    # Then
    assert created.status_code == 202
    assert created.headers["Location"].endswith(place)
    assert quick.json() == slow.json() == {"order": place.rpartition("/")[2], "state": "queued"}
    export = store.get(created.json()["order"])
    assert export is not None
    assert (export.spec.surface, export.spec.limit) == ("orders", 5)


def test_its_frequent_operations_take_the_shortcut() -> None:
    # Given
    served = shortcut.Shortcut(_nothing, (*SURFACES, orders_surface.SURFACE))
    scope = {"type": "http", "query_string": b"", "headers": []}

    # When
    show = served.endpoint({**scope, "method": "GET", "path": f"/orders/{uuid.uuid4()}"})
    create = served.endpoint({**scope, "method": "POST", "path": "/orders"})
    other = served.endpoint({**scope, "method": "DELETE", "path": f"/orders/{uuid.uuid4()}"})
    checked = served.endpoint(
        {**scope, "method": "GET", "path": f"/orders/{uuid.uuid4()}", "headers": [(b"prefer", b"")]}
    )

    # Then
    assert show is not None
    assert create is not None
    assert other is None
    assert checked is None


async def _nothing(*_: Any) -> None:
    """An app that is not called."""


def test_its_errors_have_its_shape_also_where_it_has_no_operation(api: Service) -> None:
    # Given
    nobody = {"X-API-Key": "exp_wrong"}
    unknown = f"/orders/{uuid.uuid4()}"

    # Then
    assert fault(api.http.get(unknown, headers=nobody), 401)["fault"] == "unauthorized"
    assert fault(api.http.get(unknown), 404)["fault"] == "not_found"
    assert fault(api.http.get("/orders/of/nobody"), 404)["fault"] == "not_found"
    assert fault(api.http.put("/orders"), 405)["fault"] == "method_not_allowed"
    assert fault(api.http.post("/orders", content=b"{"), 400)["fault"] == "json_invalid"
    assert fault(api.http.post("/orders", json={"most": 0}), 422)["fields"] == ["body.most"]
    assert fault(api.http.get(f"{unknown}?depth=x"), 422)["fields"] == ["query.depth"]
    assert fault(api.http.get(f"{unknown}?dept=1"), 422)["fields"] == ["query.dept"]
    assert api.http.get("/ordersX").json() == {"detail": "nothing is at /ordersX"}


def test_headers_of_other_operations_are_named(api: Service) -> None:
    # When
    answer = api.http.get(f"/orders/{uuid.uuid4()}", headers={"Prefer": "respond-async"})

    # Then
    fault(answer, 404)
    assert answer.headers["X-Ignored-Parameters"] == "Prefer"


def test_the_plan_and_the_rates_of_a_key_hold_on_it(api: Service) -> None:
    # Given
    searches = api.keys.create("cleo", plan=Plan(None, features=frozenset({"search"})))
    one = api.keys.create("dora", plan=Plan(None, limits={"create_rate": Rate(1, 60)}))

    # When
    without = api.http.get(f"/orders/{uuid.uuid4()}", headers={"X-API-Key": searches})
    wrong = api.http.get(f"/orders/{uuid.uuid4()}?depth=x", headers={"X-API-Key": searches})
    first, second = (
        api.http.post("/orders", json={"most": 5}, headers={"X-API-Key": one}) for _ in range(2)
    )

    # Then
    assert fault(without, 403)["fault"] == "not_in_plan"
    assert fault(wrong, 403)["fault"] == "not_in_plan"
    assert first.status_code == 202
    fault(second, 429)
    assert int(second.headers["Retry-After"]) > 0


def test_the_document_has_its_operations_examples_bounds_and_errors(api: Service) -> None:
    # When
    document = api.http.get("/openapi.json").json()

    # Then
    operation = document["paths"]["/orders"]["post"]
    schema = document["components"]["schemas"]["OrderRequest"]
    example = operation["responses"]["202"]["content"]["application/json"]["example"]
    assert operation["operationId"] == "createOrder"
    assert operation["requestBody"]["content"]["application/json"]["example"] == {"most": 10}
    assert example["state"] == "queued"
    assert schema["properties"]["most"]["minimum"] == 1
    assert "Fault422" in document["components"]["responses"]
    assert {"name": "orders", "description": "Orders of files."} in document["tags"]
