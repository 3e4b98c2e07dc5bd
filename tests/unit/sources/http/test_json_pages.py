"""Slicing of pages into rows: two readers, one result, unchanged bytes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from exporter.errors import SourceUntrue
from exporter.sources.http.json_pages import python_reader as reader
from tests import fast


class Envelope(msgspec.Struct):
    jobs: list[msgspec.Raw]
    total_count: int
    page: int | None = None


read = reader(Envelope, "jobs")
quick = msgspec.json.Decoder(Envelope)

BOM = b"\xef\xbb\xbf"
SLOW = b'"odd":NaN'
"""A member that only the slow reader accepts; pages without this member use the fast reader."""


def rows(body: bytes) -> list[bytes]:
    return [bytes(row) for row in read(body).jobs]


def page(*found: bytes, members: Sequence[bytes] = (b'"total_count":3',)) -> bytes:
    return b"{" + b",".join([*members, b'"jobs":[' + b",".join(found) + b"]"]) + b"}"


def _joined(blanks: Sequence[bytes], *pieces: bytes) -> bytes:
    """Joins the pieces with white space between each two."""
    return b"".join(
        piece + blanks[place % len(blanks)] for place, piece in enumerate(pieces)
    ).removesuffix(blanks[(len(pieces) - 1) % len(blanks)])


blanks = st.lists(st.sampled_from([b"", b" ", b"\n", b"\t\r\n  "]), min_size=1, max_size=3)
characters = st.sampled_from(
    [
        *(b"a", b" ", b"\xc3\xa9", b"\xf0\x9f\x8c\x99", b"\xe2\x80\xa8", b"[", b"}", b",", b":"),
        *(b'\\"', b"\\\\", b"\\/", b"\\n", b"\\u0041", b"\\ud83c\\udf19"),
        # Halves of surrogate pairs, control characters, DEL and NUL.
        *(b"\\ud800", b"\\udc00", b"\x00", b"\t", b"\n", b"\x1f", b"\x7f"),
        # Invalid UTF-8: Latin-1, a truncated sequence, an overlong sequence, an encoded surrogate.
        *(b"\xe9", b"\xe2\x80", b"\xc0\x80", b"\xed\xa0\x80"),
    ]
)
strings = st.lists(characters, max_size=6).map(lambda found: b'"' + b"".join(found) + b'"')
numbers = st.sampled_from(
    [b"0", b"-0.0", b"1E+2", b"1.10", b"18446744073709551616", b"-" + b"9" * 5_000]
)
scalars = strings | numbers | st.sampled_from([b"null", b"true", b"false"])


@st.composite
def containers(draw: st.DrawFn, inner: st.SearchStrategy[bytes]) -> bytes:
    between = draw(blanks)
    values = draw(st.lists(inner, max_size=3))
    if draw(st.booleans()):
        return _joined(between, b"[", *_listed(values), b"]")
    # Few names, so that some occur twice.
    names = draw(
        st.lists(
            st.sampled_from([b'"a"', b'"\xc3\xa9"', b'""', b'"jobs"']),
            min_size=len(values),
            max_size=len(values),
        )
    )
    members = [
        _joined(between, name, b":", value) for name, value in zip(names, values, strict=True)
    ]
    return _joined(between, b"{", *_listed(members), b"}")


def _listed(values: Sequence[bytes]) -> list[bytes]:
    return [piece for value in values for piece in (b",", value)][1:]


values = st.recursive(scalars, containers, max_leaves=8)


@given(st.lists(values, max_size=4), values, blanks, st.booleans(), st.booleans())
@settings(max_examples=fast.examples(150), deadline=None)
def test_both_readers_give_every_row_byte_for_byte(
    found: list[bytes], other: bytes, between: list[bytes], first: bool, bom: bool
) -> None:
    # Given
    total = b'"total_count":' + str(len(found)).encode()
    jobs = _joined(between, b'"jobs"', b":", b"[", *_listed(found), b"]")
    members = [jobs, total] if first else [total, jobs]
    plain = _joined(between, b"{", *_listed([b'"more":' + other, *members]), b"}")
    odd = _joined(between, b"{", *_listed([*members, SLOW]), b"}")
    with pytest.raises(msgspec.DecodeError):
        quick.decode(odd)
    # When
    one, two = read(BOM * bom + plain), read(BOM * bom + odd)
    # Then
    assert [bytes(row) for row in one.jobs] == found
    assert [bytes(row) for row in two.jobs] == found
    assert one.total_count == two.total_count == len(found)


@pytest.mark.parametrize(
    "row",
    [
        b'{"a":NaN,"b":-Infinity,"c":Infinity}',
        b'{"a":NaN,"b":' + b"1" * 5_000 + b"}",
        b'{"a":' + b"[" * 300 + b"NaN" + b"]" * 300 + b"}",
        b'{"a":' + b"[" * 5_000 + b'"]}\\""' + b"]" * 5_000 + b"}",
        b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
        b'{"a":"raw\x01control","b":NaN}',
        b'{"a":NaN,"\xff":"\xfe"}',
    ],
    ids=["NaN", "digits", "nested", "very nested", "nested objects", "control", "bytes"],
)
def test_rows_that_a_strict_reader_refuses_are_cut_out_whole(row: bytes) -> None:
    # Given
    body = page(b'{"_id":"1"}', row, b'{"_id":"3"}')
    # When
    found = rows(body)
    # Then
    assert found == [b'{"_id":"1"}', row, b'{"_id":"3"}']


@pytest.mark.parametrize("extra", [[], [SLOW]], ids=["quick", "slow"])
def test_of_equal_names_both_readers_take_the_last(extra: list[bytes]) -> None:
    # Given
    body = page(b"2", members=[*extra, b'"jobs":[1]', b'"total_count":7', b'"total_count":8'])
    # When
    found = read(body)
    # Then
    assert ([bytes(row) for row in found.jobs], found.total_count) == ([b"2"], 8)


def test_members_of_the_envelope_that_nobody_asks_for_do_no_harm() -> None:
    # Given
    odd = [b'"total_count":1', b'"\\ud800":1', b'"digits":' + b"1" * 5_000, b'"\xff":[NaN]']
    # When
    found = rows(page(b"{}", members=odd))
    # Then
    assert found == [b"{}"]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "truncated"),
        (b"  ", "truncated"),
        (b"<html>Back soon</html>", "malformed"),
        (b"null", "Expected `object`, got `null`"),
        (b"[]", "Expected `object`, got `array`"),
        (b'"jobs"', "Expected `object`, got `str`"),
        (b'{"detail":"no"}', "missing required field `jobs`"),
        (page(b"{}", members=[]), "missing required field `total_count`"),
        (page(b"{}", members=[SLOW]), "missing required field `total_count`"),
        (b'{"jobs":null,"total_count":0}', "Expected `array`, got `null` - at `$.jobs`"),
        (b'{"jobs":{},"total_count":0}', "Expected `array`, got `object` - at `$.jobs`"),
        (b'{"jobs":[],"total_count":"3"}', "Expected `int`, got `str` - at `$.total_count`"),
        (b'{"jobs":[NaN],"total_count":"3"}', "Expected `int`, got `str` - at `$.total_count`"),
        (b'{"jobs":[],"total_count":NaN}', "Expected `int`, got `float` - at `$.total_count`"),
        (b'{"jobs":[],"total_count":null}', "Expected `int`, got `null` - at `$.total_count`"),
        (b'{"jobs":[{}],"total_count":1', "truncated"),
        (b'{"jobs":[{},],"total_count":1}', "malformed"),
        (b'{"jobs":[{} {}],"total_count":1}', "malformed"),
        (b'{"jobs":[NaN,],"total_count":1}', "malformed"),
        (b'{"jobs":[NaN] "total_count":1}', "malformed"),
        (b'{"jobs":[NaN],"total_count":1,}', "malformed"),
        (b'{"jobs":[NaN],"total_count":1}{}', "malformed"),
        (b'{,"jobs":[NaN],"total_count":1}', "malformed"),
        (b'{[1]:2,"jobs":[],"total_count":1}', "must be strings"),
        (b'{1:2,"jobs":[],"total_count":1}', "must be strings"),
        (b'{"jobs":[{"a":undefined}],"total_count":1}', "malformed"),
        (page(b"{}") + b"\x00", "trailing characters"),
        (page(b"{}").decode().encode("utf-16"), "malformed"),
    ],
)
def test_a_body_of_another_shape_is_refused_and_described(body: bytes, said: str) -> None:
    # When
    with pytest.raises(SourceUntrue) as refused:
        read(body)
    # Then
    assert "not the requested page" in str(refused.value)
    assert said in str(refused.value)


def test_a_body_that_opens_lists_without_end_is_refused() -> None:
    """Given 100,000 open lists, then they are refused whether Python's stack holds them or not."""
    with pytest.raises(SourceUntrue, match=r"not the requested page \(.*(recursion|truncated)"):
        read(b'{"jobs":[' + b"[" * 100_000)


