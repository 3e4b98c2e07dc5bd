"""A hostile text in any place fails no request, adds no header and changes no record of others."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any, NamedTuple
from urllib.parse import quote

import pytest
import redis

from tests.attack import operations
from tests.attack.conftest import ANN, Target
from tests.attack.operations import Operation
from tests.attack.wire import Answer, Wire

pytestmark = pytest.mark.stack

MARK = "X-Injected"
"""A header that no answer may have."""
TEXTS = {
    "a header": f"a\r\n{MARK}: 1\r\n\r\n<html>",
    "NUL": "a\x00b",
    "a path": "../../../etc/passwd",
    "an encoded path": "..%2f..%2f%00",
    "a backslash": "..\\..\\windows",
    "a key of Redis": f"{{exporter}}:exports:{ANN}",
    "a separator": "a\x1fb\x1eb|c:d,e;f",
    "a hash tag": "{x}{{}}",
    "a glob": "*[a-z]?*\\",
    "Lua": "']] redis.call('FLUSHALL') --[[",
    "RESP": "\r\n*1\r\n$8\r\nFLUSHALL\r\n",
    "SQL": "'; DROP TABLE jobs; --",
    "a format": "%s%n%x{0.__class__}${jndi:ldap://127.0.0.1}",
    "HTML": "<script>alert(1)</script>",
    "a terminal": "\x1b]0;own\x07\x1b[2J\x9b31m",
    "right to left": "\u202eabc\u2066\u200b\ufeff",
    "marks": "e" + "\u0301" * 300,
    "no characters": "\uffff\ufdd0\U0010ffff",
    "a family": "\U0001f468\u200d\U0001f469\u200d\U0001f467" * 40,
    "empty": "",
    "blanks": " \t\u3000",
    "long": "a" * 20_000,
    "a number": "9" * 400,
    "a prototype": "__proto__",
}
VALUES: dict[str, Any] = {
    "half a character": "\ud800",
    "null": None,
    "true": True,
    "a fraction": 0.1,
    "infinite": float("inf"),
    "no number": float("nan"),
    "huge": 10**400,
    "negative": -(2**63) - 1,
    "a list": ["*", {"a": []}, None],
    "an object": {"$where": "1", "": None, "__class__": "x"},
    "a date": "9999-99-99T99:99:99Z",
}
"""Values that a body can contain besides text."""
EVERY = TEXTS | VALUES
HEADERS = ("Accept", "Accept-Encoding", "User-Agent", "X-Request-Id", "X-Forwarded-For", "Origin")
"""Headers that clients send to any operation."""


class Probe(NamedTuple):
    """A request with a hostile text in one place."""

    where: str
    operation: Operation
    path: str
    headers: list[tuple[str, str]]
    body: bytes | None


Place = Callable[[Target], Iterator[Probe]]


def in_paths(target: Target) -> Iterator[Probe]:
    for operation in target.operations:
        headers, body = operation.body()
        for name in operation.named("path"):
            for case, text in TEXTS.items():
                path = operation.at({name: text[:2_000]})
                yield Probe(f"path.{name}, {case}", operation, path, headers, body)


def in_queries(target: Target) -> Iterator[Probe]:
    for operation in target.operations:
        for name in operation.named("query"):
            for case, text in TEXTS.items():
                path = f"{operation.at({})}?{name}={quote(text[:4_000])}"
                yield Probe(f"query.{name}, {case}", operation, path, [], None)


def in_headers(target: Target) -> Iterator[Probe]:
    for operation in target.operations:
        headers, body = operation.body()
        for name in (*operation.named("header"), *HEADERS):
            if name in HEADERS and operation.method != "GET":
                continue
            for case, text in TEXTS.items():
                if any(character < " " for character in text):
                    continue  # no text of a header: it is refused before anything is read
                sent = [*headers, (name, text)]
                yield Probe(f"header.{name}, {case}", operation, operation.at({}), sent, body)


def in_bodies(target: Target) -> Iterator[Probe]:
    probed: set[tuple[str, str]] = set()
    for operation in target.operations:
        if operation.media_type != operations.JSON:
            continue
        for field in operations.fields(operation, target.document):
            # Several operations share the filters of a search; each is probed once.
            place = (str(operation.schema.get("title")), ".".join(field))
            if place in probed or operation.path.startswith("/cdapi"):
                continue
            probed.add(place)
            for case, value in EVERY.items():
                body = operations.changed(operation.example, field, value)
                yield _json(operation, f"{'.'.join(field)}, {case}", body)
        for case, text in TEXTS.items():
            yield _json(operation, f"a name, {case}", {**operation.example, text: text})
            yield _json(operation, f"all, {case}", text)


def in_forms(target: Target) -> Iterator[Probe]:
    for operation in target.operations:
        if operation.media_type != operations.FORM:
            continue
        for name in (*operation.schema["properties"], "other"):
            for case, text in TEXTS.items():
                headers, body = operation.body({**operation.example, name: text})
                yield Probe(f"form.{name}, {case}", operation, operation.at({}), headers, body)


def _json(operation: Operation, where: str, body: Any) -> Probe:
    kind = [("Content-Type", operations.JSON)]
    return Probe(f"body.{where}", operation, operation.at({}), kind, json.dumps(body).encode())


def records(client: redis.Redis, target: Target) -> dict[bytes, bytes | None]:
    """Ann's export records in Redis, byte by byte; the exports have ended, so they are stable."""
    names = [f"{{exporter}}:export:{one}".encode() for one in target.ids["export_id"]]
    return {name: client.dump(name) for name in names}


