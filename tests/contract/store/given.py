"""Test data for the contract tests of export stores: specs, checkpoints, claims and results."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from datetime import timedelta

from exporter.core.checkpoints import Checkpoint, Part
from exporter.core.events import Event
from exporter.core.exports import (
    Completeness,
    Dialect,
    EndReason,
    Export,
    Hook,
    Outcome,
    Partition,
    Result,
    Spec,
    State,
)
from exporter.errors import ExporterError
from exporter.store.base import Claim, ExportStore, Verdict

DATABASE = 3
LEASE = timedelta(seconds=60)
KEEP = timedelta(hours=1)
SHORT = timedelta(seconds=0.15)
"""Duration of a lease, a wait or a retention whose end a test waits for."""

Elapse = Callable[[timedelta], None]
EmittedEvents = Callable[[], list[Event]]
Listen = Callable[[str, Iterable[str]], None]


def spec(
    export_id: str,
    user: str = "ann",
    priority: int = 0,
    *,
    account: str | None = None,
    reserved: int = 0,
    concurrency: int = 0,
    webhook: Hook | None = None,
) -> Spec:
    return Spec(
        id=export_id,
        user_id=user,
        surface="native",
        source="board",
        query={"job_titles": ["naïve 🦊", 2**70, 1.1, None]},
        query_sha256="0" * 64,
        request={},
        format="csv",
        dialect=Dialect(guard=True),
        columns=("id", "title"),
        limit=reserved or 10,
        priority=priority,
        account=account,
        reserved=reserved,
        concurrency=concurrency,
        webhook=webhook,
        file_name="jobs.csv",
    )


def fill(store: ExportStore, count: int, user: str = "ann", priority: int = 0) -> list[str]:
    ids = [f"{user}-{priority}-{n}" for n in range(count)]
    for export_id in ids:
        store.create(spec(export_id, user, priority))
    return ids


def checkpoint(pages: int = 1, parts: int = 1) -> Checkpoint:
    return Checkpoint(
        cursor={"page": pages + 1, "after": 2**70},
        rows=100 * pages,
        pages=pages,
        key="exports/e/1/jobs.csv",
        upload_id="u",
        parts=tuple(Part(f'"{n}"', 5 << 20) for n in range(parts)),
    )


def result(rows: int = 1) -> Result:
    return Result(
        key="exports/e/1/jobs.csv",
        file_size=7,
        record_count=rows,
        completeness=Completeness(Outcome.COMPLETE, EndReason.NULL_CURSOR, 1, 1, 0, 0, 1, 1),
        row_counts=checkpoint().row_counts,
        pages=1,
    )


def claim(store: ExportStore, lease: timedelta = LEASE, tenant_slots: int = 0) -> Claim:
    claimed = store.claim("worker-1", lease=lease, tenant_slots=tenant_slots)
    assert claimed is not None
    return claimed


def claim_ids(store: ExportStore, count: int, tenant_slots: int = 0) -> list[str]:
    """Claims and finishes `count` exports, and returns their ids in the order of the claims."""
    ids = []
    for _ in range(count):
        claimed = claim(store, tenant_slots=tenant_slots)
        finish(store, claimed)
        ids.append(claimed.export.id)
    return ids


def finish(store: ExportStore, claimed: Claim, keep_file: timedelta = KEEP, rows: int = 1) -> None:
    assert store.end(
        claimed.export.id,
        claimed.fence,
        State.FINISHED,
        result=result(rows),
        keep_file=keep_file,
        keep_record=KEEP,
    )


def partitions_of(*rows: int) -> list[Partition]:
    """Returns consecutive partitions with these numbers of rows."""
    return [
        Partition(place, sum(rows[:place]), count, sum(rows)) for place, count in enumerate(rows)
    ]


def cut(store: ExportStore, export_id: str, *rows: int, priority: int = 0) -> None:
    """Creates and claims an export, and cuts it into partitions with these numbers of rows.

    The export must be the next to be claimed.
    """
    store.create(spec(export_id, priority=priority))
    assert store.cut(export_id, claim(store).fence, partitions_of(*rows)) is Verdict.CONTINUE


def names(events: list[Event]) -> list[str]:
    return [event.type for event in events]


def known(store: ExportStore, export_id: str) -> Export:
    export = store.get(export_id)
    assert export is not None
    return export


def drain(store: ExportStore) -> list[tuple[str, int]]:
    """Takes all pending wake-ups and returns their export ids and priorities."""
    wakes = iter(lambda: store.next_wake(timeout=timedelta(0)), None)
    return [(wake.export_id, wake.priority) for wake in wakes]


def race(runners: int, run: Callable[[int], object]) -> list[object]:
    """What each of that many threads got or raised, all let go at once."""
    start = threading.Barrier(runners)
    found: list[object] = []

    def go(runner: int) -> None:
        start.wait()
        try:
            found.append(run(runner))
        except ExporterError as error:
            found.append(error)

    threads = [threading.Thread(target=go, args=(runner,)) for runner in range(runners)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


STALE: dict[str, Callable[[ExportStore, str], object]] = {
    "renew": lambda store, fence: store.renew("e", fence, lease=LEASE, progress=0.9),
    "commit": lambda store, fence: store.commit(
        "e", fence, checkpoint(9, 9), lease=LEASE, progress=0.9, closing=result()
    ),
    "release": lambda store, fence: store.release(
        "e", fence, clean=True, retry_in=LEASE, reason="stale"
    ),
    "finish": lambda store, fence: store.end(
        "e", fence, State.FINISHED, result=result(), keep_file=KEEP, keep_record=KEEP
    ),
    "fail": lambda store, fence: store.end(
        "e", fence, State.FAILED, error="stale", keep_record=KEEP
    ),
}
