"""No user sees, changes or learns of anything of another user."""

from __future__ import annotations

import itertools
import json
import re
import uuid
from collections.abc import Iterator

import pytest

from tests.attack.conftest import IDEMPOTENCY_KEY, Target, create
from tests.attack.operations import Operation
from tests.attack.wire import Answer

pytestmark = pytest.mark.stack

NOBODYS = {
    "endpoint_id": "we_0123456789abcdef01234567",
    "delivery_id": "msg_0123456789abcdef01234567",
    "file_name": "part-00000-0b8c2c4e-0000-4000-8000-000000000000-h000.json.gz",
}


def ask(target: Target, operation: Operation, values: dict[str, str], key: str) -> Answer:
    headers, body = operation.body()
    return target.wire.ask(
        operation.method, operation.at(values), key=key, headers=headers, body=body
    )


def combinations(target: Target, operation: Operation) -> Iterator[dict[str, str]]:
    """Ann's ids in the parameters of the path, and ids of other kinds than the path has."""
    names = operation.own_ids
    for values in itertools.product(*(target.ids[name] for name in names)):
        yield dict(zip(names, values, strict=True))
    for kind in target.ids:
        yield dict.fromkeys(names, target.ids[kind][0])


def normalized(answer: Answer, values: dict[str, str]) -> str:
    """The answer without what differs in every answer."""
    text = answer.text
    for value in values.values():
        text = text.replace(value, "ID")
    text = re.sub(r'"(request_id|requestId|timestamp)":"[^"]*"', "", text)
    names = sorted(name.lower() for name, _ in answer.headers)
    return f"{answer.status} {text} {names}"


def test_an_id_of_another_user_is_answered_like_an_id_of_nobody(target: Target) -> None:
    # Given
    before = target.state()
    hints = []

    # When
    probes = 0
    for operation in target.operations:
        if not operation.own_ids:
            continue
        nobodys = {name: NOBODYS.get(name, str(uuid.uuid4())) for name in operation.own_ids}
        unknown = ask(target, operation, nobodys, target.eve())
        assert unknown.status == 404, f"{operation.name}: {unknown.status} {unknown.text}"
        for values in combinations(target, operation):
            answer = ask(target, operation, values, target.eve())
            probes += 1
            if normalized(answer, values) != normalized(unknown, nobodys):
                found = f"{answer.status} {answer.text[:200]}"
                hints.append(f"{operation.method} {operation.path} {values}: {found}")

    # Then
    assert not hints, f"{len(hints)} of {probes}:\n" + "\n".join(hints[:40])
    assert probes > 200
    assert target.state() == before


def test_no_list_contains_anything_of_another_user_with_a_cursor_of_theirs_too(
    target: Target,
) -> None:
    # Given
    leaks = []
    eve = target.eve()

    # When
    for operation in target.operations:
        if operation.method != "GET" or not operation.keyed or operation.own_ids:
            continue
        queries = [""]
        if "cursor" in operation.named("query"):
            queries += [f"?cursor={cursor}" for cursor in target.cursors]
        for query in queries:
            answer = target.wire.ask("GET", operation.at({}) + query, key=eve)
            leaks += [
                f"{operation.name}{query}: {secret}"
                for secret in target.secrets
                if secret in answer.text or secret in str(answer.headers)
            ]

    # Then
    assert not leaks, leaks


def test_an_idempotency_key_of_another_user_makes_a_new_export(target: Target) -> None:
    # Given
    eve = target.eve()
    made = set()

    # When
    for operation in target.operations:
        if operation.name not in target.created or operation.path.startswith("/cdapi"):
            continue
        answer = create(target, operation, eve)

        # Then
        assert answer.status in (201, 202), f"{operation.name}: {answer.text}"
        assert not answer.header("Idempotency-Replayed")
        body = answer.json()
        made.add(body.get("id") or body["request_id"])
    assert not made & set(target.created.values())
    assert len(made) == len(target.created)


def test_the_idempotency_key_is_still_its_owners(target: Target) -> None:
    # Given
    operation = next(one for one in target.operations if one.name == "createExport")

    # When
    answer = create(target, operation, target.ann)

    # Then
    assert answer.header("Idempotency-Replayed") == "true", IDEMPOTENCY_KEY
    assert answer.json()["id"] == target.created["createExport"]


def test_no_secret_is_in_a_log_after_the_attack(target: Target) -> None:
    # Given
    stored = json.loads((target.directory / "secrets.json").read_text())
    del stored["access_key"]  # the name of the key, not the key
    secrets = {*stored.values(), target.ann, target.addresses.api_key, "whsec_"}

    # When
    logs = list((target.directory / "logs").iterdir())
    found = [
        f"{log.name}: {secret[:8]}…"
        for log in logs
        for secret in secrets
        if secret in log.read_text(errors="replace")
    ]

    # Then
    assert len(logs) >= 6
    assert not found
