"""How many exports are claimed before a ready one, as things stand."""

from __future__ import annotations

import random

import pytest

from exporter.store.base import ExportStore
from tests.contract.store.given import KEEP, LEASE, claim, cut, spec


def test_only_a_ready_export_has_a_position(store: ExportStore) -> None:
    # Given
    store.create(spec("e"))
    before = store.queue_position("e")
    # When
    claimed = claim(store)
    store.create(spec("canceled"))
    store.request_cancel("canceled", keep_record=KEEP)
    # Then
    assert before == 0
    assert store.queue_position(claimed.export.id) is None
    assert store.queue_position("canceled") is None
    assert store.queue_position("none") is None


def test_a_deleted_export_has_no_position(store: ExportStore) -> None:
    # Given
    store.create(spec("e"))
    # When
    store.delete("e", "ann")
    # Then
    assert store.queue_position("e") is None


def test_ready_partitions_are_ahead_like_any_export(store: ExportStore) -> None:
    # Given
    cut(store, "cut", 60, 40)
    # When
    store.create(spec("e"))
    # Then
    assert store.queue_position("e") == 2


@pytest.mark.parametrize("seed", range(6))
def test_exports_are_claimed_in_the_order_of_their_positions(store: ExportStore, seed: int) -> None:
    # Given
    chance = random.Random(seed)
    for number in range(25):
        user = chance.choice(["ann", "bob", "cid", "dan"])
        store.create(spec(f"e{number}", user, priority=chance.choice([0, 0, 0, 5])))
        if chance.random() < 0.4:
            store.claim("w", lease=LEASE)
    positions = {
        f"e{number}": place
        for number in range(25)
        if (place := store.queue_position(f"e{number}")) is not None
    }
    assert sorted(positions.values()) == list(range(len(positions)))
    # When
    first = min(positions, key=lambda export_id: positions[export_id])
    claimed = claim(store)
    # Then
    assert claimed.export.id == first
    rest = {export_id: place - 1 for export_id, place in positions.items() if export_id != first}
    assert {export_id: store.queue_position(export_id) for export_id in rest} == rest
