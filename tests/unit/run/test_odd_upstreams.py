"""Property test: whatever an upstream answers, a published file has each row exactly once."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from exporter.core.exports import Outcome, State
from exporter.sources.hirebase import HirebaseConfig, HirebaseSource
from tests import fast
from tests.harness import Bench
from tests.upstreams import Answer, Asked, Reset, reply, serving

pytestmark = pytest.mark.external

TOTAL, SIZE = 230, 50
ROWS = [{"_id": f"j{number}", "title": "Köchin"} for number in range(TOTAL)]


def page(number: int, *, ascii_: bool = True, **changes: Any) -> bytes:
    """Returns a page without its number and size, so that the source must judge by its rows."""
    jobs = ROWS[(number - 1) * SIZE : number * SIZE]
    body = {"jobs": jobs, "total_count": TOTAL, **changes}
    return json.dumps(body, ensure_ascii=ascii_).encode()


def status(number: int, retry_after: str | None = None) -> Callable[[int], Answer]:
    if retry_after is None:
        return lambda _: reply(number, "trouble")
    return lambda _: reply(number, "trouble", retry_after=retry_after)


def head(*lines: str) -> Callable[[int], Answer]:
    def answer(number: int) -> Answer:
        body = page(number)
        first = ["HTTP/1.1 200 OK", f"content-length: {len(body)}", "connection: close"]
        return "\r\n".join([*first, *lines]).encode() + b"\r\n\r\n" + body

    return answer


ODD: dict[str, Callable[[int], Answer]] = {
    # The true page, written in an odd way.
    "good": lambda number: reply(200, page(number)),
    "unknown coding": head("Content-Encoding: UTF-8"),
    "blank before a colon": head("X-Note : hello", "Content-Encoding : none"),
    "gzip": lambda number: reply(200, gzip.compress(page(number))),
    "latin-1": lambda number: reply(
        200,
        page(number, ascii_=False).decode().encode("latin-1"),
        content_type="application/json; charset=ISO-8859-1",
    ),
    "utf-16": lambda number: reply(200, page(number).decode().encode("utf-16")),
    # No page.
    "302": status(302),
    "401": status(401),
    "404": status(404),
    "204": status(204),
    "403 with a time": status(403, retry_after="1.5"),
    "202 with a time": status(202, retry_after="2"),
    "429 with a time": status(429, retry_after="119.997"),
    "500": status(500),
    "web page": lambda _: reply(200, "<html>"),
    "no header": head("X Note"),
    "nothing": lambda _: b"",
    "cut off": lambda number: reply(200, page(number)[:-9], length=len(page(number))),
    "cut off without a length": lambda number: b"HTTP/1.0 200 OK\r\n\r\n" + page(number)[:-9],
    "reset": lambda number: [reply(200, page(number)[:-9], length=len(page(number))), Reset()],
    # A false page.
    "empty": lambda number: reply(200, page(number, jobs=[])),
    # On the first page, this is the true page of a search that matches nothing.
    "empty at the end": lambda number: reply(
        200, page(number, jobs=[], total_count=0) if number > 1 else page(1)
    ),
    "short": lambda number: reply(200, page(number, jobs=ROWS[number * SIZE - SIZE :][: SIZE - 1])),
    "page one": lambda number: reply(200, page(number, jobs=ROWS[:SIZE])),
    "the page after it": lambda number: reply(200, page(number + 1)),
    "total too small": lambda number: reply(200, page(number, total_count=number * SIZE)),
    "total too large": lambda number: reply(200, page(number, total_count=TOTAL + 1)),
}


@given(
    odd=st.lists(st.sampled_from(sorted(ODD)), max_size=12),
    often=st.sampled_from(sorted(ODD)) | st.just("good"),
    end=st.sampled_from([204, 400, 404, 200]),
)
@settings(max_examples=fast.examples(40), deadline=None)
def test_a_published_file_has_each_row_exactly_once_whatever_the_upstream_answers(
    odd: list[str], often: str, end: int
) -> None:
    # Two lies that agree, a total that is too small and two refusals, cannot be detected.
    following = often if (len(odd) + 1) % 3 == 0 else "good"
    refused = [name in ("204", "404") for name in [*odd, following]]
    assume("total too small" not in odd or not any(map(all, pairwise(refused))))
    # Given: odd answers to the first requests, later one kind of odd answer every third time
    answers = iter(odd)
    asked_for = 0

    def answer(asked: Asked) -> Answer:
        nonlocal asked_for
        asked_for += 1
        number = asked.json["page"]
        name = next(answers, often if asked_for % 3 == 0 else "good")
        if name == "good" and (number - 1) * SIZE >= TOTAL and end != 200:
            return reply(end, "no such page")
        return ODD[name](number)

    bench = Bench([], format="json")
    with serving(answer) as upstream:
        config = HirebaseConfig(base_url=upstream.url, page_size=SIZE)
        bench.source = HirebaseSource(config, bench.clock)
        # When
        bench.run(slices=10_000)
        bench.source.close()
    # Then
    if bench.export.state is State.FAILED:
        assert bench.bucket() == []
        assert bench.export.error
        return
    assert [json.loads(line) for line in bench.file().splitlines()] == ROWS
    assert bench.export.result is not None
    assert bench.export.result.completeness.outcome in (Outcome.COMPLETE, Outcome.PARTIAL)
