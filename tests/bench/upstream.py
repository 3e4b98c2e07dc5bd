"""An upstream that has all its pages ready: `python -m tests.bench.upstream PORT LATENCY_MS`.

Below `/ROWS` it is an upstream of that many postings:
`POST /ROWS/v2/jobs/search`, `GET /ROWS/pages/N.json` and `GET /ROWS/pages?page=N` answer page N,
counted from 1, with 200 postings in their envelope; `GET /ROWS/nd/N.ndjson` answers the same
postings one a line. A page past the end is empty.
"""

from __future__ import annotations

import itertools
import random
import re
import sys
import time
from functools import lru_cache
from urllib.parse import parse_qs

import msgspec
import orjson

from exporter.board import hostile
from tests.bench.serving import Answer, Request, ranged, serve, stretch

PAGE = 200
DISTINCT = 10_000
"""Postings that are rendered, 2.7 KB each on average; beyond, they come again under other ids."""
ROUND = 6
"""Digits at the head of an id that say how often the postings came before."""


class Pages:
    """The bytes of every page, put together from postings that were cut at their ids."""

    def __init__(self, distinct: int = DISTINCT) -> None:
        self._cut = [
            _cut(_shuffled(row.json, number), row.id.encode())
            for number, row in enumerate(hostile.generate(distinct))
        ]

    def page(self, number: int, rows: int) -> tuple[bytes, ...]:
        """Page `number` of an upstream of `rows` postings, in its envelope, in pieces to be sent
        one after another."""
        tail = b'],"total_count":%d,"page":%d,"limit":%d}' % (rows, number, PAGE)
        return b'{"jobs":[', *self._numbered(number, rows, b","), tail

    def lines(self, number: int, rows: int) -> bytes:
        """The same postings, each on a line."""
        joined = b"".join(self._numbered(number, rows, b"\n"))
        return joined + b"\n" if joined else b""

    def _numbered(self, number: int, rows: int, between: bytes) -> list[bytes]:
        first = (number - 1) * PAGE
        if not 0 <= first < rows:
            return []
        times, place = divmod(first, len(self._cut))
        pieces = self._pieces(place, min(PAGE, rows - first), between)
        # The head of all ids of a page is the same, and stands between every two pieces.
        numbered = [b"%0*x" % (ROUND, times)] * (2 * len(pieces) - 1)
        numbered[::2] = pieces
        return numbered

    @lru_cache(maxsize=4 * DISTINCT // PAGE)  # noqa: B019 - there is one, for the process's life
    def _pieces(self, place: int, count: int, between: bytes) -> list[bytes]:
        cut = self._cut[place : place + count]
        inner = [before[1] + between + after[0] for before, after in itertools.pairwise(cut)]
        return [cut[0][0], *inner, cut[-1][1]]


def _shuffled(row: bytes, seed: int) -> bytes:
    """The posting with the words of its description in another order, all else byte for byte.

    Sentences are few there and come again and again: left whole, they would be packed into half
    of what real ones take, and in half the time.
    """
    fields = _fields(row)
    text = msgspec.json.decode(fields.get("description", b"null"))
    if text is None:
        return row
    words = re.findall(r"\S+\s*|\s+", text)
    random.Random(seed).shuffle(words)
    fields["description"] = msgspec.Raw(msgspec.json.encode("".join(words)))
    return msgspec.json.encode(fields)


def _cut(row: bytes, identity: bytes) -> tuple[bytes, bytes]:
    """What stands before the head of the id, and what follows it."""
    at = row.index(b'"_id":"%b"' % identity) + len(b'"_id":"')
    return row[:at], row[at + ROUND :]


def main(port: int, latency: float) -> None:
    """Serve until the process ends; each answer waits `latency` seconds."""
    pages = Pages()

    def handle(request: Request) -> Answer:
        if latency:
            time.sleep(latency)
        place, _, query = request.target.partition("?")
        _, rows, *path = place.split("/")
        if path[0] == "v2":
            asked = orjson.loads(request.body or b"{}")
            if asked["limit"] != PAGE:
                return Answer(b"pages have %d rows here" % PAGE, "400 Bad Request")
            return Answer(pages.page(asked["page"], int(rows)), headers=_JSON)
        number = int(parse_qs(query)["page"][0] if query else path[1].partition(".")[0])
        if path[0] == "pages":
            body = b"".join(pages.page(number, int(rows)))
        else:
            body = pages.lines(number, int(rows))
        # Engines ask for a file's size first, and for stretches of it.
        return stretch(body, ranged(request, len(body)), _FILE)

    serve(port, handle)


_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_JSON = {"content-type": "application/json"}
_FILE = {
    **_JSON,
    "accept-ranges": "bytes",
    "etag": '"1"',
    "last-modified": "Thu, 01 Jan 2026 00:00:00 GMT",
}

if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]) / 1000)
