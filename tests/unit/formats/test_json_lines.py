"""Tests of the JSON Lines format."""

from __future__ import annotations

import json

import httpx
import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from exporter.core.checkpoints import RowCounts
from exporter.errors import SourceUntrue
from exporter.formats.json import JsonLines
from exporter.sources.http.json_pages import python_reader as reader
from tests import encoding, fast


def encode(*rows: bytes, columns: tuple[str, ...] = ()) -> tuple[bytes, RowCounts]:
    row_counts = RowCounts()
    return encoding.encode(JsonLines(columns), rows, row_counts), row_counts


def test_a_file_without_rows_is_empty_because_clients_read_an_array_as_an_error() -> None:
    assert encoding.file_of(JsonLines(), [[]]) == b""


@pytest.mark.parametrize(
    "row",
    [
        b"{}",
        b'{ "n" : 1.10, "m": 1e5,"k":-0 ,"big":123456789012345678901234567890}',
        b'{"a":"x","a":"y"}',
        rb'{"a":"\u00e9\/\n\u2028"}',
        '{"a":"é 😀"}'.encode(),
        b'{"a":"\x7f"}',
        rb'{"lone":"\ud800", "b" : 1}',
        b'{"deep":' + b"[" * 300 + b"]" * 300 + b"}",
        b'{"deep":' + b"[" * 30_000 + b"]" * 30_000 + b"}",
        b'{"long":' + b"9" * 5000 + b"}",
        b'{"text":"NaN, Infinity"}',
    ],
)
def test_a_row_is_passed_on_byte_for_byte(row: bytes) -> None:
    assert encode(row, b'{"z":1}', row) == (row + b'\n{"z":1}\n' + row + b"\n", RowCounts())


def test_a_row_on_several_lines_is_written_on_one_line_with_unchanged_values() -> None:
    # Given
    row = b'{\r\n  "a": 1.10,\r\n  "b": ["x \\n y",\n\n 1e5 ],\r  "c": "  "\n}\n'

    # When
    page, row_counts = encode(b'{"z":1}', row)

    # Then
    assert page == b'{"z":1}\n{"a":1.10,"b":["x \\n y",1e5],"c":"  "}\n'
    assert row_counts == RowCounts()


@pytest.mark.parametrize("columns", [(), ("_id", "a")])
@pytest.mark.parametrize("blank", ["\n", "\r\n  ", ""])
@pytest.mark.parametrize(
    ("odd", "written"),
    [
        (rb'"\ud800"', rb'"\ud800"'),
        (b"NaN", b"null"),
        (b'"x\ny"', rb'"x\u000ay"'),
        (b"[" * 30_000 + b"]" * 30_000, None),
        (b'"\xff"', '"\ufffd"'.encode()),
    ],
)
def test_a_row_with_an_odd_value_has_the_form_of_the_row_with_a_sound_one(
    odd: bytes, written: bytes | None, blank: str, columns: tuple[str, ...]
) -> None:
    # Given: a row on one line or on several, with blanks at its values and inside a list
    row = b'{"_id" : [1 , "2"],%b"a" : %b}' % (blank.encode(), b"%b")

    # When
    (sound, _), (page, _) = (encode(row % value, columns=columns) for value in (b'"sound"', odd))

    # Then
    assert page == sound.replace(b'"sound"', odd if written is None else written)
    assert columns or (b" " in page) is (not blank)


def test_separators_at_which_a_client_would_cut_a_line_are_escaped() -> None:
    # Given
    row = {"\u2028key": "a\u2028b\u2029c\u0085d", "e": "é©¨…\u0385"}
    raw = json.dumps(row, ensure_ascii=False).encode()

    # When
    page, row_counts = encode(raw, raw)

    # Then: as the line reader of the official asynchronous client's transport splits the text
    assert [json.loads(line) for line in httpx.Response(200, content=page).iter_lines()] == [
        row
    ] * 2
    assert "é©¨…\u0385".encode() in page
    assert row_counts == RowCounts()


@pytest.mark.parametrize("columns", [(), ("a", "b")])
def test_nan_and_infinities_become_null_and_are_counted(columns: tuple[str, ...]) -> None:
    # When
    page, row_counts = encode(b'{"a":NaN,"b":[-Infinity,Infinity,"NaN"]}', columns=columns)

    # Then
    assert page == b'{"a":null,"b":[null,null,"NaN"]}\n'
    assert row_counts == RowCounts(nulled_numbers=3)


@pytest.mark.parametrize("columns", [(), ("a",)])
def test_bytes_that_are_not_utf8_are_replaced_and_counted(columns: tuple[str, ...]) -> None:
    # When
    page, row_counts = encode(b'{"a":"caf\xe9 \xe2\x80"}', columns=columns)

    # Then
    assert page == '{"a":"caf\ufffd \ufffd\ufffd"}\n'.encode()
    assert row_counts == RowCounts(replaced_characters=3)


def test_raw_control_characters_in_strings_are_escaped() -> None:
    assert encode(b'{"a":"x\ty\nz\x1c"}') == (b'{"a":"x\\u0009y\\u000az\\u001c"}\n', RowCounts())


