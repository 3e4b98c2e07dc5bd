"""Without a right key there is one answer, in the shape of the surface, whatever else is wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import pytest

from tests.attack.conftest import Target
from tests.attack.operations import Operation
from tests.attack.wire import Answer

pytestmark = pytest.mark.stack

BROKEN = b'{"search": '
"""A body for which a request with a right key is refused."""
READING = ("previewSource", "searchJobs", "estimateJobs", "estimateExport", "createTicket")
"""Operations that change nothing although they are POST."""


class Row(NamedTuple):
    """A way to send no right key."""

    case: str
    headers: Callable[[Target], list[tuple[str, str]]]
    query: Callable[[Target], str] = lambda target: ""


def revoked(target: Target) -> str:
    key = target.eve()
    found = target.keys.find(key)
    assert found is not None
    target.keys.revoke(found.id)
    return key


ROWS = [
    Row("none", lambda target: []),
    Row("wrong", lambda target: [("X-API-Key", "exp_wrong")]),
    Row("empty", lambda target: [("X-API-Key", "")]),
    Row("only a scheme", lambda target: [("Authorization", "Bearer")]),
    Row("another scheme", lambda target: [("Authorization", f"Basic {target.ann}")]),
    Row("no scheme", lambda target: [("Authorization", target.ann)]),
    Row("revoked", lambda target: [("Authorization", f"Bearer {revoked(target)}")]),
    Row("a prefix", lambda target: [("X-API-Key", target.ann[:-1])]),
    Row("one more character", lambda target: [("X-API-Key", target.ann + "a")]),
    Row("in capitals", lambda target: [("X-API-Key", target.ann.upper())]),
    Row("twice in one header", lambda target: [("X-API-Key", f"{target.ann}, {target.ann}")]),
    Row("not ASCII", lambda target: [("X-API-Key", "cl\u00e9")]),
    Row("a glob", lambda target: [("X-API-Key", "exp_*")]),
    Row("huge", lambda target: [("X-API-Key", "a" * 8_000)]),
    Row(
        "two keys",
        lambda target: [("X-API-Key", target.ann), ("apikey", target.eve())],
    ),
    Row(
        "two keys in one kind of header",
        lambda target: [("X-API-Key", target.ann), ("X-API-Key", target.eve())],
    ),
    Row("in a cookie", lambda target: [("Cookie", f"api_key={target.ann}; apikey={target.ann}")]),
    Row(
        "in the query",
        lambda target: [],
        lambda target: f"?api_key={target.ann}&apikey={target.ann}",
    ),
    Row("in other headers", lambda target: [("X-Auth-Token", target.ann), ("Api-Key", target.ann)]),
]


def in_shape(operation: Operation, answer: Answer) -> bool:
    """True if the error has the shape of the surface that the path belongs to."""
    body, path = answer.json(), operation.path
    bulk = path.startswith(("/cdapi/", "/v1/professional_network/", "/v1/bulk_collect/"))
    if path.startswith("/v1/") and not bulk:
        kind = "application/problem+json"
        return answer.header("Content-Type") == kind and {"type", "title", "code"} <= set(body)
    if path.startswith("/api/"):
        return {"code", "status", "message", "requestId"} <= set(body)
    return list(body) == ["detail"] and isinstance(body["detail"], str)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.case)
def test_without_a_right_key_every_operation_answers_401_before_anything_else(
    target: Target, row: Row
) -> None:
    # Given
    headers, query = row.headers(target), row.query(target)
    wrong = []

    # When
    for operation in target.operations:
        if not operation.keyed:
            continue
        kinds = [("Content-Type", operation.media_type)] if operation.media_type else []
        answer = target.wire.ask(
            operation.method,
            operation.at({}) + (query or "?limit=x&cursor=x&since=x&wait=x&format=x"),
            headers=[*headers, *kinds],
            body=BROKEN if operation.media_type else None,
        )
        challenge = answer.header("WWW-Authenticate")
        if answer.status != 401 or not challenge or not in_shape(operation, answer):
            wrong.append(f"{operation.method} {operation.path}: {answer}")
        if target.ann in answer.text:
            wrong.append(f"{operation.method} {operation.path}: the key is in the answer")

    # Then
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("scope", ["read", "write"])
def test_a_key_does_only_what_its_scope_says(target: Target, scope: str) -> None:
    # Given
    key, wrong = target.eve(scope), []

    # When
    for operation in target.operations:
        if not operation.keyed:
            continue
        reading = operation.method == "GET" or operation.name in READING
        if operation.name == "getWebhookSecret":
            reading = False
        if (scope == "read") == reading or operation.name in READING:
            continue
        kinds = [("Content-Type", operation.media_type)] if operation.media_type else []
        answer = target.wire.ask(
            operation.method,
            operation.at({}),
            key=key,
            headers=kinds,
            body=BROKEN if operation.media_type else None,
        )
        if answer.status != 403 or not in_shape(operation, answer):
            wrong.append(f"{operation.method} {operation.path}: {answer}")

    # Then
    assert not wrong, "\n".join(wrong)


def test_a_read_key_creates_no_export_by_a_get(target: Target) -> None:
    # When
    answer = target.wire.ask(
        "GET", "/api/export", key=target.eve("read"), headers=[("Prefer", "respond-async")]
    )

    # Then
    assert answer.status == 403, answer.text
