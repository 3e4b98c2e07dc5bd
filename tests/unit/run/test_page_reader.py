"""Tests of the rows that a page contributes and of the proof of the end."""

from __future__ import annotations

import random
from collections.abc import Sequence

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.core.checkpoints import Checkpoint, Row
from exporter.core.exports import Completeness, EndReason, Outcome
from exporter.errors import SourceUntrue
from exporter.run.page_reader import PageReader
from exporter.run.row_ids import DUPLICATE_WINDOW_ROWS, FIRST_ROWS
from exporter.sources.base import Page
from tests.harness import postings
from tests.specs import spec


def reading(
    limit: int | None = None, identity: str | None = "_id", tolerated_drift: float = 0.05
) -> PageReader:
    return PageReader(
        spec(limit=limit), Checkpoint(cursor=0), identity=identity, tolerated_drift=tolerated_drift
    )


def drifting(
    steps: int, *, inserts: int = 0, deletes: int = 0, size: int = 1_000, page: int = 50
) -> tuple[list[Row], Completeness]:
    """Reads a newest-first list by offset while postings come and go between two pages."""
    chance = random.Random(steps)
    rows, coming = postings(size), iter(postings(size + 10_000)[size:])
    reads, written, at = reading(), list[Row](), 0
    while not reads.ended:
        more = at + page < len(rows)
        written += reads.accept(
            Page(rows=rows[at : at + page], next=at + page if more else None, total=len(rows))
        )
        at += page
        if at // page <= steps:
            for _ in range(inserts):
                rows.insert(0, next(coming))
            for _ in range(deletes):
                del rows[chance.randrange(at)]
    return written, reads.completeness()


def test_a_list_that_grows_while_it_is_read_gives_each_row_once_and_is_called_partial() -> None:
    # Given / When: two postings come in at the head after each of ten pages
    written, proof = drifting(10, inserts=2)
    # Then
    assert len(set(written)) == len(written) == proof.exported
    assert proof.duplicates_removed == 20
    assert (proof.total_at_start, proof.total_at_end) == (1_000, 1_020)
    assert (proof.outcome, proof.end_reason) == (Outcome.PARTIAL, EndReason.TOTAL_REACHED)


def test_a_list_that_shrinks_while_it_is_read_is_called_partial_because_rows_may_be_missing() -> (
    None
):
    # Given / When
    written, proof = drifting(10, deletes=1)
    # Then
    assert len(set(written)) == len(written) == 990
    assert (proof.total_at_start, proof.total_at_end) == (1_000, 990)
    assert proof.outcome is Outcome.PARTIAL


def test_a_list_that_changes_more_than_is_tolerated_is_not_published() -> None:
    # Given / When
    with pytest.raises(SourceUntrue) as refused:
        drifting(18, inserts=4)
    # Then: the numbers that were seen are in the text
    assert "1000 at the start" in str(refused.value)
    assert "tolerated_drift" in str(refused.value)


def test_a_list_that_holds_still_is_complete() -> None:
    # Given / When
    written, proof = drifting(0)
    # Then
    assert (len(written), proof.outcome, proof.duplicates_removed) == (1_000, Outcome.COMPLETE, 0)


@given(straight=st.integers(0, 40), circle=st.integers(1, 60))
def test_cursors_that_form_a_cycle_of_any_length_never_end_an_export(
    straight: int, circle: int
) -> None:
    # Given: pages 0..straight, then a cycle without end
    reads = reading(identity=None)
    taken = 0
    # When
    with pytest.raises(SourceUntrue, match="cycle"):
        while True:
            assert not reads.ended
            here = reads.at.cursor
            following = here + 1 if here + 1 < straight + circle else straight
            reads.accept(Page(rows=postings(1), next=following, total=None))
            taken += 1
            # Then: noticed after a few rounds at most
            assert taken < 4 * (straight + circle) + 8


