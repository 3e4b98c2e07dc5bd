"""Records of exports: made once, read back, listed for their owner alone."""

from __future__ import annotations

from datetime import timedelta

import msgspec
import pytest

from exporter.core.checkpoints import RowCounts
from exporter.core.exports import Phase, State
from exporter.store.base import MAX_PAGE_BYTES, ExportStore
from tests.contract.store.given import (
    KEEP,
    LEASE,
    SHORT,
    Elapse,
    checkpoint,
    claim,
    claim_ids,
    drain,
    fill,
    known,
    spec,
)


def test_a_created_export_is_queued_and_reads_back_as_it_was_asked(store: ExportStore) -> None:
    # When
    created = store.create(spec("e", priority=4))

    # Then
    assert created.spec == spec("e", priority=4)
    assert (created.state, created.phase, created.progress) == (State.QUEUED, Phase.READY, 0.0)
    assert (created.attempts, created.stalls, created.checkpoint, created.error) == (
        0,
        0,
        None,
        None,
    )
    assert created.created_at == created.updated_at
    assert created.created_at.tzinfo is not None
    assert store.get("e") == created


def test_an_unknown_export_is_none(store: ExportStore) -> None:
    assert store.get("nobody") is None
    assert store.request_cancel("nobody", keep_record=KEEP) is None
    assert store.claim("worker-1", lease=LEASE) is None


def test_creating_twice_changes_nothing_and_returns_the_first_record(store: ExportStore) -> None:
    # Given
    store.create(spec("e"))
    claimed = claim(store)
    before = known(store, "e")

    # When
    again = store.create(spec("e", user="bob", priority=9))

    # Then
    assert again == before == claimed.export
    assert store.claim("worker-2", lease=LEASE) is None
    assert store.list("bob", limit=10).exports == ()


@pytest.mark.parametrize("priority", [-1, 10])
def test_a_priority_that_no_claim_would_look_at_is_refused(
    store: ExportStore, priority: int
) -> None:
    with pytest.raises(ValueError, match="give 0 to 9"):
        store.create(spec("e", priority=priority))
    assert store.get("e") is None


def test_ids_and_users_of_any_text_are_kept_apart(store: ExportStore) -> None:
    # Given
    users = ["a", "a:b", "b c", "ü*?[x]", "0:a"]

    # When
    for user in users:
        store.create(spec(f"{user} export:1", user))

    # Then
    for user in users:
        (only,) = store.list(user, limit=10).exports
        assert only.spec == spec(f"{user} export:1", user)
    woken = [export_id for export_id, _ in drain(store)]
    assert sorted(woken) == sorted(claim_ids(store, 5)) == sorted(f"{u} export:1" for u in users)


def test_pages_of_a_list_are_newest_first_and_hold_each_export_once(store: ExportStore) -> None:
    # Given exports of which, in memory, all have one creation time
    ids = fill(store, 7)

    # When
    seen: list[str] = []
    cursor = None
    sizes = []
    while True:
        page = store.list("ann", limit=3, cursor=cursor)
        seen += [export.id for export in page.exports]
        sizes.append(len(page.exports))
        cursor = page.next_cursor
        store.create(spec(f"newcomer-{len(seen)}"))
        if cursor is None:
            break

    # Then
    assert seen == ids[::-1]
    assert sizes == [3, 3, 1]


def test_a_last_page_that_is_full_has_no_cursor(store: ExportStore) -> None:
    fill(store, 4)
    first = store.list("ann", limit=2)
    second = store.list("ann", limit=2, cursor=first.next_cursor)
    assert first.next_cursor is not None
    assert second.next_cursor is None
    assert len(second.exports) == 2


def test_nobody_sees_the_exports_of_another_user(store: ExportStore) -> None:
    # Given
    fill(store, 3, "ann")
    fill(store, 3, "bob")
    cursor = store.list("ann", limit=1).next_cursor

    # When
    page = store.list("bob", limit=10, cursor=cursor)

    # Then
    assert {export.user_id for export in page.exports} <= {"bob"}
    assert {export.user_id for export in store.list("ann", limit=10).exports} == {"ann"}
    assert store.list("carl", limit=10).exports == ()


