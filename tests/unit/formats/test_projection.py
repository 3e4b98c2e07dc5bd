"""Rows reduced to columns that are parts of fields, or have new names."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.core.buffers import Buffer
from exporter.core.checkpoints import RowCounts
from exporter.core.columns import Picked, name_of, parse
from exporter.errors import SourceUntrue
from exporter.formats import registry
from exporter.formats.base import PLAIN, State
from exporter.formats.projection import Projection, projection

ROW = {
    "id": 7,
    "title": 'a "b"',
    "salary": {"min": 1.10, "max": None, "deep": {"x": [1, [2, {"y": "z"}]]}},
    "places": [{"city": "Köln"}, {"city": "Rome"}],
}


def project(row: Any, *texts: str) -> Any:
    raw = row if isinstance(row, bytes) else json.dumps(row).encode()
    counts = RowCounts()
    (found,) = Projection([parse(one) for one in texts])([msgspec.Raw(raw)], counts)
    return json.loads(bytes(found)), counts


def test_parts_and_new_names_become_fields_in_the_order_of_the_columns() -> None:
    # When
    found, counts = project(
        ROW,
        "places[1].city as city",
        "id",
        "salary.min",
        "salary.deep.x[1][1].y as y",
        "salary.max",
    )
    # Then
    assert list(found.items()) == [
        ("city", "Rome"), ("id", 7), ("salary.min", 1.1), ("y", "z"), ("salary.max", None),
    ]  # fmt: skip
    assert counts.unmapped_fields == {"title": 1}


@pytest.mark.parametrize(
    "text", ["places[2].city", "title.x", "title[0]", "salary[0]", "places.city", "none.a", "id.x"]
)
def test_a_part_that_a_row_does_not_have_is_absent(text: str) -> None:
    assert project(ROW, f"{text} as it")[0] == {}


def test_the_source_spelling_of_values_is_kept() -> None:
    # Given
    row = b'{"a": {"n": 1.10e3, "t": "\\u00fc", "o": {"k" : [1,  2]}}}'
    # When
    counts = RowCounts()
    columns = [parse(one) for one in ("a.n as n", "a.t as t", "a.o as o")]
    (found,) = Projection(columns)([msgspec.Raw(row)], counts)
    # Then
    assert bytes(found) == b'{"n":1.10e3,"t":"\\u00fc","o":{"k" : [1,  2]}}'


@pytest.mark.parametrize(
    "value", [b"NaN", b'"\\ud800"', b'"\xff"', b'"a\nb"', b"[" * 2000 + b"]" * 2000]
)
def test_rows_that_strict_readers_refuse_are_projected_too(value: bytes) -> None:
    # Given
    row = b'{"a": {"b": [0, {"c": %b}], "d": "ok"}, "e": %b}' % (value, value)
    # When
    counts = RowCounts()
    columns = [parse("a.b[1].c as c"), parse("a.d as d")]
    (found,) = Projection(columns)([msgspec.Raw(row)], counts)
    # Then
    assert bytes(found) == b'{"c":%b,"d":"ok"}' % value
    assert counts.unmapped_fields == {"e": 1}


def test_a_row_that_is_no_object_is_refused_and_nothing_is_counted() -> None:
    # Given
    counts = RowCounts()
    rows = [msgspec.Raw(b'{"x": 1}'), msgspec.Raw(b"[]")]
    # Then
    with pytest.raises(SourceUntrue, match="row 1"):
        Projection([Picked("b", ("a",))])(rows, counts)
    assert counts == RowCounts()


def test_plain_columns_need_no_projection() -> None:
    assert projection(["a", "b"]) is None
    assert projection([]) is None


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner),
    max_leaves=8,
)


@given(
    row=st.dictionaries(st.sampled_from("abc"), VALUES),
    steps=st.lists(st.sampled_from(["a", "b", "c", 0, 1]), max_size=3),
)
def test_each_part_is_what_plain_python_finds(row: dict[str, Any], steps: list[str | int]) -> None:
    # Given
    missing = object()
    wanted: Any = row.get("a", missing)
    for step in steps:
        is_there = (isinstance(wanted, list) and isinstance(step, int) and step < len(wanted)) or (
            isinstance(wanted, dict) and step in wanted
        )
        wanted = wanted[step] if is_there else missing
    # When
    raw = msgspec.Raw(json.dumps(row).encode())
    (found,) = Projection([Picked("it", ("a", *steps))])([raw], RowCounts())
    # Then
    assert json.loads(bytes(found)).get("it", missing) == wanted


@pytest.mark.parametrize("name", ["csv", "json", "json_envelope"])
def test_each_format_writes_the_projected_columns_under_their_names(name: str) -> None:
    # Given
    columns = [parse("salary.min as low"), parse("places[0].city as city"), "none"]
    names = [name_of(one) for one in columns]
    encoder, out = registry.make(name, PLAIN, names), Buffer()
    state = encoder.state_type()
    counts = RowCounts(absent_columns=list(names))
    # When
    rows = Projection(columns)([msgspec.Raw(json.dumps(ROW).encode())], counts)
    encoder.open(state, out)
    encoder.encode(rows, counts, state, out)
    state.rows = 1
    encoder.close(state, out)
    with out.view() as data:
        text = bytes(data).decode()
    # Then
    assert "low" in text
    assert "1.1" in text
    assert "Köln" in text or "K\\u00f6ln" in text
    assert counts.absent_columns == ["none"]
    assert counts.unmapped_fields == {"id": 1, "title": 1}
    assert isinstance(state, State)
