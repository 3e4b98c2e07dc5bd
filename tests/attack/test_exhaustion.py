"""No request makes the service fail, or keeps it from answering others within a second."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

import psutil
import pytest

from tests.attack import operations
from tests.attack.conftest import Target
from tests.attack.operations import BOUNDARY, FORM, JSON, Operation
from tests.attack.wire import Answer, Wire

pytestmark = pytest.mark.stack

MAX_SECONDS = 1.0
"""For an answer to one hostile request, and to a request of another user meanwhile."""
TRIES = 2
"""A slow answer counts if it is slow each time: the machine has other work."""
WRONG_KEY = "exp_wrong"
MAX_BYTES = 320 * 1024**2
"""Most memory that the API process has held; it begins with about 120 MB."""
CLOSED = 0
"""Status of a connection that was closed without an answer."""


class Row(NamedTuple):
    """A way to exhaust the service."""

    case: str
    send: Callable[[Target, str], list[Answer]]
    """Sends it with this key, and returns the answers."""


# -- how to send -------------------------------------------------------------------------------


def raw(target: Target, sent: bytes, *, patience: float = 5.0) -> Answer:
    """Sends these bytes on a connection of its own; returns the first answer."""
    started = time.monotonic()
    received = b""
    with socket.create_connection((target.wire.host, target.wire.port), timeout=patience) as one:
        with contextlib.suppress(OSError):  # refused before all was sent
            one.sendall(sent)
        with contextlib.suppress(OSError):
            while b"\r\n\r\n" not in received and (got := one.recv(65_536)):
                received += got
    status = int(received.split(b" ")[1]) if received.startswith(b"HTTP/") else CLOSED
    return Answer(status, [], received.decode("latin-1"), time.monotonic() - started)


def head(target: Target, method: str, path: str, key: str, *lines: str) -> bytes:
    place = f"{target.wire.host}:{target.wire.port}"
    first = (f"{method} {path} HTTP/1.1", f"Host: {place}", f"X-API-Key: {key}")
    return "\r\n".join([*first, *lines, "", ""]).encode("latin-1")


def bodies(
    media_type: str, make: Callable[[Operation], bytes | None]
) -> Callable[[Target, str], list[Answer]]:
    """Sends a body to each operation that takes bodies of this type."""

    def send(target: Target, key: str) -> list[Answer]:
        answers = []
        kind = f"{FORM}; boundary={BOUNDARY}" if media_type == FORM else media_type
        with Wire(target.addresses.url) as wire:
            for one in target.operations:
                body = make(one) if one.media_type == media_type else None
                if body is not None and not one.path.startswith("/cdapi"):
                    headers = [("Content-Type", kind)]
                    answers.append(
                        wire.ask(one.method, one.at({}), key=key, headers=headers, body=body)
                    )
        assert answers, "no operation takes such a body"
        return answers

    return send


def with_field(name: str, text: str) -> Callable[[Operation], bytes | None]:
    """The documented body with this JSON text in one field; None: it has no such field."""

    def make(operation: Operation) -> bytes | None:
        outer, _, inner = name.partition(".")
        if outer not in operation.schema.get("properties", {}):
            return None
        value = f'{{"{inner}": {text}}}' if inner else text
        kept = {key: json.dumps(one) for key, one in operation.example.items()} | {outer: value}
        return f"{{{', '.join(f'{json.dumps(key)}: {one}' for key, one in kept.items())}}}".encode()

    return make


def queries(value: str) -> Callable[[Target, str], list[Answer]]:
    """Sends a value in each parameter of a query."""

    def send(target: Target, key: str) -> list[Answer]:
        with Wire(target.addresses.url) as wire:
            return [
                wire.ask("GET", f"{one.at({})}?{name}={quote(value)}", key=key)
                for one in target.operations
                for name in one.named("query")
            ]

    return send


def once(make: Callable[[Target, str], bytes]) -> Callable[[Target, str], list[Answer]]:
    return lambda target, key: [raw(target, make(target, key))]


def many_silent(target: Target, key: str) -> list[Answer]:
    """Opens connections that say nothing, or half of something."""
    with ExitStack() as open_ones:
        for number in range(300):
            one = socket.create_connection((target.wire.host, target.wire.port), timeout=5)
            open_ones.enter_context(one)
            if number % 2:
                one.sendall(b"GET /v1/exports HTTP/1.1\r\nHost: a")
        with Wire(target.addresses.url) as wire:
            return [wire.ask("GET", "/v1/exports", key=key) for _ in range(5)]


def waits_left_alone(target: Target, key: str) -> list[Answer]:
    """Begins to wait for an export, and goes away."""
    with Wire(target.addresses.url) as wire:
        kind = [("Content-Type", JSON)]
        body = json.dumps({"source": "board", "query": {}, "format": "csv", "limit": 5}).encode()
        made = wire.ask("POST", "/v1/exports", key=key, headers=kind, body=body)
        asked = head(target, "GET", f"/v1/exports/{made.json()['id']}?wait=30", key)
        for _ in range(200):
            with socket.create_connection((target.wire.host, target.wire.port), timeout=5) as one:
                one.sendall(asked)
        return [made, *(wire.ask("GET", "/v1/exports", key=key) for _ in range(5))]


def held(target: Target, asked: bytes, number: int, key: str) -> list[Answer]:
    """Sends this on many connections, reads nothing, and asks as someone else meanwhile."""
    with ExitStack() as open_ones:
        for _ in range(number):
            one = socket.create_connection((target.wire.host, target.wire.port), timeout=5)
            open_ones.enter_context(one)
            with contextlib.suppress(OSError):  # refused
                one.sendall(asked)
        with Wire(target.addresses.url) as wire:
            return [wire.ask("GET", "/v1/exports", key=key) for _ in range(5)]


def waits_held(target: Target, key: str) -> list[Answer]:
    """Waits for an export on many connections."""
    with Wire(target.addresses.url) as wire:
        kind = [("Content-Type", JSON)]
        body = b'{"source": "bindbee", "query": {}, "format": "csv"}'
        made = wire.ask("POST", "/v1/exports", key=key, headers=kind, body=body).json()
    asked = head(target, "GET", f"/v1/exports/{made['id']}?wait=30", key)
    return held(target, asked, 200, target.eve())


def unread_lists(target: Target, key: str) -> list[Answer]:
    """Asks for the largest lists and reads none of them."""
    asked = head(target, "GET", "/v1/exports?limit=100", target.ann)
    return held(target, asked * 5, 40, key)


def unread_streams(target: Target, key: str) -> list[Answer]:
    """Asks for streamed rows and reads none of them."""
    asked = head(target, "GET", "/api/export?format=csv", key)
    return held(target, asked, 30, target.eve())


# -- the rows ----------------------------------------------------------------------------------

DEEP = 20_000
NEAR_MISSES = json.dumps([f"Informatoin Tecnology and Servces {n}" for n in range(1_000)])
MANY_NAMES = json.dumps({str(number): number for number in range(60_000)}).encode()
ROWS = [
    Row("objects within objects", bodies(JSON, lambda one: b'{"a":' * DEEP + b"1" + b"}" * DEEP)),
    Row("lists within lists", bodies(JSON, lambda one: b"[" * 300_000)),
    Row(
        "objects within a search",
        bodies(JSON, with_field("query", '{"a":' * 970 + "1" + "}" * 970)),
    ),
    Row(
        "objects within filters",
        bodies(JSON, with_field("filters", '{"a":' * 970 + "1" + "}" * 970)),
    ),
    Row(
        "objects within an Elasticsearch query",
        bodies(JSON, with_field("es_dsl_query", '{"query":' * 970 + "1" + "}" * 970)),
    ),
    Row("many names", bodies(JSON, lambda one: MANY_NAMES)),
    Row("one name many times", bodies(JSON, lambda one: b"{" + b'"a":1,' * 150_000 + b'"a":1}')),
    Row("a body of blanks", bodies(JSON, lambda one: b" " * 1_000_000)),
    Row("not UTF-8", bodies(JSON, lambda one: b'{"search": "\xff\xfe\xed\xa0\x80"}')),
    Row("a BOM", bodies(JSON, lambda one: b"\xef\xbb\xbf{}")),
    Row("UTF-16", bodies(JSON, lambda one: '{"search": {}}'.encode("utf-16"))),
    Row(
        "a long text in a search",
        bodies(JSON, with_field("query.job_titles", f'["{"a" * 990_000}"]')),
    ),
    Row(
        "many texts in a search",
        bodies(JSON, with_field("query.job_titles", json.dumps(["ab"] * 60_000))),
    ),
    *(
        Row(f"near misses in {name}", bodies(JSON, with_field(name, NEAR_MISSES)))
        for name in ("query.industry", "search.industry", "search.job_category", "search.company")
    ),
    Row(
        "many columns",
        bodies(JSON, with_field("columns", json.dumps([f"c{n}" for n in range(60_000)]))),
    ),
    Row("many events", bodies(JSON, with_field("webhook_events", json.dumps(["x"] * 60_000)))),
    Row("wrong ids", bodies(JSON, with_field("ids", json.dumps(["x"] * 200_000)))),
    Row("one id many times", bodies(JSON, with_field("ids", json.dumps([1] * 300_000)))),
    Row("huge ids", bodies(JSON, with_field("ids", f"[{'9' * 900_000}]"))),
    Row("a huge limit", bodies(JSON, with_field("limit", "9" * 900_000))),
    Row("a huge exponent", bodies(JSON, with_field("limit", "1e999999999"))),
    Row("a long fraction", bodies(JSON, with_field("limit", "0." + "1" * 900_000))),
    Row("a huge priority", bodies(JSON, with_field("priority", "-" + "9" * 5_000))),
    Row("a huge grace", bodies(JSON, with_field("grace_seconds", "9" * 5_000))),
    Row(
        "a form of many fields",
        bodies(FORM, lambda one: operations.form(dict.fromkeys(map(str, range(12_000)), ""))),
    ),
    Row(
        "a form of many parts without a name",
        bodies(FORM, lambda one: f"--{BOUNDARY}\r\n\r\n\r\n".encode() * 40_000),
    ),
    Row("a form of one long line", bodies(FORM, lambda one: b"a" * 1_000_000)),
    Row(
        "a form of heads",
        bodies(FORM, lambda one: f"--{BOUNDARY}\r\n".encode() + b"a: b\r\n" * 150_000),
    ),
    Row(
        "a file of wrong ids",
        bodies(FORM, lambda one: operations.form({"ids_file": "x\n" * 500_000})),
    ),
    Row(
        "a file of one id", bodies(FORM, lambda one: operations.form({"ids_file": "1\n" * 200_000}))
    ),
    Row(
        "a file of one line",
        bodies(FORM, lambda one: operations.form({"ids_file": "1" * 1_000_000})),
    ),
    Row("a long parameter", queries("9" * 60_000)),
    Row("digits of a parameter", queries("9" * 4_500)),
    Row("a parameter of blanks", queries(" " * 20_000)),
    Row(
        "many parameters",
        once(lambda target, key: head(target, "GET", "/v1/exports?" + "a=1&" * 15_000, key)),
    ),
    Row("a long path", once(lambda target, key: head(target, "GET", "/v1/" + "a/" * 500_000, key))),
    Row(
        "a long header",
        once(lambda target, key: head(target, "GET", "/v1/exports", key, "A: " + "a" * 5_000_000)),
    ),
    Row(
        "many headers",
        once(lambda target, key: head(target, "GET", "/v1/exports", key, *["A: a"] * 500_000)),
    ),
    Row(
        "a head without an end",
        once(
            lambda target, key: head(target, "GET", "/v1/exports", key)[:-2] + b"A: a\r\n" * 300_000
        ),
    ),
    Row(
        "two lengths of a body",
        once(
            lambda target, key: (
                head(
                    target,
                    *("POST", "/v1/exports", key, f"Content-Type: {JSON}"),
                    *("Content-Length: 2", "Transfer-Encoding: chunked"),
                )
                + b"0\r\n\r\nGET /v1/exports HTTP/1.1\r\n\r\n"
            )
        ),
    ),
    Row(
        "a negative length of a body",
        once(lambda target, key: head(target, "POST", "/v1/exports", key, "Content-Length: -1")),
    ),
    Row(
        "a body announced by a caller without a key",
        once(
            lambda target, key: head(
                target,
                *("POST", "/v1/exports", WRONG_KEY, f"Content-Type: {JSON}"),
                "Content-Length: 1000000",
            )
        ),
    ),
    Row(
        "an endless body of a caller without a key",
        once(
            lambda target, key: (
                head(
                    target,
                    *("POST", "/v2/data_requests/job_base/ids", WRONG_KEY, f"Content-Type: {JSON}"),
                    "Transfer-Encoding: chunked",
                )
                + b"ffff\r\n[1,"
            )
        ),
    ),
    Row(
        "a body that is announced as too long",
        once(
            lambda target, key: head(
                target,
                *("POST", "/v1/exports", key, f"Content-Type: {JSON}"),
                f"Content-Length: {10**15}",
            )
        ),
    ),
    Row(
        "many ranges",
        once(
            lambda target, key: head(
                target,
                "GET",
                f"/v2/data_requests/{target.created['collectByFilters']}/files/x",
                target.ann,
                "Range: bytes=" + ",".join(f"{n}-{n}" for n in range(4_000)),
            )
        ),
    ),
    Row(
        "many requests at once",
        once(lambda target, key: head(target, "GET", "/v1/exports", key) * 1_000),
    ),
    Row("silent connections", many_silent),
    Row("waits that are left alone", waits_left_alone),
    Row("waits that are held", waits_held),
    Row("lists that are not read", unread_lists),
    Row("streams that are not read", unread_streams),
]
FAILING: dict[str, str] = {}
"""Rows that today's service does not withstand, with what happens."""


