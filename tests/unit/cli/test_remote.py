"""Commands count the rows of what they downloaded, and name the proxy of what does not answer."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer

from exporter.cli import exports
from exporter.cli.remote import ServiceError, count_rows, open_client


@pytest.mark.parametrize(
    ("format_", "content", "count"),
    [
        ("csv", b"", 0),
        ("csv", b"_id\r\n", 0),
        ("csv", b'_id,text\r\n1,"two\r\nlines, ""quoted"""\r\n2,\r\n', 2),
        ("csv", b"_id\r\n" + b'"' + b"x" * 200_000 + b'"\r\n', 1),
        ("json", b"", 0),
        ("json", b'{"a":"\xe2\x80\xa8"}\n{"a":1}\n', 2),
        ("json_envelope", b'{"exported_at":null,"jobs":[\n],"total":0}\n', 0),
        (
            "json_envelope",
            b'{"exported_at":null,"jobs":[\n{"a":["]"]},\n{"a":1}\n],"total":2}\n',
            2,
        ),
        ("json_envelope", b'{"exported_at":null,"total":1,"jobs":[\n{"a":1}\n]}\n', 1),
    ],
)
def test_rows_of_a_file_are_counted_as_a_reader_sees_them(
    tmp_path: Path, format_: str, content: bytes, count: int
) -> None:
    # Given
    file = tmp_path / "file"
    file.write_bytes(content)
    # When
    found = count_rows(file, format_)
    # Then
    assert found == count


def test_an_envelope_that_was_cut_off_is_not_counted(tmp_path: Path) -> None:
    # Given
    file = tmp_path / "file"
    file.write_bytes(b'{"exported_at":null,"jobs":[\n{"a":1},\n{"a":2}')
    # When / Then
    with pytest.raises(ServiceError, match="ends before its closing line"):
        count_rows(file, "json_envelope")


def test_a_file_in_a_format_of_a_later_version_is_not_counted(tmp_path: Path) -> None:
    with pytest.raises(ServiceError, match="older than the service"):
        count_rows(tmp_path / "file", "parquet")


def test_what_can_be_no_address_is_refused() -> None:
    # When / Then
    address = pytest.raises(ServiceError, match="'http://h:port' is not an address")
    with address, open_client("http://h:port", "exp_1"):
        pass


@pytest.mark.parametrize(
    ("query", "filters", "search"),
    [
        ("{}", [], {}),
        (
            '{"a": 1}',
            ["b=2", "c=x y", "d=true", "e=null", 'f={"g": 1}'],
            {"a": 1, "b": 2, "c": "x y", "d": True, "e": None, "f": {"g": 1}},
        ),
        ("{}", ["titles=cook", "titles=baker"], {"titles": ["cook", "baker"]}),
        ("{}", ["titles[]=cook"], {"titles": ["cook"]}),
        ("{}", ["sum=1=2"], {"sum": "1=2"}),
        ("{}", ["empty="], {"empty": ""}),
    ],
)
def test_filters_are_added_to_the_query(
    query: str, filters: list[str], search: dict[str, object]
) -> None:
    assert exports.search(query, filters) == search


@pytest.mark.parametrize(
    ("query", "filters", "said"),
    [
        ("{", [], "--query is not JSON"),
        ("[]", ["a=1"], "not a JSON object"),
        ("{}", ["a"], "write NAME=VALUE"),
        ("{}", ["=1"], "write NAME=VALUE"),
        ('{"a": 1}', ["a=2"], "--query has a, too"),
    ],
)
def test_a_filter_that_cannot_be_added_is_named(query: str, filters: list[str], said: str) -> None:
    with pytest.raises(typer.BadParameter, match=said):
        exports.search(query, filters)
