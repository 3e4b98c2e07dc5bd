"""Tests that the fast CSV lines equal the lines of the csv and json modules, cell by cell."""

from __future__ import annotations

import csv
import io
import json
import re

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from exporter.core.checkpoints import RowCounts
from exporter.core.exports import Dialect
from exporter.formats.csv import Csv
from tests import fast
from tests.encoding import encode

COLUMNS = ("a", "b", "c", "d", "a")
FORMULA = re.compile(r"[\t\r]|[ \t\n\r\v\f]*[=+\-@＝＋－＠]")
INNER = re.compile(r"([;\t\n\r][; \t\n\r\v\f\"]*+)(?=[=+\-@＝＋－＠])")
NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")

TEXTS = (
    *('"plain"', '""', '"a, b"', r'"say \"hi\""', r'"two\nlines"', r'"\r"', '"é ’ 🚀"', '"50%"'),
    *(
        '"=1+1"',
        '"-5"',
        r'" \t@x"',
        '"＝1"',
        r'"\ud800"',
        '"\u2028\x85"',
        r'"back\\slash"',
        '"{v0}"',
        '"x;=1+1"',
        r'"x\t-1a"',
        '"plain; text"',
        r'"say\n\"@you\""',
    ),
    *(
        json.dumps("long; " * 60),
        json.dumps("long, " * 60 + ";=1"),
        json.dumps("x" * 300),
        json.dumps("=" + "y" * 300),
    ),
    json.dumps('é’ "long" ' * 40, ensure_ascii=False),
)
NUMBERS = ("0", "-0", "1.10", "1E+05", "18446744073709551616", "9" * 400)
WORDS = ("null", "true", "false", "NaN", "-Infinity")
LISTS = (
    *(
        "[]",
        '["a"]',
        '["a","b, c"]',
        r'["say \"hi\""]',
        r'["\ud800"]',
        '["=1"]',
        '["a;=1"]',
        '["a;", "=1"]',
        "[1.10,null,true]",
    ),
    *('[ "a" ,\n "b" ]', '[{"k":\r[1, 2]}]', "[" * 300 + "]" * 300, "[NaN]", '["é"]', '[""]'),
)
OBJECTS = (
    "{}",
    '{"k":"v"}',
    '{"k": "v;;+1"}',
    '{"k": [1,\n 2.50]}',
    '{"k":"é, \\n"}',
    '{"n":18446744073709551616}',
)
VALUES = (*TEXTS, *NUMBERS, *WORDS, *LISTS, *OBJECTS)


def column(values: tuple[str, ...]) -> st.SearchStrategy[list[str]]:
    """Generates the values of one field: mostly of one kind, sometimes of another."""
    return st.tuples(
        st.lists(st.sampled_from(values), min_size=1, max_size=3),
        st.lists(st.sampled_from([*VALUES, ""]), max_size=2),
    ).map(lambda kinds: kinds[0] * 3 + kinds[1])


columns = st.one_of([column(kind) for kind in (TEXTS, NUMBERS, WORDS, LISTS, OBJECTS, VALUES)])


@st.composite
def sources(draw: st.DrawFn) -> list[bytes]:
    """Generates rows of one source; an empty token means that the field is absent."""
    fields = {name: draw(columns) for name in ("a", "b", "c", "d", "beside")}
    count = draw(st.integers(1, 12))
    between = draw(st.sampled_from([",", " , ", ",\n"]))
    found = []
    for place in range(count):
        members = [
            f'"{name}":{token}'
            for name, tokens in fields.items()
            if (token := tokens[place % len(tokens)])
        ]
        # Sometimes a field is repeated.
        found.append(f"{{{between.join([*members, *members[: place % 5 == 4]])}}}".encode())
    return found


