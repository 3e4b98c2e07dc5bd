"""A page made to break its reader gives the output of the Python code, or is left to that code."""

from __future__ import annotations

import random
import tracemalloc
from collections.abc import Sequence

import pytest

from exporter.core.buffers import Buffer
from exporter.core.checkpoints import RowCounts
from exporter.native import library, pages, writers
from exporter.run import row_ids
from tests import odd_pages

pytestmark = pytest.mark.skipif(library.find()[0] is None, reason=library.find()[1])

SHORT = ("a", "b")
MANY = [f"f{number % 700}" for number in range(1_000)]
A_MILLION = b"n" * 1_000_000


def deep(levels: int, value: bytes = b"1") -> bytes:
    return b'{"a":%b%b%b}' % (b"[" * levels, value, b"]" * levels)


def numbered(count: int) -> list[bytes]:
    return [b"f%d" % number for number in range(count)]


def wide(names: Sequence[bytes], value: bytes = b"1") -> bytes:
    return b"{%b}" % b",".join(b'"%b":%b' % (name, value) for name in names)


@pytest.mark.parametrize(
    ("rows", "columns"),
    [
        ([deep(128), deep(129)], SHORT),
        ([deep(300, b'"x; =1"')], SHORT),
        ([b'{"a":%b1%b}' % (b'{"k":' * 300, b"}" * 300)], SHORT),
        ([wide(numbered(4_000))], SHORT),
        ([b'{"a":1}', wide(numbered(100_000))], SHORT),
        ([wide([b"a", b"c"] * 50_000)], SHORT),
        ([wide(numbered(900), b'"x, \\"y\\""'), wide(numbered(999), b"null"), b"{}"], MANY),
        ([b'{"a":1,"b":2,"a":3,"\\u0061":"4"}', b'{"\\u0061":1,"a":[]}'], SHORT),
        ([b'{"%b":1,"a":2}' % A_MILLION] * 2, [A_MILLION.decode(), "a"]),
        ([b'{"%b\\n":1,"a":2}' % A_MILLION] * 2, SHORT),
        ([b'{"":1,"a":2,"":3}', b'{"":{"":""}}'], ["", "a"]),
        ([b'{"a":%b,"b":-%b.%be+%b}' % ((b"9" * 10_000,) * 4)], SHORT),
        ([b'{"a":"%b"}' % (b"x\\n" * 50_000)], SHORT),
        ([b'{"a":"%b"}' % (b"; =" * 50_000)], SHORT),
        ([b'{"a":[%b""],"b":0}' % (b'"\\\\",' * 50_000)], SHORT),
        ([b"{}"] * 3_000, SHORT),
    ],
    ids=[
        *("depth 128", "depth 300", "objects", "4,000 names", "100,000 names", "one name"),
        *("1,000 columns", "duplicates", "long name", "long escaped name", "empty names"),
        *("long numbers", "line breaks", "formulas", "escapes", "empty rows"),
    ],
)
def test_extreme_rows_are_written_as_by_the_python_code(
    rows: Sequence[bytes], columns: Sequence[str]
) -> None:
    odd_pages.compare(odd_pages.page_of(rows), random.Random(0), columns)


def test_20000_levels_are_written_or_refused_as_by_the_python_code() -> None:
    for row in (deep(20_000), deep(20_000)[:-2], b'{"a":' * 20_000):
        odd_pages.compare(odd_pages.page_of([row]), random.Random(0))


@pytest.mark.parametrize("size", [2**31 - 1, 2**31, 2**32, 2**32 + 13, 2**64 - 1])
def test_a_page_whose_size_32_bits_cannot_hold_is_left_to_the_python_code(size: int) -> None:
    # Given
    native, _ = library.find()
    assert native is not None
    body = b'[{"a":"abc"}]'
    assert len(body) == (2**32 + 13) % 2**32
    # When / Then: the size is refused before a byte of the body is read
    assert not native.page_cut(body, size, b"", 0, None, 0)


def test_names_chosen_to_collide_are_left_to_the_python_code() -> None:
    # Given: names for 64 neighbouring places in the table of names
    names = [name for name in map(b"n%06d".__mod__, range(60_000)) if place(name) < 64]
    assert len(names) > 350
    # When / Then: each search would pass hundreds of them
    assert pages.cut(odd_pages.page_of([wide(names)]), ["jobs"], None) is None
    assert pages.cut(odd_pages.page_of([wide(numbered(len(names)))]), ["jobs"], None)


def place(name: bytes) -> int:
    """Returns the place of a name of less than 8 bytes; `hash_of` in page.h is the same."""
    factor, mask = 0x9E3779B97F4A7C15, 2**64 - 1
    mixed = (len(name) * factor & mask) ^ int.from_bytes(name, "little")
    return (mixed * factor & mask) >> 32 & 8191


PAIR = (b'"e8aac35677efe53b"', b'"5bd1bc8e2bb34dce"')
"""Different ids with the same digest, found by a search of 2^31 ids."""


def test_of_two_ids_with_one_digest_the_second_counts_as_repeated_on_both_paths() -> None:
    # Given
    rows = [b'{"_id":%b,"a":1}' % one for one in PAIR]
    cut = pages.cut(odd_pages.page_of(rows), ["jobs"], "_id")
    assert cut is not None
    for found in (cut.rows, rows):
        # When
        ids = row_ids.ids_of(found, odd_pages.read_id)
        recent = row_ids.RecentIds("", 0)
        kept, _ = recent.without_repeated(found, ids)
        # Then: the row is left out, and counted among the repeated rows
        assert ids[0] == ids[1] == 0x24881D1AFD0A994C
        assert list(kept) == rows[:1]
        assert recent.repeated == 1


def test_a_digest_that_is_a_mark_of_the_library_is_read_by_the_python_code() -> None:
    # Given
    cut = pages.cut(
        odd_pages.page_of([b'{"_id":"a"}', b'{"_id":""}', b'{"_id":"\xc3\xa9"}']), ["jobs"], "_id"
    )
    assert cut is not None
    digests = cut.rows.digests()
    assert digests is not None
    assert list(digests)[1:] == [pages.DIGEST_NONE, pages.DIGEST_ASK]
    # When: any digest may be the answer to DIGEST_ASK, its own number too
    for answer in (0, 1, 2**64 - 1):
        ids = row_ids.ids_of(cut.rows, {b'{"_id":"\xc3\xa9"}': answer}.__getitem__)
        # Then
        assert ids == [digests[0], None, answer]


def test_a_large_page_needs_room_for_few_of_its_rows_at_a_time() -> None:
    # Given: a page of 8 MiB, whose cells could become three times as long
    row = b'{"a":"%b"}' % (b"x" * 8_000)
    found = pages.cut(b'{"rows":[%b]}' % b",".join([row] * 1_000), ["rows"], None)
    assert found is not None
    out = Buffer()
    # When
    tracemalloc.start()
    writers.Writer(["a"]).write_csv(found.rows, out, RowCounts(), lambda _: None)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # Then
    assert len(out) == 1_000 * 8_002
    assert peak < 13_000_000