@given(st.binary(max_size=40) | st.lists(characters, max_size=20).map(b"".join))
@example(b'{"jobs":[{"\\ud8')
@settings(deadline=None)
def test_no_body_breaks_its_reader(noise: bytes) -> None:
    for body in (noise, page(noise), page(noise, members=[SLOW])):
        # When
        try:
            found = rows(body)
        except SourceUntrue:
            continue
        # Then
        assert all(row in body for row in found)


CORPORA = os.environ.get("EXPORTER_TEST_CORPORA")


@pytest.mark.skipif(not CORPORA, reason="EXPORTER_TEST_CORPORA names no folder of test files")
def test_a_suite_of_json_files_is_cut_as_it_says() -> None:
    # Given: y_ files are valid JSON, n_ files are invalid, readers may accept or refuse i_ files
    files = sorted(Path(CORPORA or "").glob("**/JSONTestSuite/test_parsing/*.json"))
    assert len(files) > 300
    for file in files:
        value = file.read_bytes()
        for members in ([b'"total_count":1'], [b'"total_count":1', SLOW]):
            # When
            try:
                found = rows(page(value, members=members))
            except SourceUntrue:
                # Then
                assert not file.name.startswith("y_"), file.name
                continue
            # Then
            if not file.name.startswith("n_"):
                assert found == [value.strip(b" \t\r\n")], file.name
