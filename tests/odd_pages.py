"""Random pages of a source, sound and odd, and the outputs of both paths for a page.

Run as a program, it compares the paths:

    python -m tests.odd_pages --seconds 3600 --seed 7 [--corpora FOLDER] [--library FILE]
    python -m tests.odd_pages --compare FILE

The first form compares random pages, and broken copies of them; `--first` repeats the page of a
difference. The corpora are rows in `*.jsonl.gz`, and files of JSON that are taken for values, rows
and pages. The library may be another than the installed one, such as one with sanitizers. The
second form prints the SHA-256 of both paths' files of the rows in a file, one a line, or of that
many rows of the benchmark.
"""

from __future__ import annotations

import argparse
import gzip
import itertools
import json
import random
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import msgspec

from exporter.core.buffers import Buffer
from exporter.core.checkpoints import Row, RowCounts
from exporter.core.exports import Dialect
from exporter.errors import SourceUntrue
from exporter.formats.base import Format, State
from exporter.formats.csv import Csv
from exporter.formats.envelope import Envelope
from exporter.formats.json import JsonLines
from exporter.native import library, pages
from exporter.run import row_ids
from exporter.sources.http import json_pages

TEXTS = (
    *('"plain"', '""', '"a, b"', r'"say \"hi\""', r'"two\nlines"', r'"\r"', '"é ’ 🚀"', '"{v0}"'),
    *('"=1+1"', '"-5"', r'" \t@x"', '"＝1"', r'"\ud800"', '"\u2028\x85"', r'"back\\slash"'),
    *(json.dumps("long, " * 60), json.dumps("x" * 300), json.dumps("=" + "y" * 300)),
    json.dumps('é’ "long" ' * 40, ensure_ascii=False),
    *(r'"\ud83d\ude00"', r'"\ud83d\ud83d\ude00"', r'"\ude00\ud83d"', r'"\u0022\u002c\u000a"'),
    *(
        r'"\u003d1"',
        '"+1.5e3"',
        '"+.5"',
        '"-.5e-1"',
        '"+5."',
        '"-."',
        r'"\t"',
        '"  =x"',
        '"\ufeff"',
    ),
    *(
        '"日本語のテキスト、長い文章"',
        f'"{"é" * 50}"',
        '"a\u2029"',
        r'"\/"',
        r'"\b\f"',
        '"\u00c2\u0085"',
    ),
    f'"{"日" * 20}\u2028{"本" * 20}"',
    *('"-"', '"@"', r'"=\ud800"', '"－1"', '"＠"', '"＊"', r'"\uFF1D1"'),
    *('"a;=b"', '"a; =b"', '"a;-5"', '"a;-5x"', '"a;-5;b"', '"a;+ b"', r'"a\n- b"', r'"a\n-b"'),
    *('"a\\n-\xa0b"', r'"a\n\t- b"', r'"a;\"=b"', r'"x\n\n=1\n＠"', '"a;1.5e;=2"', '"; ＋1"'),
    *(r'"a\r\n@b"', '"a; b; c"', r'"\u003b=1"', '"a;-1e5"', '"a;-1e"', r'"a;\u000b=1"', '";"'),
    *('"=;="', '";;;="', '" "', r'"\u0020"', '"\u00a0"', r'"\u00a0x"'),
    '"00000000-0000-0000-0000-000000000000"',
)
NUMBERS = (
    *("0", "-0", "0.0", "1.10", "1E+05", "18446744073709551616", "9" * 400, "-1.5e-7", "123456789"),
)
WORDS = ("null", "true", "false", "NaN", "-Infinity", "Infinity")
LISTS = (
    *("[]", '["a"]', '["a","b, c"]', r'["say \"hi\""]', r'["\ud800"]', '["=1"]', "[NaN]", '["é"]'),
    *("[1.10,null,true]", '[ "a" ,\n "b" ]', '[{"k":\r[1, 2]}]', '[""]', "[ ]", "[\n]", "[1 , 2]"),
    *("[" * depth + "]" * depth for depth in (128, 129, 300)),
    *(r'[[["x"],{}],"\\"]', r'["\"","\\"]', "[null]", '["a",null,"b"]', '["\u2028"]'),
    *('[{"a":"\u0085"},[]]', '["a;=b"]', '["a","=b"]', '["-x","+ y"]', '[\t1,\t"; =2"]'),
    *('["x;",\n"=y"]', r'[";\"=1"]'),
)
OBJECTS = (
    *("{}", '{"k":"v"}', '{"k": [1,\n 2.50]}', r'{"k":"é, \n"}', '{"n":18446744073709551616}'),
    *("{ }", '{"a":{"b":{"c":[{"d":null}]}}}', r'{"\"":1}', r'{"q":"\\\""}', '{"k":"a;=b"}'),
    *('{\t"k":1}', '{"k":"a; ＝b",\t"l":[\n1]}'),
)
WRONG = (
    *("01", "1.", "+1", ".5", "1e", "tru", r'"\x"', r'"\u12"', '"\x01"', '"a\tb"', '"raw\nbreak"'),
    *("[1,]", '{"a":1,}', '{"a"}', "[1 2]", "nul", "-", '""x"', "'a'", r'"\ud8"', "\xff"),
)
VALUES = (*TEXTS, *NUMBERS, *WORDS, *LISTS, *OBJECTS)
NAMES = (
    *("a", "b", "c", "d", "_id", "beside", r"qu\"ote", "é", "x" * 15, "x" * 16, "x" * 31, "x" * 32),
    "a name of a field that is longer than thirty-two bytes",
    *(r"\u0061", r"\u005fid", r"\ud800", r"name\n", "\u2028", r"\u2028", "", r"back\\", r"tab\t"),
)
COLUMNS = ("a", "b", "c", "d", "a", 'qu"ote', "é", "x" * 16, "x" * 31, "\u2028", "back\\")
NOISE = b'{}[]:,"\\ 0-.eN\x00\x01\xff\xe2\x80\xc2\x85\xed\xa0au\n;='