@pytest.mark.parametrize("cursor", ["", "x", "ÿ", "e30=", "YmVmb3JlIC0x", "YmVmb3JlIDE="[:-1]])
def test_a_cursor_not_made_here_is_refused(store: ExportStore, cursor: str) -> None:
    with pytest.raises(ValueError, match="was not made here"):
        store.list("ann", limit=1, cursor=cursor)


def test_an_expired_record_vanishes_from_get_and_from_pages(
    store: ExportStore, elapse: Elapse
) -> None:
    # Given
    ids = fill(store, 6)
    cursor = store.list("ann", limit=2).next_cursor
    assert cursor is not None
    for export_id in ids[1::2]:
        store.request_cancel(export_id, keep_record=SHORT)

    # When
    elapse(SHORT)

    # Then
    assert store.get(ids[1]) is None
    assert [export.id for export in store.list("ann", limit=2).exports] == [ids[4], ids[2]]
    assert [export.id for export in store.list("ann", limit=9, cursor=cursor).exports] == [
        ids[2],
        ids[0],
    ]
    assert claim_ids(store, 3) == ids[::2]


def test_a_live_export_never_expires(store: ExportStore, elapse: Elapse) -> None:
    # Given a queued one, and a processing one whose owner wants it canceled
    store.create(spec("running"))
    claim(store)
    store.request_cancel("running", keep_record=SHORT)
    store.create(spec("queued"))

    # When
    elapse(SHORT)

    # Then
    assert known(store, "running").state is State.PROCESSING
    assert known(store, "queued").state is State.QUEUED


def test_texts_that_utf_8_cannot_carry_are_stored_as_their_escapes(store: ExportStore) -> None:
    # Given half a surrogate pair wherever an upstream or a caller can put one
    broken = "caf\u00e9 \ud83e"
    row_counts = RowCounts(unmapped_fields={broken: 1})
    asked = msgspec.structs.replace(
        spec("e"), query={broken: [broken]}, columns=(broken,), file_name=broken
    )

    # When
    store.create(asked)
    claimed = claim(store)
    point = checkpoint().evolve(cursor={"after": broken}, row_counts=row_counts)
    store.commit("e", claimed.fence, point, lease=LEASE, progress=0.1)
    store.release("e", claimed.fence, clean=True, retry_in=timedelta(0), reason=broken)
    waiting = known(store, "e")
    claimed = claim(store)
    store.end("e", claimed.fence, State.FAILED, error=broken, keep_record=KEEP)

    # Then
    whole = "caf\u00e9 \\ud83e"
    assert waiting.spec.query == {whole: [whole]}
    assert waiting.spec.columns == (whole,)
    assert waiting.checkpoint is not None
    assert waiting.checkpoint.cursor == {"after": whole}
    assert waiting.checkpoint.row_counts.unmapped_fields == {whole: 1}
    assert waiting.error == known(store, "e").error == whole
    assert msgspec.json.encode(known(store, "e"))


def test_a_page_of_large_exports_ends_before_its_limit(store: ExportStore) -> None:
    # Given: three searches of a third of a page each, and two that exceed a page
    sizes = [MAX_PAGE_BYTES // 3] * 3 + [2 * MAX_PAGE_BYTES] * 2
    for place, size in enumerate(sizes):
        store.create(msgspec.structs.replace(spec(str(place)), query={"keywords": "x" * size}))

    # When
    pages: list[list[str]] = []
    cursor = None
    while not pages or cursor:
        page = store.list("ann", limit=10, cursor=cursor)
        pages.append([export.id for export in page.exports])
        cursor = page.next_cursor

    # Then
    assert pages == [["4"], ["3"], ["2", "1"], ["0"]]


def test_an_export_can_be_read_without_its_checkpoint(store: ExportStore) -> None:
    # Given
    fill(store, 1)
    claimed = claim(store)
    store.commit(claimed.export.id, claimed.fence, checkpoint(), lease=LEASE, progress=0.5)

    # When
    whole = store.get(claimed.export.id)
    shown = store.show(claimed.export.id)
    (listed,) = store.list("ann", limit=10).exports

    # Then
    assert whole is not None
    assert whole.checkpoint == checkpoint()
    assert shown == listed == msgspec.structs.replace(whole, checkpoint=None)
