"""Columns as callers describe them: fields, parts of fields, and new names."""

from __future__ import annotations

import pytest

from exporter.core.columns import Chosen, Picked, is_type, parse, split_type, types_of


@pytest.mark.parametrize(
    ("text", "column"),
    [
        ("title", "title"),
        ("salary_range.min", Picked("salary_range.min", ("salary_range", "min"))),
        ("locations[0].city", Picked("locations[0].city", ("locations", 0, "city"))),
        ("a.b[10][2].c as d e", Picked("d e", ("a", "b", 10, 2, "c"))),
        ("title as job", Picked("job", ("title",))),
        ("a b as c", Picked("c", ("a b",))),
        ("as", "as"),
        ("title as title", Picked("title", ("title",))),
    ],
)
def test_a_description_is_read(text: str, column: object) -> None:
    assert parse(text) == column


@pytest.mark.parametrize("text", [".a", "[0]", "a.", "a..b", "a[x]", "a[0", "a]0[", "a[-1]"])
def test_what_is_no_path_is_refused_with_the_text(text: str) -> None:
    with pytest.raises(ValueError, match=r"path|begin"):
        parse(text)


def test_a_field_whose_name_looks_like_a_path_is_that_field() -> None:
    known = ["a.b", "x as y"]
    assert parse("a.b", known) == "a.b"
    assert parse("a.b as c", known) == Picked("c", ("a.b",))
    assert parse("x as y", known) == "x as y"


def test_a_path_of_too_many_steps_is_refused() -> None:
    with pytest.raises(ValueError, match="at most"):
        parse("a" + ".b" * 20)


@pytest.mark.parametrize(
    ("kind", "right"),
    [("decimal(18,2)", True), ("decimal", True), ("decimal(2,3)", False), ("decimal(39,2)", False)],
)
def test_digits_of_an_amount_must_be_possible(kind: str, right: bool) -> None:
    assert is_type(kind) is right


def test_a_colon_without_a_type_is_part_of_the_name() -> None:
    assert split_type("urn:li:text") == ("urn:li", "text")
    assert split_type("urn:li") == ("urn:li", "text")
    assert split_type(":int") == (":int", "text")


def test_the_types_of_a_file_are_those_of_whole_fields() -> None:
    # Given
    gone, low = Picked("gone", ("expired",)), Picked("low", ("salary", "min"))
    columns: list[Chosen] = ["expired", "title", gone, low]
    # Then
    assert types_of(columns, {"expired": "flag", "salary": "json"}) == {
        "expired": "flag",
        "gone": "flag",
    }