@given(
    ids=st.lists(st.integers(0, 30), min_size=1, max_size=120),
    cuts=st.lists(st.integers(1, 9), min_size=1, max_size=5),
)
def test_a_repeated_id_within_the_window_is_written_once_however_pages_and_workers_are_cut(
    ids: Sequence[int], cuts: Sequence[int]
) -> None:
    # Given
    rows = [b'{"n":%d,"_id":"%d"}' % (place, number) for place, number in enumerate(ids)]
    reads, written, at, turn = reading(), list[Row](), 0, 0
    # When: after each page another worker goes on from the stored checkpoint
    while not reads.ended:
        end = at + cuts[turn % len(cuts)]
        # Each page has a new row: a page of nothing but the first rows means that the list repeats.
        new = b'{"_id":"new-%d"}' % turn
        page = Page(rows=[new, *rows[at:end]], next=end if end < len(rows) else None, total=None)
        written += [row for row in reads.accept(page) if row != new]
        reads = PageReader(spec(), reads.checkpoint(), identity="_id", tolerated_drift=0.05)
        at, turn = end, turn + 1
    # Then
    first: dict[int, Row] = {}
    for number, row in zip(ids, rows, strict=True):
        first.setdefault(number, row)
    assert written == list(first.values())
    assert reads.at.duplicates == len(ids) - len(written)
    assert reads.at.rows == len(written) + turn


def test_the_window_is_bounded_and_so_is_the_checkpoint() -> None:
    # Given
    reads = reading()
    # When
    for at in range(0, 5_000, 100):
        reads.accept(Page(rows=postings(5_000)[at : at + 100], next=at + 100, total=None))
    # Then
    assert len(reads.checkpoint().seen) < DUPLICATE_WINDOW_ROWS * 12


def test_rows_without_an_id_are_all_kept() -> None:
    # Given
    rows: list[Row] = [b"{}", b"{}", b'{"_id":null}', b'{"_id":null}', b'{"_id":NaN}']
    reads = reading()
    # When
    written = reads.accept(Page(rows=rows, next=None, total=5))
    # Then
    assert list(written) == rows
    assert reads.completeness().outcome is Outcome.COMPLETE


NO_IDS = (
    *("", '"_id":null', '"_id":""', '"_id":"  "', r'"_id":"\u0020\t"', '"_id":"\u00a0"'),
    *('"_id":{}', '"_id":[]', '"_id":0', '"_id":0.0', '"_id":false', '"id":7', '"_id":NaN'),
    '"_id":"00000000-0000-0000-0000-000000000000"',
)


@pytest.mark.parametrize("identity", NO_IDS)
def test_postings_that_share_an_empty_id_are_no_repetitions(identity: str) -> None:
    # Given: two pages of other postings, all with the same empty id
    comma = "," if identity else ""
    rows: list[Row] = [f'{{{identity}{comma}"n":{n}}}'.encode() for n in range(60)]
    reads = reading(tolerated_drift=0)
    # When
    written = [*reads.accept(Page(rows=rows[:30], next=1, total=60))]
    written += reads.accept(Page(rows=rows[30:], next=None, total=60))
    # Then
    assert written == rows
    assert reads.completeness().outcome is Outcome.COMPLETE


@pytest.mark.parametrize("identity", ["0", "false", '"00000000-0000-0000-0000-000000000000"'])
def test_a_posting_whose_id_is_zero_is_written_once(identity: str) -> None:
    # Given
    row = f'{{"_id":{identity},"n":1}}'.encode()
    reads = reading()
    reads.accept(Page(rows=[row], next=1, total=40))
    # When: it moves onto the next page
    written = reads.accept(Page(rows=[row, b'{"_id":1}'], next=2, total=40))
    # Then
    assert list(written) == [b'{"_id":1}']


@pytest.mark.parametrize(
    "identity", ["1", "-1", '"0"', '"a"', '"-"', "[1]", '{"$oid":"a"}', "true"]
)
def test_every_other_id_is_one(identity: str) -> None:
    # Given
    rows: list[Row] = [f'{{"_id":{identity},"n":{n}}}'.encode() for n in range(2)]
    # When
    written = reading().accept(Page(rows=rows, next=1, total=40))
    # Then
    assert list(written) == rows[:1]


def wrapping(
    length: int, *, page: int, total: int | None, name: str = "_id", resume: bool = True
) -> tuple[int, str]:
    """Reads a list of `length` rows that begins again after its end.

    Returns the number of rows that were accepted, and the error. A new worker continues after each
    page.
    """
    rows = [b'{"%b":"%d"}' % (name.encode(), n) for n in range(length)]
    reads, at, accepted = reading(tolerated_drift=0.5), 0, 0
    while not reads.ended:
        some = [rows[n % length] for n in range(at, at + page)]
        at += page
        try:
            reads.accept(Page(rows=some, next=None if at == total else at, total=total))
        except SourceUntrue as error:
            return accepted, str(error)
        accepted += len(some)
        if resume:
            stored = msgspec.json.decode(msgspec.json.encode(reads.checkpoint()), type=Checkpoint)
            reads = PageReader(spec(), stored, identity="_id", tolerated_drift=0.5)
    return accepted, ""


