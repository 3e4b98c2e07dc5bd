"""The numbers of a known history, as the store counts them and as Prometheus reads them."""

from __future__ import annotations

import re
from datetime import timedelta

from exporter.api import metrics
from exporter.core.exports import State
from exporter.store.base import ExportStore, Idempotency
from tests.contract.store.given import KEEP, LEASE, claim, drain, fill, finish, spec

NOW = timedelta(0)


def history(store: ExportStore) -> None:
    """Every transition at least once, some asked for twice."""
    fill(store, 4)
    store.create(spec("twice"), Idempotency("k", "f"))
    store.create(spec("second try"), Idempotency("k", "f"))
    first = claim(store)
    for _ in range(2):
        finish(store, first)
    second = claim(store)
    store.end(second.export.id, second.fence, State.FAILED, error="no", keep_record=KEEP)
    third = claim(store)
    for _ in range(2):
        store.release(third.export.id, third.fence, clean=True, retry_in=LEASE, reason="429")
    store.request_cancel("twice", keep_record=KEEP)
    store.request_cancel("twice", keep_record=KEEP)
    claim(store, NOW)
    store.sweep()
    claim(store)
    store.create(spec("unloved", priority=5))
    store.sweep(ageing=NOW)
    store.delete("unloved", "ann")
    store.delete("unloved", "ann")
    store.create(spec("ready", priority=7))
    store.count("files_cleaned", 3)


EXPECTED = {
    "exports_created": 7,
    "exports_replayed": 1,
    "exports_finished": 1,
    "exports_failed": 1,
    "exports_canceled": 2,
    "exports_deleted": 1,
    "slices_claimed": 5,
    "takeovers": 1,
    "leases_expired": 1,
    "stalls": 1,
    "levels_risen": 1,
    "rows": 1,
    "file_bytes": 7,
    "files_cleaned": 3,
}


def test_each_transition_is_counted_once_however_often_it_is_asked(store: ExportStore) -> None:
    # When
    history(store)

    # Then
    assert {name: value for name, value in store.counters().items() if value} == EXPECTED
    assert set(EXPECTED) <= set(metrics.COUNTERS)


def test_the_census_says_who_stands_where(store: ExportStore) -> None:
    # Given
    history(store)
    drain(store)
    store.sweep()

    # When
    census = store.queue_counts()

    # Then
    assert census.ready == (0, 0, 0, 0, 0, 0, 0, 1, 0, 0)
    assert (census.running, census.waiting) == (1, 1)
    assert (census.wakes, census.kept_files, census.deleted) == (1, 1, 1)
    assert census.since is not None


def test_a_store_that_never_saw_an_export_knows_of_none(store: ExportStore) -> None:
    # When
    census = store.queue_counts()

    # Then
    assert census.since is None
    assert census.ready == (0,) * 10
    assert store.counters() == {}


def samples(text: str) -> dict[str, float]:
    """What a scrape reads; fails where the format is not kept to the letter."""
    assert text.endswith("\n")
    found: dict[str, float] = {}
    family = kind = ""
    for line in text.splitlines():
        if line.startswith("#"):
            match = re.fullmatch(r"# (HELP|TYPE) ([a-z_]+) (\S.*)", line)
            assert match, line
            if match[1] == "HELP":
                assert match[2] not in {name.partition("{")[0] for name in found}, line
                family, kind = match[2], ""
            else:
                assert match[2] == family, line
                kind = match[3]
                assert kind in ("counter", "gauge")
            continue
        match = re.fullmatch(r'([a-z_]+)((?:\{[a-z]+="[^"\\\n]*"\})?) (\d+)', line)
        assert match, line
        assert match[1] == family
        assert kind
        assert family.endswith("_total") == (kind == "counter")
        assert match[1] + match[2] not in found
        found[match[1] + match[2]] = float(match[3])
    return found


def test_prometheus_reads_every_counter_and_gauge(store: ExportStore) -> None:
    # Given
    history(store)

    # When
    read = samples(metrics.render(store.counters(), store.queue_counts()))

    # Then
    for name in metrics.COUNTERS:
        assert read.pop(f"exporter_{name}_total") == EXPECTED.get(name, 0)
    assert read.pop('exporter_ready_exports{level="7"}') == 1
    assert read.pop("exporter_running_leases") == 1
    assert read.pop("exporter_waiting_exports") == 1
    assert len(read) == 12