class Answer(msgspec.Struct):
    jobs: list[msgspec.Raw]
    total: int = 0


read = json_pages.reader(Answer, "jobs", "_id")
read_uncut = json_pages.python_reader(Answer, "jobs")
read_id = row_ids.reader("_id")


def page(source: random.Random) -> bytes:
    """Returns a page of up to twelve rows; a third of the pages is no sound JSON."""
    is_spaced = source.random() < 0.3
    rows = [_row(source, is_spaced=is_spaced) for _ in range(source.randint(0, 12))]
    if rows and source.random() < 0.03:
        rows[source.randrange(len(rows))] = source.choice(["[1]", "null", '"x"', "5"])
    between = source.choice([b",", b",", b" , ", b",\n"])
    body = page_of([row.encode("utf-8", "surrogatepass") for row in rows], between)
    if source.random() < 0.25:
        body = spoilt(source, body)
    return body if source.random() < 0.95 else body[: source.randrange(len(body) + 1)]


def page_of(rows: Sequence[bytes], between: bytes = b",") -> bytes:
    return b'{"jobs":[%b],"total":%d}' % (between.join(rows), len(rows))


def _row(source: random.Random, *, is_spaced: bool) -> str:
    names = source.sample(NAMES, source.randint(0, 9))
    if names and source.random() < 0.2:
        names += source.sample(names, 1)

    def blank() -> str:
        return source.choice(["", "", "", "", " ", "\n", " \n\t", "\r\n", "  ", "\t"])

    def space() -> str:
        return blank() if is_spaced else ""

    members = [f'{space()}"{name}"{space()}:{space()}{_value(source)}{space()}' for name in names]
    return f"{{{space()}{','.join(members)}}}"


def _value(source: random.Random) -> str:
    kind = source.random()
    return source.choice(TEXTS if kind < 0.6 else VALUES if kind < 0.985 else WRONG)


def spoilt(source: random.Random, body: bytes) -> bytes:
    """Returns a page with up to three bytes changed, or a piece of it moved or repeated."""
    spoilt = bytearray(body)
    for _ in range(source.randint(1, 3)):
        place, kind = source.randrange(len(spoilt) + 1), source.random()
        piece = spoilt[place : place + source.choice([1, 1, 8, 40])]
        if kind < 0.3:
            spoilt[place : place + 1] = source.choice(NOISE).to_bytes()
        elif kind < 0.5:
            del spoilt[place : place + len(piece)]
        elif kind < 0.7:
            spoilt.insert(place, source.choice(NOISE))
        elif kind < 0.8 and piece:
            spoilt[place] ^= 1 << source.randrange(8)
        else:
            target = source.randrange(len(spoilt) + 1)
            spoilt[target:target] = piece
    return bytes(spoilt)