@pytest.mark.parametrize("page", [1, 100, 1_000])
@pytest.mark.parametrize("length", [1_100, 2_033])
@pytest.mark.parametrize("announced", [True, False])
def test_a_list_that_begins_again_is_refused_at_its_first_page(
    page: int, length: int, announced: bool
) -> None:
    # When
    accepted, error = wrapping(
        length, page=page, total=page * 20_000 if announced else None, resume=page > 1
    )
    # Then
    assert "page one repeats" in error
    assert length - page <= accepted <= length + page + FIRST_ROWS


def test_a_list_without_ids_that_begins_again_is_refused_too() -> None:
    # When
    accepted, error = wrapping(2_000, page=100, total=4_000, name="title")
    # Then
    assert accepted == 2_000
    assert "page one repeats" in error


@pytest.mark.parametrize("length", [1, 2, 30, 1_000, 1_001])
@pytest.mark.parametrize("page", [10, 100])
def test_a_short_list_that_begins_again_without_end_is_refused(length: int, page: int) -> None:
    # When
    accepted, error = wrapping(length, page=page, total=None, resume=page > 1)
    # Then
    assert "repeat" in error
    assert accepted <= 3 * length + 2 * DUPLICATE_WINDOW_ROWS


def test_one_page_of_the_first_rows_among_others_is_refused() -> None:
    # Given: a change within the tolerated drift
    rows, reads = postings(3_000), reading(tolerated_drift=0.5)
    for at in range(0, 400, 50):
        reads.accept(Page(rows=rows[at : at + 50], next=at + 50, total=3_000))
    # When / Then
    with pytest.raises(SourceUntrue, match="page one repeats: after 400 rows"):
        reads.accept(Page(rows=rows[:50], next=450, total=3_000))


def test_a_page_that_moved_down_the_list_as_a_whole_is_no_repetition_of_the_list() -> None:
    # Given
    rows, reads = postings(3_000), reading(tolerated_drift=0.5)
    reads.accept(Page(rows=rows[:50], next=50, total=3_000))
    # When
    written = reads.accept(Page(rows=rows[:50], next=100, total=3_050))
    # Then
    assert list(written) == []
    assert reads.at.duplicates == 50


def test_single_postings_that_come_again_far_away_are_the_sources_own() -> None:
    # Given: three of the first postings are shown again on every twelfth page
    rows = postings(6_000)
    pages = [rows[at : at + 100] for at in range(0, 6_000, 100)]
    for page in pages[12::12]:
        page[40:43] = rows[:3]
    reads = reading()
    # When
    for number, page in enumerate(pages, 1):
        reads.accept(Page(rows=page, next=number if number < 60 else None, total=6_000))
    # Then
    assert reads.completeness().exported == 6_000


def test_equal_rows_without_an_id_do_not_mean_that_the_list_begins_again() -> None:
    # Given
    rows: list[Row] = [b'{"title":"Welder"}', b'{"title":"Nurse"}'] * 1_500
    reads = reading()
    # When
    for at in range(0, 3_000, 100):
        last = at == 2_900
        reads.accept(Page(rows=rows[at : at + 100], next=None if last else at + 100, total=3_000))
    # Then
    assert reads.completeness().exported == 3_000


def test_a_checkpoint_of_a_version_that_remembered_no_first_rows_is_continued() -> None:
    # Given
    rows = postings(3_000)
    stored = Checkpoint(cursor=1, rows=1_000, fetched=1_000, pages=10, total_at_start=3_000)
    reads = PageReader(spec(), stored, identity="_id", tolerated_drift=0.05)
    # When
    for at in range(1_000, 3_000, 100):
        last = at == 2_900
        reads.accept(Page(rows=rows[at : at + 100], next=None if last else at + 100, total=3_000))
    # Then
    assert reads.completeness().outcome is Outcome.COMPLETE
    assert reads.checkpoint().head == ""


def test_a_limit_counts_rows_in_the_file_not_repetitions() -> None:
    # Given
    rows = postings(10)
    reads = reading(limit=15)
    reads.accept(Page(rows=rows, next=1, total=100))
    # When: the next page repeats five rows
    reads.accept(Page(rows=[*rows[5:], *postings(20)[10:15]], next=2, total=100))
    # Then
    assert reads.at.rows == 15
    proof = reads.completeness()
    assert (proof.outcome, proof.duplicates_removed, proof.skipped) == (Outcome.TRUNCATED, 5, 0)
