"""A running service with two users: ann owns exports of every surface, eve attacks."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import redis

from exporter.board import coresignal_records, hostile
from exporter.local import ports
from exporter.local.stack import Addresses, Stack
from exporter.store.redis.api_keys import KeyRing
from tests.attack import operations
from tests.attack.operations import Operation
from tests.attack.wire import Answer, Wire

BOARD_ROWS = 300
READY_SECONDS = 60
IDEMPOTENCY_KEY = "ann-nightly-1"
ANN = "ann-the-victim"
_NUMBERS = [coresignal_records.record_id(one.id) for one in hostile.generate(5)]
IDS = {"ids": _NUMBERS, "ids_file": "".join(f"{number}\n" for number in _NUMBERS)}
"""Records of the board, for operations that take ids."""


@dataclass
class Target:
    """The service, its operations, and what belongs to ann."""

    addresses: Addresses
    wire: Wire
    keys: KeyRing
    document: Mapping[str, Any]
    operations: Sequence[Operation]
    webhook_url: str
    directory: Path
    """Holds the service's secrets and its logs."""
    ann: str
    """Ann's key."""
    ids: dict[str, list[str]] = field(default_factory=dict)
    """Ann's ids: each parameter of a path to the values that it may have."""
    cursors: list[str] = field(default_factory=list)
    created: dict[str, str] = field(default_factory=dict)
    """Operations to the id of what ann created there, with `IDEMPOTENCY_KEY`."""
    users: int = 0

    def eve(self, *scopes: str) -> str:
        """A new key of a new user, who has met no limit yet."""
        self.users += 1
        return self.keys.create(f"eve-{self.users}", scopes or ("read", "write"))

    @property
    def secrets(self) -> set[str]:
        """Whatever may appear in no answer to eve."""
        names = {value for values in self.ids.values() for value in values}
        return names | {self.ann, ANN}

    def state(self) -> dict[str, str]:
        """What ann sees of her own records, without fields that change with time."""
        found = {}
        for operation in self.operations:
            if operation.method != "GET" or not operation.own_ids or "deliver" in operation.path:
                continue
            for value in self.ids[operation.own_ids[0]]:
                answer = self.wire.ask(
                    "GET", operation.at({operation.own_ids[0]: value}), key=self.ann
                )
                assert answer.status in (200, 202, 302, 404, 422), f"{operation.path}: {answer}"
                kept = (
                    json.loads(answer.text)
                    if answer.header("Content-Type") == operations.JSON
                    else {}
                )
                found[f"{operation.path} {value}"] = f"{answer.status} {_lasting(kept)}"
        return found


def _lasting(answer: Any) -> Any:
    """The parts of an answer that only a change of ours changes."""
    if not isinstance(answer, dict):
        return answer
    names = ("id", "state", "url", "enabled", "secret", "events", "description", "record_count")
    return {name: answer[name] for name in names if name in answer}


def create(target: Target, operation: Operation, key: str) -> Answer:
    """Creates what the operation creates, with the key that ann uses."""
    headers, body = operation.body(small(operation))
    if "Prefer" in operation.named("header"):
        headers.append(("Prefer", "respond-async"))
    return target.wire.ask(
        operation.method,
        operation.at({}),
        key=key,
        headers=[*headers, ("Idempotency-Key", f"{IDEMPOTENCY_KEY}-{operation.name}")],
        body=body,
    )


def small(operation: Operation) -> Any:
    """A body that creates an export of a few records, from the documented example."""
    if not isinstance(operation.example, dict):
        return operation.example
    names = operation.schema.get("properties", {})
    own = {"limit": 5, "search": {"limit": 5}, "query": {}, "filters": {}, **IDS}
    own |= {"es_dsl_query": {"query": {"match_all": {}}}}
    kept = {name for name in operation.example if name in own} | ({"limit"} & set(names))
    return {**operation.example, **{name: own[name] for name in kept}}


@pytest.fixture(scope="package")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """Starts the service with the rates of a test, and gives ann one of everything."""
    webhook_url = f"http://127.0.0.1:{ports.find_free(1)[0]}/hook"
    directory = tmp_path_factory.mktemp("attacked")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("HIREBASE", "PIPELINE", "CREATE", "CHANGE", "LIST"):
            patch.setenv(f"EXPORTER_{name}_RATE", "1000000/60s")
        patch.setenv("EXPORTER_WEBHOOK_ALLOW_PRIVATE", "127.0.0.0/8")
        with (
            Stack(
                directory, ports.find_base(), 2, board_rows=BOARD_ROWS, board_profile="hostile"
            ) as addresses,
            Wire(addresses.url) as wire,
            redis.Redis.from_url(addresses.redis_url) as client,
        ):
            keys = KeyRing(client)
            document = wire.ask("GET", "/openapi.json").json()
            found = Target(
                addresses,
                wire,
                keys,
                document,
                operations.read(document, webhook_url),
                webhook_url,
                directory,
                keys.create(ANN),
            )
            _furnish(found)
            yield found


def _furnish(target: Target) -> None:
    """Ann creates an export on each surface, an endpoint, and what follows from them."""

    def get(path: str) -> Any:
        return target.wire.ask("GET", path, key=target.ann).json()

    endpoint = target.wire.ask(
        "POST",
        "/v1/webhook-endpoints",
        key=target.ann,
        headers=[("Content-Type", operations.JSON)],
        body=json.dumps({"url": target.webhook_url}).encode(),
    )
    assert endpoint.status == 201, endpoint.text
    for operation in target.operations:
        if "Idempotency-Key" not in operation.named("header") and operation.name != "exportRows":
            continue
        if operation.own_ids or operation.path.startswith("/cdapi"):
            continue
        answer = create(target, operation, target.ann)
        assert answer.status in (201, 202), f"{operation.name}: {answer.status} {answer.text}"
        made = answer.json()
        target.created[operation.name] = made.get("id") or made["request_id"]
    exports = list(target.created.values())
    until_ended(target, exports)
    names = [
        name
        for one in exports
        for name in get(f"/v2/data_requests/{one}/files").get("data_request_files", [])
    ]
    deliveries = [one["id"] for one in get(f"/v1/exports/{exports[0]}/deliveries")["deliveries"]]
    assert names
    assert deliveries
    target.ids.update(
        export_id=exports,
        task_id=exports,
        request_id=exports,
        endpoint_id=[endpoint.json()["id"]],
        delivery_id=deliveries[:2],
        file_name=names,
    )
    target.cursors += [get(f"/v1/exports?limit={number}")["next_cursor"] for number in (1, 2)]
    unknown = {name for one in target.operations for name in one.own_ids} - target.ids.keys()
    assert not unknown, f"give ann a value for each of {unknown}, and eve tries it"


def until_ended(target: Target, exports: Sequence[str], key: str = "") -> None:
    """Returns when all these exports have ended; by default they are ann's."""
    deadline = time.monotonic() + READY_SECONDS
    for one in exports:
        while True:
            answer = target.wire.ask("GET", f"/v1/exports/{one}", key=key or target.ann)
            if answer.json()["state"] in ("finished", "failed", "canceled"):
                break
            assert time.monotonic() < deadline, answer.text
            time.sleep(0.05)
