"""The service's numbers for Prometheus.

No key is asked for, because scrapers have none: let it be reached from the inside network alone.
It tells how much is done, never for whom.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from fastapi import APIRouter, Request
from starlette.responses import Response

from exporter.api.state import service_of
from exporter.store.base import QueueCounts

router = APIRouter(include_in_schema=False)

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
COUNTERS: Mapping[str, str] = {
    "exports_created": "Exports recorded.",
    "exports_replayed": "Creations answered with an export that the same idempotency key made.",
    "exports_finished": "Exports that published their file.",
    "exports_failed": "Exports that ended without a file.",
    "exports_canceled": "Exports that ended because their owner withdrew them.",
    "exports_deleted": "Exports that their owner deleted, in whatever state.",
    "exports_cut": "Exports cut into partitions that are read side by side.",
    "exports_rejoined": "Exports that were cut, and had to be read once more as one.",
    "slices_claimed": "Slices that workers began.",
    "takeovers": "Slices whose worker before did not let go in order.",
    "leases_expired": "Leases of workers that were not heard of in time.",
    "stalls": "Waits for an upstream or S3.",
    "levels_risen": "Levels that exports rose because they were ready for long.",
    "rows": "Rows in the files of finished exports.",
    "file_bytes": "Bytes of the files of finished exports.",
    "credits_reserved": "Credits taken from keys, for exports and for what costs at once.",
    "credits_charged": "Credits paid for records.",
    "credits_given_back": "Credits that exports had reserved and did not need.",
    "webhooks_created": "Deliveries of webhooks that were begun.",
    "webhooks_delivered": "Deliveries that the receiver answered with 2xx.",
    "webhooks_failed": "Tries at a delivery that failed.",
    "webhooks_dead": "Deliveries that were given up.",
    "delivery_leases_expired": "Tries whose worker was not heard of in time.",
    "files_cleaned": "Files deleted after their retention.",
    "uploads_cleaned": "Open uploads aborted because their export lived no more.",
    "strays_cleaned": "Objects deleted that were no export's file.",
}
"""What is counted, by the name that the store counts it under."""


@router.get("/metrics")
def show(request: Request) -> Response:
    """All counters and gauges; the same from every API process, for they are the store's."""
    store = service_of(request).store
    return Response(
        render(store.counters(), store.queue_counts()),
        headers={"Content-Type": CONTENT_TYPE},
    )


def render(counters: Mapping[str, int], queue: QueueCounts) -> str:
    """Everything in the text format of Prometheus, version 0.0.4.

    Each name is `exporter_…`, that of a counter ends in `_total`. Counters start with the store's
    first export and survive restarts of every process; each is the same whichever process is
    asked, so take the maximum over processes, never the sum. The same goes for gauges.
    """
    return "".join(f"{line}\n" for line in _lines(counters, queue))


def _lines(counters: Mapping[str, int], queue: QueueCounts) -> Iterator[str]:
    for name, meaning in COUNTERS.items():
        yield from _family(f"exporter_{name}_total", "counter", meaning)
        yield f"exporter_{name}_total {counters.get(name, 0)}"
    yield from _family("exporter_ready_exports", "gauge", "Exports ready for a worker, by level.")
    for level, exports in enumerate(queue.ready):
        yield f'exporter_ready_exports{{level="{level}"}} {exports}'
    gauges = {
        "running_leases": ("Leases of workers at work.", queue.running),
        "waiting_exports": ("Exports that wait for an upstream or S3.", queue.waiting),
        "wake_ups": ("Wake-ups that no worker heard yet.", queue.wakes),
        "kept_files": ("Files not yet deleted after their retention.", queue.kept_files),
        "deleted_exports": ("Deleted exports whose objects are not removed yet.", queue.deleted),
    }
    for name, (meaning, value) in gauges.items():
        yield from _family(f"exporter_{name}", "gauge", meaning)
        yield f"exporter_{name} {value}"


def _family(name: str, kind: str, meaning: str) -> Iterator[str]:
    yield f"# HELP {name} {meaning}"
    yield f"# TYPE {name} {kind}"
