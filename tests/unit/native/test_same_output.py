"""The library cuts and writes every page as the Python code does, or leaves it to that code."""

from __future__ import annotations

import os
import random
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.native import library, pages
from tests import fast, odd_pages

pytestmark = pytest.mark.skipif(library.find()[0] is None, reason=library.find()[1])
CORPORA = os.environ.get("EXPORTER_TEST_CORPORA")


@settings(max_examples=fast.examples(600), deadline=None)
@given(st.integers(0, 2**32))
def test_bytes_counts_and_ids_are_those_of_the_python_code(seed: int) -> None:
    # Given
    source = random.Random(seed)
    # When / Then
    odd_pages.compare(odd_pages.page(source), source)


SOUND = (
    b'{"total": 3,"jobs" : [{"_id":"a1","a":"x, y","b":[1,"z"]}, {"_id":7,"a":null},\n'
    b'{"a":"\xc3\xa9\xe2\x80\xa8\\u0041","_id":"","d":{"e":-1.5e3}}]}'
)


@settings(max_examples=fast.examples(25), deadline=None)
@given(st.integers(0, 2**32))
def test_a_page_that_ends_at_any_byte_is_answered_as_by_the_python_code(seed: int) -> None:
    source = random.Random(seed)
    odd_pages.compare_broken(odd_pages.page(source)[:3_000], source)


@pytest.mark.skipif(not CORPORA, reason="EXPORTER_TEST_CORPORA names no folder of test files")
def test_files_that_are_hard_to_read_give_the_same_output() -> None:
    # Given
    source, counts = random.Random(0), Counter[str]()
    corpora = odd_pages.Corpora(Path(CORPORA or ""))
    for text in corpora.files:
        for body in corpora.pages(text):
            # When
            counts.update(odd_pages.compare(body, source, ("a", "k")))
            counts.update(odd_pages.compare(odd_pages.spoilt(source, body), source, ("a", "k")))
    # Then
    assert counts["compared"] > 300
    for _ in range(fast.examples(300)):
        body, columns = corpora.page(source)
        odd_pages.compare(body, source, columns)


def test_every_beginning_of_a_page_is_refused() -> None:
    assert pages.cut(SOUND, ["jobs"], "_id") is not None
    for size in range(len(SOUND)):
        assert pages.cut(SOUND[:size], ["jobs"], "_id") is None


def test_a_page_with_a_byte_flipped_is_written_as_the_python_code_writes_it() -> None:
    source = random.Random(0)
    for place in range(len(SOUND)):
        for bit in range(8):
            flipped = bytearray(SOUND)
            flipped[place] ^= 1 << bit
            odd_pages.compare(bytes(flipped), source)


def test_rows_are_found_where_the_path_leads() -> None:
    # Given
    body = b'{"a":{"rows":[1]},"data":{"more":[],"rows":[{"b":1},{"b":2}]},"rows":3}'
    # When
    cut = pages.cut(body, ["data", "rows"], None)
    # Then
    assert cut is not None
    assert list(cut.rows) == [b'{"b":1}', b'{"b":2}']
    assert cut.rest == b'{"a":{"rows":[1]},"data":{"more":[],"rows":[]},"rows":3}'


def test_a_page_may_be_the_list_of_rows_itself() -> None:
    cut = pages.cut(b' [{"b":1}] ', [], None)
    assert cut is not None
    assert list(cut.rows) == [b'{"b":1}']


def test_a_slice_of_rows_has_the_rows_of_the_same_slice_of_a_list() -> None:
    # Given
    body = b'{"jobs":[%b]}' % b",".join(b'{"n":%d}' % number for number in range(10))
    cut = pages.cut(body, ["jobs"], None)
    assert cut is not None
    every = list(cut.rows)
    some = cut.rows.pick([0, 1, 4, 5, 6, 9])
    # When / Then
    assert list(some) == [every[place] for place in (0, 1, 4, 5, 6, 9)]
    assert some.spans == [range(2), range(4, 7), range(9, 10)]
    assert list(some[1:4]) == [every[place] for place in (1, 4, 5)]
    assert list(some[-2:]) == [every[6], every[9]]
    assert some[-1] == every[9]
    assert not some[6:]
    assert some[:] is some
    with pytest.raises(IndexError):
        some[6]
