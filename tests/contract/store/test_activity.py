"""What happened to an export, added in the same step as each change."""

from __future__ import annotations

from datetime import timedelta

import pytest
import redis

from exporter.core.activity import FIRST_ENTRIES, MAX_ENTRIES
from exporter.core.exports import State
from exporter.store.base import ExportStore
from exporter.store.redis.store import RedisStore
from tests.contract.store.given import (
    KEEP,
    LEASE,
    SHORT,
    Elapse,
    claim,
    cut,
    known,
    result,
    spec,
)


def entries(store: ExportStore, export_id: str = "e") -> list[tuple[str, str, str]]:
    return [(one.what, one.by, one.detail) for one in store.activity(export_id)]


def test_a_life_of_an_export_stands_in_its_activity(store: ExportStore, elapse: Elapse) -> None:
    # Given
    store.create(spec("e"))
    first = store.claim("w1", lease=LEASE)
    assert first is not None
    store.release("e", first.fence, clean=True, retry_in=timedelta(0), reason="busy: 429")
    elapse(SHORT)
    second = store.claim("w2", lease=SHORT)
    assert second is not None
    elapse(SHORT)
    store.sweep()
    third = store.claim("w3", lease=LEASE)
    assert third is not None

    # When
    store.end("e", third.fence, State.FINISHED, result=result(), keep_file=KEEP, keep_record=KEEP)
    assert store.note("e", "linked", "key1")

    # Then
    assert entries(store) == [
        ("started", "w1", ""),
        ("waiting", "", "busy: 429"),
        ("slice", "w2", ""),
        ("takeover", "w3", ""),
        ("published", "w3", ""),
        ("linked", "key1", ""),
    ]
    times = [one.at for one in store.activity("e")]
    assert times == sorted(times)


def test_a_failure_stands_there_with_its_reason(store: ExportStore) -> None:
    # Given
    store.create(spec("e"))
    claimed = claim(store)
    # When
    store.end("e", claimed.fence, State.FAILED, error="no such job", keep_record=KEEP)
    # Then
    assert entries(store)[-1][0::2] == ("failed", "no such job")


def test_who_canceled_is_named_once(store: ExportStore) -> None:
    # Given
    store.create(spec("queued"))
    store.create(spec("e", priority=5))
    claimed = claim(store)
    # When
    for export_id in ("queued", "e", "e"):
        store.request_cancel(export_id, keep_record=KEEP, by="key1")
    asked = entries(store)
    store.end("e", claimed.fence, State.CANCELED, keep_record=KEEP)
    # Then
    assert entries(store, "queued") == [("canceled", "key1", "")]
    assert asked[1:] == [("canceled", "key1", "requested")]
    assert [one[0] for one in entries(store)] == ["started", "canceled", "canceled"]


def test_partitions_tell_their_waits_and_takeovers_to_their_export(
    store: ExportStore, elapse: Elapse
) -> None:
    # Given
    cut(store, "e", 60, 40)
    lost = store.claim("w1", lease=SHORT)
    waits = store.claim("w2", lease=LEASE)
    assert lost is not None
    assert waits is not None
    # When
    store.release(waits.export.id, waits.fence, clean=True, retry_in=KEEP, reason="busy")
    elapse(SHORT)
    store.sweep()
    store.claim("w3", lease=LEASE)
    # Then
    assert entries(store)[1:] == [
        ("waiting", "", f"partition {waits.export.id[-1]}: busy"),
        ("takeover", "w3", f"partition {lost.export.id[-1]}"),
    ]
    assert store.activity(lost.export.id) == ()


def test_the_first_and_the_latest_entries_are_kept(store: ExportStore) -> None:
    # Given
    store.create(spec("e"))
    # When
    for number in range(3 * MAX_ENTRIES):
        store.note("e", "linked", f"key{number}")
    # Then
    kept = [int(by.removeprefix("key")) for _, by, _ in entries(store)]
    assert len(kept) == MAX_ENTRIES - 1
    first = FIRST_ENTRIES - 1
    assert kept[:first] == list(range(first))
    assert kept[first:] == list(range(3 * MAX_ENTRIES))[first - len(kept) :]


def test_slices_and_waits_make_room_for_what_happens_once(store: ExportStore) -> None:
    # Given
    store.create(spec("e"))
    for number in range(MAX_ENTRIES):
        store.note("e", "slice", f"w{number}")
    # When
    store.note("e", "takeover", "w")
    for number in range(MAX_ENTRIES):
        store.note("e", "slice", f"w{number}")
        store.note("e", "waiting", "", f"{number}")
    # Then
    kept = entries(store)
    assert len(kept) == MAX_ENTRIES - 1
    assert kept[FIRST_ENTRIES - 1] == ("takeover", "w", "")
    assert kept[-1] == ("waiting", "", f"{MAX_ENTRIES - 1}")


def test_a_wait_says_until_when(store: ExportStore) -> None:
    # Given
    cut(store, "whole", 60, 40)
    store.create(spec("e", priority=9))
    # When
    for _ in range(2):
        claimed = claim(store)
        store.release(claimed.export.id, claimed.fence, clean=True, retry_in=KEEP, reason="busy")
    # Then
    assert known(store, "e").retry_at is not None
    assert [one.until for one in store.activity("e")] == [None, known(store, "e").retry_at]
    (wait,) = [one for one in store.activity("whole") if one.what == "waiting"]
    assert wait.until == wait.at + KEEP


def test_reasons_have_no_addresses_of_the_deployment(store: ExportStore) -> None:
    # Given
    store.create(spec("e"))
    claimed = claim(store)
    store.release(
        "e", claimed.fence, clean=True, retry_in=timedelta(0), reason="no answer of 10.0.0.7:9000"
    )
    claimed = claim(store)
    # When
    store.end("e", claimed.fence, State.FAILED, error="http://10.0.0.7/x: 404", keep_record=KEEP)
    # Then
    details = [one.detail for one in store.activity("e")]
    assert "10.0.0.7" not in "".join(details)
    assert details[1] == "no answer of (address)"


@pytest.mark.external
def test_a_very_long_reason_is_cut_between_characters(client: redis.Redis) -> None:
    # Given
    store = RedisStore(client)
    store.create(spec("e"))
    # When
    for begin in ("", "x", "xx", "xxx"):
        store.note("e", "noted", begin, begin + 1000 * "🦊")
    # Then
    assert [len(one.detail) for one in store.activity("e")] == [249, 250, 251, 252]


def test_the_same_again_only_renews_the_latest_entry(store: ExportStore) -> None:
    # Given
    store.create(spec("e"))
    # When
    for detail in ("first", "second"):
        store.note("e", "downloaded", "key1", detail)
    # Then
    assert entries(store) == [("downloaded", "key1", "second")]


@pytest.mark.parametrize("text", ['quote " back \\ line \n end', "ä 🦊", "\x00\x1f", "/"])
def test_any_text_is_kept_as_it_is(store: ExportStore, text: str) -> None:
    # Given
    store.create(spec("e"))
    # When
    store.note("e", "noted", text, text)
    # Then
    assert entries(store) == [("noted", text, text)]


def test_what_nobody_may_see_has_no_activity(store: ExportStore) -> None:
    # Given
    cut(store, "e", 60, 40)
    store.create(spec("gone"))
    store.delete("gone", None)
    # When
    answers = [store.note(one, "linked", "key1") for one in ("gone", "none", "e/0")]
    # Then
    assert answers == [False, False, False]
    assert [store.activity(one) for one in ("gone", "none", "e/0")] == [(), (), ()]