class Corpora:
    """Rows of real postings, and files of JSON that are hard to read."""

    def __init__(self, folder: Path) -> None:
        self._rows: list[bytes] = []
        for file in sorted(folder.glob("*.jsonl.gz")):
            self._rows += gzip.decompress(file.read_bytes()).split(b"\n")[:-1]
        self.files = [file.read_bytes() for file in sorted(folder.rglob("*.json"))]

    def page(self, source: random.Random) -> tuple[bytes, Sequence[str]]:
        """Returns a page of a random piece of the corpora, and columns that it may have."""
        if not self._rows or source.random() < 0.3:
            return source.choice(list(self.pages(source.choice(self.files)))), ("a", "k")
        first = source.randrange(len(self._rows))
        rows = self._rows[first : first + source.randint(1, 4)]
        names = list(msgspec.json.decode(rows[0]))
        return page_of(rows), source.sample(names, source.randint(1, len(names)))

    @staticmethod
    def pages(text: bytes) -> Iterator[bytes]:
        """Yields pages in which a JSON text is a value, a row, or the page itself."""
        yield page_of([b'{"a":%b,"_id":1}' % text, b'{"k":1}'])
        yield page_of([b'{"k":[%b]}' % text])
        yield page_of([text])
        yield b'{"total":%b,"jobs":[{"a":1}]}' % text
        yield text


class Output(NamedTuple):
    """What a format makes of rows: bytes and counts, or the error with which it refuses a row."""

    data: bytes | str
    counts: RowCounts | None


def output(fmt: Format, rows: Sequence[Row], columns: Sequence[str]) -> Output:
    counts = RowCounts(absent_columns=list(dict.fromkeys(columns)) or None)
    out = Buffer()
    fmt.open(State(), out)
    opened = bytes(out)
    try:
        fmt.encode(rows, counts, State(), out)
    except SourceUntrue as error:
        assert bytes(out) == opened
        return Output(str(error), None)
    fmt.close(State(rows=len(rows)), out)
    return Output(bytes(out), counts)


def formats(
    source: random.Random, columns: Sequence[str]
) -> Iterator[tuple[Format, Sequence[str]]]:
    """Yields each format in a random dialect, with its columns."""
    dialect = Dialect(
        guard=source.random() < 0.6, joined=source.random() < 0.5, bom=source.random() < 0.2
    )
    yield Csv(columns, dialect), columns
    yield JsonLines(()), ()
    yield JsonLines(columns), columns
    some = source.choice([(), columns])
    yield Envelope(some, dialect, total=source.choice([None, 7])), some


class Difference(AssertionError):
    """The paths differ for this page."""


def compare(
    body: bytes, source: random.Random, columns: Sequence[str] | None = None
) -> Counter[str]:
    """Raises Difference unless the library cuts and writes a page like the Python code."""
    found, expected = _answer(read, body), _answer(read_uncut, body)
    if isinstance(found, str) or not isinstance(found.jobs, pages.Rows):
        _check(body, "answers", found, expected)
        return Counter(refused=1)
    if isinstance(expected, str):
        raise Difference(f"accepted, but not by the Python code: {body!r}")
    rows = [bytes(row) for row in expected.jobs]
    _check(body, "totals", found.total, expected.total)
    _check(body, "rows", [bytes(row) for row in found.jobs], rows)
    _check(body, "ids", list(row_ids.ids_of(found.jobs, read_id)), list(map(read_id, rows)))
    if columns is None:
        columns = source.choice([COLUMNS, COLUMNS, ("a",), ("b", "a"), ("IDa", "none")])
    some = sorted(source.sample(range(len(rows)), source.randint(0, len(rows))))
    for fmt, own in formats(source, columns):
        what = f"{type(fmt).__name__} of {own}"
        _check(body, what, output(fmt, found.jobs, own), output(fmt, expected.jobs, own))
        picked = [expected.jobs[place] for place in some]
        _check(body, what, output(fmt, found.jobs.pick(some), own), output(fmt, picked, own))
    return Counter(compared=1, rows=len(rows), odd=found.jobs.page.cut.odd_rows)


def _answer(reader: Any, body: bytes) -> Any:
    try:
        return reader(body)
    except SourceUntrue as error:
        return str(error)


