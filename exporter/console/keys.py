"""The page of API keys: one's own, and for operators those of all users."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import structlog
from anyio import to_thread
from starlette.responses import Response

from exporter.api.state import credits_of, keys_of
from exporter.console.search_form import Form
from exporter.console.visits import Visit, route
from exporter.core.plans import FEATURES, Balance, Plan
from exporter.store.redis.api_keys import SCOPES, ApiKey
from exporter.store.redis.credit_accounts import UnknownKey

log: structlog.stdlib.BoundLogger = structlog.get_logger()


class Row(NamedTuple):
    """A key with its account."""

    key: ApiKey
    balance: Balance


async def index(visit: Visit) -> Response:
    """Shows the key of the session; to an operator, all keys."""
    return await _page(visit)


async def create(visit: Visit) -> Response:
    """Creates a key and shows its secret, which cannot be shown again. Only for operators."""
    if not visit.is_operator:
        return _refused(visit)
    try:
        plan = Plan(None, **_plan(visit))
        secret = await to_thread.run_sync(
            lambda: keys_of(visit.request).create(
                visit.field("user"),
                tuple(visit.form.get("scopes", ())),
                visit.field("name")[:200],
                plan=plan,
                balance=_number(visit.field("credits")),
            )
        )
    except ValueError as error:
        return await _page(visit, 422, detail=str(error), form=visit.form)
    log.info("key.created", by=visit.key.id, user_id=visit.field("user"))
    return await _page(visit, secret=secret)


async def change(visit: Visit) -> Response:
    """Changes the plan of a key, or revokes it. Only for operators."""
    if not visit.is_operator:
        return _refused(visit)
    key_id, ring = visit.request.path_params["key_id"], keys_of(visit.request)
    if visit.field("act") == "revoke":
        known = await to_thread.run_sync(ring.revoke, key_id)
        log.info("key.revoked", by=visit.key.id, key_id=key_id)
        return visit.go("/keys", "revoked") if known else _unknown(visit)
    try:
        changes, left = _plan(visit), visit.field("credits")
        amount = _number(left)
        known = await to_thread.run_sync(lambda: ring.set(key_id, **changes))
        if known and left:
            await to_thread.run_sync(credits_of(visit.request).set, key_id, amount)
    except UnknownKey:
        known = False
    except ValueError as error:
        return await _page(visit, 422, detail=str(error))
    log.info("key.changed", by=visit.key.id, key_id=key_id)
    return visit.go("/keys", "changed") if known else _unknown(visit)


async def _page(
    visit: Visit, status: int = 200, *, secret: str = "", detail: str = "", form: Form | None = None
) -> Response:
    ring, accounts = keys_of(visit.request), credits_of(visit.request)

    def read() -> list[Row]:
        found = ring.list() if visit.is_operator else [visit.key]
        return [Row(key, accounts.balance(key.id)) for key in found]

    return visit.page(
        "keys.html",
        status,
        rows=await to_thread.run_sync(read),
        secret=secret,
        detail=detail,
        form=form or {},
        scopes=SCOPES,
        features=FEATURES,
    )


def _plan(visit: Visit) -> dict[str, Any]:
    """Returns the parts of a plan that the form has. Raises ValueError for a text that is none."""
    chosen = frozenset(visit.form.get("features", ()))
    plan: Mapping[str, Any] = {
        "features": None if chosen in (frozenset(), frozenset(FEATURES)) else chosen,
        "priority_ceiling": _number(visit.field("max_priority")),
        "concurrency": _number(visit.field("concurrency")),
    }
    return {name: value for name, value in plan.items() if value is not None or name == "features"}


def _number(text: str) -> int | None:
    """Returns the number of a field; None if it is empty or `unlimited`."""
    if text in ("", "unlimited"):
        return None
    if not text.isascii() or not text.isdigit() or len(text) > 15:
        raise ValueError(f"{text[:40]!r} is not a whole number: give digits, or leave it empty")
    return int(text)


def _refused(visit: Visit) -> Response:
    text = "Keys are made and changed by operators. Your key lacks the scope operator."
    return visit.page("error.html", 403, title="Not allowed", detail=text)


def _unknown(visit: Visit) -> Response:
    text = "No key has this id; it was revoked in the meantime."
    return visit.page("error.html", 404, title="Not found", detail=text)


ROUTES = (
    route("/keys", index),
    route("/keys", create, ["POST"]),
    route("/keys/{key_id}", change, ["POST"]),
)