def test_columns_choose_fields_and_their_order_and_leave_absent_ones_out() -> None:
    # Given
    rows = [b'{"a": 1.10 ,"b":null,"x":1}', b'{"b":[ 1 ]}', b'{"y":1}', b'{"b":1,"b":2}']

    # When
    page, row_counts = encode(*rows, columns=("b", "a", "b"))

    # Then
    assert page == b'{"b":null,"a":1.10}\n{"b":[ 1 ]}\n{}\n{"b":2}\n'
    assert row_counts == RowCounts(unmapped_fields={"x": 1, "y": 1})


def test_columns_are_also_selected_from_a_row_that_the_strict_reader_refuses() -> None:
    # When
    page, row_counts = encode(rb'{"x":"\ud800","a":"\udc00","b":1.10}', columns=("b", "a"))

    # Then
    assert page == rb'{"b":1.10,"a":"\udc00"}' + b"\n"
    assert row_counts == RowCounts(unmapped_fields={"x": 1})


def test_a_row_repaired_after_its_columns_were_selected_is_counted_once() -> None:
    # Given: bytes that are not UTF-8 are noticed only when the line is complete
    row = b'{"a":"caf\xe9","x":1,"y":2}'

    # When
    page, row_counts = encode(row, row, columns=("a",))

    # Then
    assert page == '{"a":"caf\ufffd"}\n'.encode() * 2
    assert row_counts == RowCounts(replaced_characters=2, unmapped_fields={"x": 2, "y": 2})


def test_columns_are_picked_from_rows_of_any_mixture_of_fields() -> None:
    # Given: names with characters that have a meaning in a format template
    rows = [b'{"%s":1,"b":2,"x":0}', b'{"b":2,"%s":1}', b'{"x":0,"%s":1,"b":2}', b'{"y":{}}', b"{}"]

    # When
    page, row_counts = encode(*rows, *rows, columns=("%s", "b"))

    # Then
    assert page == (b'{"%s":1,"b":2}\n' * 3 + b"{}\n" * 2) * 2
    assert row_counts == RowCounts(unmapped_fields={"x": 4, "y": 2})


characters = st.sampled_from(
    [
        *("a", "é", "’", "🚀", "\u2028", "\u2029", "\x85", "\ud800", "NaN", "Ȩ", "ꀨ", "\u2027"),
        *(
            r"\\",
            r"\"",
            r"\n",
            r"\u2028",
            r"\ud83d\ude00",
            r"\udc00",
            "\x1c",
            "\n",
            "\r",
            "{",
            ", ",
        ),
    ]
)
texts = st.lists(characters, max_size=5).map(lambda found: f'"{"".join(found)}"')
values = texts | st.sampled_from(["1.10", "-0", "[1,\n 2]", "NaN", "18446744073709551616", "null"])


@settings(
    max_examples=fast.examples(200), deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
@given(
    rows=st.lists(st.lists(values, max_size=3), min_size=1, max_size=4),
    between=st.sampled_from([",", " ,\r\n"]),
    columns=st.sampled_from([(), ("f1", "f0")]),
)
def test_a_row_is_one_line_to_every_reader_and_reads_as_it_did(
    rows: list[list[str]], between: str, columns: tuple[str, ...]
) -> None:
    # Given
    sources = [
        "{" + between.join(f'"f{place}":{value}' for place, value in enumerate(row)) + "}"
        for row in rows
    ]
    raw = [source.encode(errors="surrogatepass") for source in sources]

    # When
    page, _ = encode(*raw, columns=columns)

    # Then: a lone surrogate written as bytes is three bytes that are not UTF-8
    text = page.decode()
    assert text.count("\n") == len(text.splitlines()) == len(rows)
    for line, source in zip(text.splitlines(), sources, strict=True):
        sent = read(source.replace("\ud800", "\ufffd" * 3))
        assert read(line) == {n: v for n, v in sent.items() if not columns or n in columns}


def read(source: str) -> dict[str, object]:
    """Returns the parsed object with numbers as text and NaN as None."""
    found: dict[str, object] = json.loads(
        source, strict=False, parse_int=str, parse_float=str, parse_constant=lambda _: None
    )
    return found


def test_a_slice_of_a_page_is_written_only_if_it_is_an_object() -> None:
    # Given
    rows = msgspec.json.decode(b'[{"a":1}, [1]]', type=list[msgspec.Raw])

    # When, Then
    assert encoding.encode(JsonLines(), rows[:1]) == b'{"a":1}\n'
    with pytest.raises(SourceUntrue, match="row 1"):
        encoding.encode(JsonLines(), rows)


def test_a_page_that_only_the_slow_scanner_reads_is_repaired_row_by_row() -> None:
    # Given
    class Envelope(msgspec.Struct):
        jobs: list[msgspec.Raw]

    page = reader(Envelope, "jobs")(b'{"jobs": [{"a": NaN}, {"b": "x\ty"}, {"c":\n2}]}')
    row_counts = RowCounts()

    # When
    lines = encoding.encode(JsonLines(), page.jobs, row_counts).split(b"\n")

    # Then
    assert [json.loads(line) for line in lines[:3]] == [{"a": None}, {"b": "x\ty"}, {"c": 2}]
    assert row_counts.nulled_numbers == 1