def _check(body: bytes, what: str, found: Any, expected: Any) -> None:
    if found != expected:
        raise Difference(
            f"{what} differ for {body[:10_000]!r}:\n{str(found)[:10_000]}, but Python says\n"
            f"{str(expected)[:10_000]}"
        )


def compare_broken(body: bytes, source: random.Random) -> Counter[str]:
    """Compares the paths for a page that ends at any byte; most of these are refused."""
    counts = Counter[str]()
    for size in range(len(body)):
        cut = body[:size]
        if pages.cut(cut, ["jobs"], "_id") is None:
            counts["refused"] += 1
        else:
            counts.update(compare(cut, source))
    return counts


def fuzz(seconds: float, seed: int, first: int, corpora: Corpora | None) -> Counter[str]:
    """Compares the paths for random pages until the time is over."""
    counts = Counter[str]()
    end = time.monotonic() + seconds
    for number in itertools.count(first):
        if time.monotonic() >= end:
            break
        source = random.Random(f"{seed} {number}")
        columns: Sequence[str] | None = None
        if corpora is None or source.random() < 0.6:
            body = page(source)
        else:
            body, columns = corpora.page(source)
            if source.random() < 0.7:
                body = spoilt(source, body)
        try:
            counts.update(compare(body, source, columns))
            if number % 50 == 0:
                counts.update(compare_broken(body[:20_000], source))
        except BaseException:
            print(f"repeat with --seed {seed} --first {number}", flush=True)  # noqa: T201
            raise
    return counts


def lines_of(what: str) -> Iterable[bytes]:
    """Yields the rows of a file with one a line, or that many rows of the benchmark."""
    if what.isdigit():
        from tests.bench import upstream

        source, rows = upstream.Pages(), int(what)
        for number in range(1, -(-rows // upstream.PAGE) + 1):
            yield from source.lines(number, rows).split(b"\n")[:-1]
        return
    with (gzip.open if what.endswith(".gz") else open)(what, "rb") as file:
        for line in file:
            yield line.rstrip(b"\n")


def print_hashes(what: str, page_size: int = 200) -> bool:
    """Prints the hash of each file that each path makes of the rows; True if all are equal."""
    lines = iter(lines_of(what))
    first = next(lines)
    columns = list(msgspec.json.decode(first))
    makers: dict[str, Format] = {
        "csv": Csv(columns),
        "csv, guarded and joined": Csv(columns, Dialect(guard=True, joined=True)),
        "jsonl": JsonLines(()),
        "jsonl, every other column": JsonLines(columns[::2]),
    }
    hashes = {name: (sha256(), sha256()) for name in makers}
    counts = {name: (RowCounts(), RowCounts()) for name in makers}
    lines, rows = itertools.chain([first], lines), 0
    while some := list(itertools.islice(lines, page_size)):
        rows += len(some)
        cut: Any = read(page_of(some)).jobs
        uncut = read_uncut(page_of(some)).jobs
        assert isinstance(cut, pages.Rows)
        for name, fmt in makers.items():
            for jobs, hashed, counted in zip((cut, uncut), hashes[name], counts[name], strict=True):
                out = Buffer()
                fmt.encode(jobs, counted, State(), out)
                hashed.update(bytes(out))
    for name, (one, other) in hashes.items():
        is_equal = one.digest() == other.digest() and counts[name][0] == counts[name][1]
        print(f"{rows} rows, {name}: {one.hexdigest()} {other.hexdigest()} {is_equal}")  # noqa: T201
    return all(one.digest() == other.digest() for one, other in hashes.values())


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--seconds", type=float, default=60)
    arguments.add_argument("--seed", type=int, default=0)
    arguments.add_argument("--first", type=int, default=0)
    arguments.add_argument("--corpora", type=Path)
    arguments.add_argument("--library", type=Path)
    arguments.add_argument("--compare")
    given = arguments.parse_args()
    if given.compare:
        raise SystemExit(not print_hashes(given.compare))
    corpora = Corpora(given.corpora) if given.corpora else None
    found = (library.load(given.library), "") if given.library else library.find()
    assert found[0] is not None, found[1]
    with mock.patch.object(library, "find", return_value=found):
        print(dict(fuzz(given.seconds, given.seed, given.first, corpora)))  # noqa: T201


if __name__ == "__main__":
    main()