class Oracle:
    """Writes the cells of a row with the standard library only, from the source's own tokens."""

    def __init__(self, *, guard: bool, joined: bool) -> None:
        self.guard, self.joined = guard, joined
        self.row_counts = RowCounts()

    def row(self, raw: bytes) -> list[str]:
        fields = tokens_of(raw.decode())
        if "beside" in fields:
            counts = self.row_counts.unmapped_fields
            counts["beside"] = counts.get("beside", 0) + 1
        return [self.cell(fields.get(name, "null")) for name in COLUMNS]

    def cell(self, token: str) -> str:
        value = json.loads(token)
        if value is None:
            return ""
        if self.joined and isinstance(value, list):
            return self.text("; ".join(map(self.shown, elements_of(token))))
        if isinstance(value, str):
            return self.text(value)
        plain = unbroken(token)
        guarded = self.inner(plain) if self.guard and isinstance(value, list | dict) else plain
        self.row_counts.guarded_cells += guarded != plain
        return guarded

    def inner(self, value: str) -> str:
        """Guards after separators; no token of these tests has a number or a list mark there."""
        return INNER.sub(r"\g<1>'", value)

    def shown(self, token: str) -> str:
        value = json.loads(token)
        return "" if value is None else value if isinstance(value, str) else unbroken(token)

    def text(self, value: str) -> str:
        whole = value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        self.row_counts.replaced_characters += sum("\ud800" <= char <= "\udfff" for char in value)
        if not self.guard:
            return whole
        guarded = self.inner(whole)
        if FORMULA.match(guarded) and not NUMBER.fullmatch(value):
            guarded = f"'{guarded}"
        self.row_counts.guarded_cells += guarded != whole
        return guarded


def unbroken(token: str) -> str:
    """Returns the token without whitespace around line breaks.

    No token of these tests has a line break inside a string.
    """
    return re.sub(r"[ \t]*[\r\n]\s*", "", token)


def tokens_of(source: str) -> dict[str, str]:
    """Returns the JSON text of each member of an object, by the standard library's scanner."""
    found: dict[str, str] = {}
    decode = json.JSONDecoder().raw_decode
    at = 1
    while (start := source.find('"', at)) >= 0:
        name, at = decode(source, start)
        _, end = decode(source, at + 1)
        found[name] = source[at + 1 : end]
        at = end
    return found


def elements_of(source: str) -> list[str]:
    found: list[str] = []
    decode = json.JSONDecoder().raw_decode
    at = 1
    while True:
        while source[at] in " ,\r\n":
            at += 1
        if source[at] == "]":
            return found
        _, end = decode(source, at)
        found.append(source[at:end])
        at = end


@settings(
    max_examples=fast.examples(120), deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
@given(rows=sources(), guard=st.booleans(), joined=st.booleans())
def test_every_cell_equals_the_cell_of_the_standard_library_in_every_dialect(
    rows: list[bytes], guard: bool, joined: bool
) -> None:
    # Given
    fmt, oracle, row_counts = (
        Csv(COLUMNS, Dialect(guard=guard, joined=joined)),
        Oracle(guard=guard, joined=joined),
        RowCounts(),
    )
    expected = [oracle.row(row) for row in rows] * 5
    for name in oracle.row_counts.unmapped_fields:
        oracle.row_counts.unmapped_fields[name] *= 5
    oracle.row_counts.guarded_cells *= 5
    oracle.row_counts.replaced_characters *= 5

    # When: often enough that every kind of field has been learned
    text = b"".join(encode(fmt, rows, row_counts) for _ in range(5)).decode()

    # Then
    assert list(csv.reader(io.StringIO(text, newline=""), strict=True)) == expected
    assert row_counts == oracle.row_counts


@settings(
    max_examples=fast.examples(120), deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
@given(rows=sources(), guard=st.booleans(), joined=st.booleans())
def test_the_bytes_do_not_depend_on_the_learned_kinds(
    rows: list[bytes], guard: bool, joined: bool
) -> None:
    # Given
    row_counts, alone = RowCounts(), RowCounts()
    dialect = Dialect(guard=guard, joined=joined)
    fmt = Csv(COLUMNS, dialect)

    # When
    learned = [encode(fmt, rows, row_counts) for _ in range(5)]

    # Then: a new encoder takes the slow path for each row
    fresh = b"".join(encode(Csv(COLUMNS, dialect), [r], alone) for r in rows)
    assert learned == [fresh] * 5
    assert row_counts.guarded_cells == 5 * alone.guarded_cells
    assert row_counts.replaced_characters == 5 * alone.replaced_characters
    assert row_counts.unmapped_fields == {
        n: 5 * count for n, count in alone.unmapped_fields.items()
    }
