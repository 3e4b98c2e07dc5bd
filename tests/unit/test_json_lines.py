from __future__ import annotations

import json

import httpx
import pytest

from exporter.checkpoints import Tally
from exporter.formats.json import JsonLines


def encode(*rows: bytes, columns: tuple[str, ...] = ()) -> tuple[bytes, Tally]:
    tally = Tally()
    return JsonLines(columns).encode(rows, tally), tally


def test_a_file_without_rows_is_empty_because_clients_read_an_array_as_an_error() -> None:
    fmt = JsonLines()
    assert fmt.open() + fmt.encode([], Tally()) + fmt.close() == b""


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
    assert encode(row, b'{"z":1}', row) == (row + b'\n{"z":1}\n' + row + b"\n", Tally())


def test_a_row_printed_on_many_lines_is_put_on_one_without_changing_a_value() -> None:
    # Given
    row = b'{\r\n  "a": 1.10,\r\n  "b": ["x \\n y",\n\n 1e5 ],\r  "c": "  "\n}\n'

    # When
    page, tally = encode(b'{"z":1}', row)

    # Then
    assert page == b'{"z":1}\n{"a":1.10,"b":["x \\n y",1e5],"c":"  "}\n'
    assert tally == Tally()


def test_separators_at_which_a_client_would_cut_a_line_are_escaped() -> None:
    # Given
    row = {"\u2028key": "a\u2028b\u2029c\u0085d", "e": "é©¨…\u0385"}
    raw = json.dumps(row, ensure_ascii=False).encode()

    # When
    page, tally = encode(raw, raw)

    # Then: the reader of text lines in the official asynchronous client's transport
    assert [json.loads(line) for line in httpx.Response(200, content=page).iter_lines()] == [
        row
    ] * 2
    assert "é©¨…\u0385".encode() in page
    assert tally == Tally()


@pytest.mark.parametrize("columns", [(), ("a", "b")])
def test_nan_and_infinities_become_null_and_are_counted(columns: tuple[str, ...]) -> None:
    # When
    page, tally = encode(b'{"a":NaN,"b":[-Infinity,Infinity,"NaN"]}', columns=columns)

    # Then
    assert page == b'{"a":null,"b":[null,null,"NaN"]}\n'
    assert tally == Tally(nulled_numbers=3)


@pytest.mark.parametrize("columns", [(), ("a",)])
def test_bytes_that_are_not_utf8_are_replaced_and_counted(columns: tuple[str, ...]) -> None:
    # When
    page, tally = encode(b'{"a":"caf\xe9 \xe2\x80"}', columns=columns)

    # Then
    assert page == '{"a":"caf\ufffd \ufffd\ufffd"}\n'.encode()
    assert tally == Tally(replaced_characters=3)


def test_raw_control_characters_in_strings_are_escaped() -> None:
    assert encode(b'{"a":"x\ty\nz\x1c"}') == (b'{"a":"x\\u0009y\\u000az\\u001c"}\n', Tally())


def test_columns_choose_fields_and_their_order_and_leave_absent_ones_out() -> None:
    # Given
    rows = [b'{"a": 1.10 ,"b":null,"x":1}', b'{"b":[ 1 ]}', b'{"y":1}', b'{"b":1,"b":2}']

    # When
    page, tally = encode(*rows, columns=("b", "a", "b"))

    # Then
    assert page == b'{"b":null,"a":1.10}\n{"b":[ 1 ]}\n{}\n{"b":2}\n'
    assert tally == Tally(unmapped_fields={"x": 1, "y": 1})


def test_columns_of_a_row_that_the_strict_reader_refuses_are_chosen_alike() -> None:
    # When
    page, tally = encode(rb'{"x":"\ud800","a":"\udc00","b":1.10}', columns=("b", "a"))

    # Then
    assert page == rb'{"b":1.10,"a":"\udc00"}' + b"\n"
    assert tally == Tally(unmapped_fields={"x": 1})