def problem(probe: Probe, answer: Answer) -> str | None:
    """Returns the fault of the answer, or None."""
    wrong = None
    names = {name.lower() for name, _ in answer.headers}
    if answer.status >= 500:
        wrong = f"{answer.status} {answer.text[:200]}"
    elif MARK.lower() in names:
        wrong = "the text became a header"
    elif any(ord(character) < 32 for _, value in answer.headers for character in value):
        wrong = f"control characters in {answer.headers}"
    elif "<script>" in answer.text and "html" in answer.header("Content-Type"):
        wrong = "the text became HTML"
    elif answer.seconds > SECONDS:
        wrong = f"{answer.seconds:.2f} s"
    return wrong and f"{probe.operation.method} {probe.operation.path}, {probe.where}: {wrong}"


SECONDS = 3
"""For one answer, on a machine that has other work."""
PROBES_OF_A_USER = 9
"""After as many, another user goes on, so that no limit hides what is behind it."""
SHARES: dict[Place, int] = {in_paths: 5, in_queries: 5, in_headers: 17, in_bodies: 23, in_forms: 5}
"""The short attack sends each so-many-th probe: all fields, and all texts, but not each in each."""


def attack(target: Target, probes: Iterable[Probe]) -> tuple[int, list[str]]:
    """Sends the probes; returns their number and what is wrong with the answers."""
    wrong, number = [], 0
    eve = target.eve()
    with Wire(target.addresses.url) as wire:
        for number, probe in enumerate(probes, 1):
            if number % PROBES_OF_A_USER == 0:
                eve = target.eve()
            method, path, headers, body = probe.operation.method, *probe[2:]
            answer = wire.ask(method, path, key=eve, headers=headers, body=body)
            found = problem(probe, answer)
            wrong += [found] if found else []
    return number, wrong


def check(target: Target, probes: Iterable[Probe]) -> None:
    """Sends the probes; nothing may be wrong, and what is ann's stays as it is."""
    # Given
    with redis.Redis.from_url(target.addresses.redis_url) as client:
        # In this order: a look at a file stands in the activity of its export.
        state, stored = target.state(), records(client, target)

        # When
        number, wrong = attack(target, probes)

        # Then
        assert not wrong, f"{len(wrong)} of {number}:\n" + "\n".join(wrong[:40])
        assert number > MIN_PROBES
        assert all(stored.values())
        assert records(client, target) == stored
        assert target.state() == state


MIN_PROBES = 50
"""A sign that the probes of a place were not lost."""


@pytest.mark.parametrize("place", SHARES, ids=lambda place: place.__name__)
def test_a_text_in_any_place_stays_a_text(target: Target, place: Place) -> None:
    check(target, islice(place(target), 0, None, SHARES[place]))


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("place", SHARES, ids=lambda place: place.__name__)
def test_every_text_in_every_place_stays_a_text(target: Target, place: Place) -> None:
    check(target, place(target))


SOAK_SECONDS = 240


def combined(target: Target, seconds: float) -> Iterator[Probe]:
    """Random texts in several places of one request at once."""
    chance = random.Random(20261130)
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        operation = chance.choice(target.operations)
        places = {
            name: chance.choice(list(TEXTS.values()))[:500] for name in operation.named("path")
        }
        queries = "&".join(
            f"{name}={quote(chance.choice(list(TEXTS.values()))[:1_000])}"
            for name in operation.named("query")
            if chance.random() < 0.5
        )
        sent = operation.example
        if operation.media_type == operations.JSON and isinstance(sent, dict):
            for field in operations.fields(operation, target.document):
                if chance.random() < 3 / len(target.document["paths"]):
                    sent = operations.changed(sent, field, chance.choice(list(EVERY.values())))
        headers, body = operation.body(sent)
        for name in (*operation.named("header"), *HEADERS):
            text = chance.choice(list(TEXTS.values()))[:1_000]
            if chance.random() < 0.3 and not any(character < " " for character in text):
                headers.append((name, text))
        path = f"{operation.at(places)}?{queries}"
        yield Probe(f"{path} {headers} {body!r}"[:2_000], operation, path, headers, body)


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_texts_in_several_places_at_once_stay_texts(target: Target) -> None:
    check(target, combined(target, SOAK_SECONDS))
