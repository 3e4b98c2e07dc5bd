"""Random pages of a source, sound and odd, and the outputs of both paths for a page.

Run as a program, it compares the paths for some seconds or hours:
`python -m tests.odd_pages --seconds 3600 --seed 7`. EXPORTER_NATIVE_LIBRARY names another library,
such as one with sanitizers.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from exporter.core.buffers import Buffer
from exporter.core.checkpoints import Row, RowCounts
from exporter.core.exports import Dialect
from exporter.errors import SourceUntrue
from exporter.formats.base import Format, State
from exporter.formats.csv import Csv
from exporter.formats.envelope import Envelope
from exporter.formats.json import JsonLines
from exporter.native import pages
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
    *(r"\u0061", r"\ud800", r"name\n", "\u2028", r"\u2028", "", r"back\\", r"tab\t"),
)
COLUMNS = ("a", "b", "c", "d", "a", 'qu"ote', "é", "x" * 16, "x" * 31, "\u2028", "back\\")
NOISE = b'{}[]:,"\\ 0-.eN\x00\x01\xff\xe2\x80\xc2\x85\xed\xa0au\n;='


class Answer(msgspec.Struct):
    jobs: list[msgspec.Raw]
    total: int


read_uncut = json_pages.python_reader(Answer, "jobs")
read_id = row_ids.reader("_id")


def page(source: random.Random) -> bytes:
    """Returns a page of up to twelve rows; a third of the pages is no sound JSON."""
    is_spaced = source.random() < 0.3
    rows = [_row(source, is_spaced=is_spaced) for _ in range(source.randint(0, 12))]
    if rows and source.random() < 0.03:
        rows[source.randrange(len(rows))] = source.choice(["[1]", "null", '"x"', "5"])
    between = source.choice([b",", b",", b" , ", b",\n"])
    parts = [row.encode("utf-8", "surrogatepass") for row in rows]
    body = b'{"jobs":[' + between.join(parts) + b'],"total":%d}' % len(parts)
    if source.random() < 0.25:
        body = _spoilt(source, body)
    return body if source.random() < 0.95 else body[: source.randrange(len(body) + 1)]


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


def _spoilt(source: random.Random, body: bytes) -> bytes:
    spoilt = bytearray(body)
    for _ in range(source.randint(1, 3)):
        place, kind = source.randrange(len(spoilt)), source.random()
        if kind < 0.4:
            spoilt[place] = source.choice(NOISE)
        elif kind < 0.7:
            del spoilt[place]
        else:
            spoilt.insert(place, source.choice(NOISE))
    return bytes(spoilt)


class Output(NamedTuple):
    """What a format makes of rows: bytes, or None if a row is refused, and counts."""

    data: bytes | None
    counts: RowCounts | None


def output(fmt: Format, rows: Sequence[Row], columns: Sequence[str]) -> Output:
    counts = RowCounts(absent_columns=list(dict.fromkeys(columns)) or None)
    out = Buffer(bytearray(b"before"))
    try:
        fmt.encode(rows, counts, State(), out)
    except SourceUntrue:
        assert bytes(out) == b"before"
        return Output(None, None)
    return Output(bytes(out), counts)


def formats(source: random.Random) -> list[tuple[Format, Sequence[str]]]:
    """Returns formats in random dialects, with their columns."""
    columns = source.choice([COLUMNS, COLUMNS, ("a",), ("b", "a")])
    dialect = Dialect(guard=source.random() < 0.6, joined=source.random() < 0.5)
    return [
        (Csv(columns, dialect), columns),
        (JsonLines(()), ()),
        (JsonLines(columns), columns),
        (Envelope(source.choice([(), columns])), ()),
    ]


class Difference(AssertionError):
    """The paths differ for this page."""


def compare(body: bytes, source: random.Random) -> Counter[str]:
    """Raises Difference unless the library cuts and writes a page like the Python code."""
    cut = pages.cut(body, ["jobs"], "_id")
    if cut is None:
        return Counter(refused=1)
    with_python = _without_library(body)
    if with_python is None:
        if _without_library(cut.rest) is None:
            return Counter(refused=1)
        raise Difference(f"accepted, but not by the Python code: {body!r}")
    rows = [bytes(row) for row in with_python.jobs]
    _check(body, "rows", [bytes(row) for row in cut.rows], rows)
    _check(body, "ids", list(row_ids.ids_of(cut.rows, read_id)), list(map(read_id, rows)))
    for fmt, columns in formats(source):
        what = f"{type(fmt).__name__} of {columns}"
        _check(body, what, output(fmt, cut.rows, columns), output(fmt, with_python.jobs, columns))
        some = sorted(source.sample(range(len(rows)), source.randint(0, len(rows))))
        picked = output(fmt, cut.rows.pick(some), columns)
        _check(
            body, what, picked, output(fmt, [with_python.jobs[place] for place in some], columns)
        )
    return Counter(compared=1, rows=len(rows), odd=cut.rows.page.cut.odd_rows)


def _without_library(body: bytes) -> Answer | None:
    try:
        return read_uncut(body)
    except SourceUntrue:
        return None


def _check(body: bytes, what: str, found: Any, expected: Any) -> None:
    if found != expected:
        raise Difference(f"{what} differ for {body!r}:\n{found!r}, but Python says\n{expected!r}")


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--seconds", type=float, default=60)
    arguments.add_argument("--seed", type=int, default=0)
    given = arguments.parse_args()
    source, counts = random.Random(given.seed), Counter[str]()
    end = time.monotonic() + given.seconds
    while time.monotonic() < end:
        counts.update(compare(page(source), source))
    print(dict(counts))  # noqa: T201


if __name__ == "__main__":
    main()
