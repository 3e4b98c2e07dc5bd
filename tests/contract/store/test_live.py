"""The exports that have not ended, and those created since a place, for live events."""

from __future__ import annotations

from exporter.core.exports import State
from exporter.store.base import ExportStore
from tests.contract.store.given import KEEP, claim, cut, known, spec


def test_live_exports_are_given_by_state_newest_first(store: ExportStore) -> None:
    # Given
    for export_id in ("a", "b", "c", "d"):
        store.create(spec(export_id))
    store.create(spec("other", "bob"))
    first, second = claim(store), claim(store)
    ids = {first.export.id, second.export.id}
    store.request_cancel("d", keep_record=KEEP)
    # When
    of_ann, of_all = store.live("ann", None), store.live(None, None)
    # Then
    running = ids - {"other"}
    assert set(of_ann.running) == running
    assert of_ann.queued == tuple(one for one in "cba" if one not in running)
    assert set(of_all.queued) | set(of_all.running) == {"a", "b", "c", "other"}
    assert of_ann.created == of_all.created == ()


def test_creations_are_seen_once_even_if_the_export_has_ended(store: ExportStore) -> None:
    # Given
    store.create(spec("before"))
    newest = store.live("ann", None).newest
    store.create(spec("brief"))
    store.create(spec("other", "bob"))
    store.request_cancel("brief", keep_record=KEEP)
    # When
    seen = store.live("ann", newest)
    # Then
    assert seen.created == ("brief",)
    assert seen.queued == ("before",)
    assert store.live("ann", seen.newest).created == ()


def test_partitions_and_deleted_exports_are_not_live(store: ExportStore) -> None:
    # Given
    cut(store, "cut", 60, 40)
    store.create(spec("gone"))
    # When
    store.delete("gone", "ann")
    # Then
    live = store.live("ann", None)
    assert (live.queued, live.running) == ((), ("cut",))


def test_the_time_of_the_latest_change_follows_each_change(store: ExportStore) -> None:
    # Given
    store.create(spec("e"))
    before = store.changed(["e", "none"])
    # When
    claimed = claim(store)
    store.end("e", claimed.fence, State.FAILED, error="busy", keep_record=KEEP)
    # Then
    assert before[1] is None
    assert store.changed(["e"]) == [known(store, "e").updated_at]
    assert store.changed([]) == []