# -- what others notice ------------------------------------------------------------------------


@contextmanager
def observed(target: Target) -> Iterator[list[float]]:
    """Polls an export of ann's meanwhile; the seconds of each answer."""
    seconds: list[float] = []
    ended = threading.Event()
    path = f"/v1/exports/{target.created['createExport']}"

    def poll() -> None:
        with Wire(target.addresses.url) as wire:
            while True:
                answer = wire.ask("GET", path, key=target.ann)
                assert answer.status == 200, answer.text
                seconds.append(answer.seconds)
                if ended.wait(0.01):
                    return

    thread = threading.Thread(target=poll)
    thread.start()
    try:
        yield seconds
    finally:
        ended.set()
        thread.join()


def rows() -> Iterator[object]:
    for row in ROWS:
        why = FAILING.get(row.case)
        marks = [pytest.mark.xfail(strict=True, reason=why)] if why else []
        yield pytest.param(row, id=row.case, marks=marks)


@pytest.mark.parametrize("row", list(rows()))
def test_one_request_is_answered_in_time_and_so_are_others_meanwhile(
    target: Target, row: Row
) -> None:
    for left in reversed(range(TRIES)):
        # When
        with observed(target) as others:
            answers = row.send(target, target.eve())

        # Then
        failed = [one for one in answers if one.status >= 500]
        assert not failed, f"{len(failed)}: {failed[0].status} {failed[0].text[:300]}"
        slowest, of_others = max(one.seconds for one in answers), max(others)
        if slowest < MAX_SECONDS and of_others < MAX_SECONDS:
            return
        assert left, f"{slowest:.2f} s; others waited for {of_others:.2f} s"


def test_the_memory_of_the_service_was_bounded_all_the_time(target: Target) -> None:
    # Given all rows above
    children = psutil.Process().children()
    (api,) = [
        one for one in children if "api" in one.cmdline() and str(target.wire.port) in one.cmdline()
    ]

    # When
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{api.pid}/status").read_text())

    # Then
    assert found is not None
    assert int(found[1]) * 1024 < MAX_BYTES, found[0]
