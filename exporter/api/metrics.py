"""Metrics of the service in the text format of Prometheus.

The endpoint needs no API key, because scrapers have none: make it reachable from the internal
network only. The metrics count work and never name a user.
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
    "exports_canceled": "Exports that their owner canceled.",
    "exports_deleted": "Exports that their owner deleted, in any state.",
    "exports_cut": "Exports split into partitions that are read in parallel.",
    "exports_rejoined": "Exports that were split and then had to be read again without partitions.",
    "slices_claimed": "Slices that workers started.",
    "takeovers": "Slices started after the previous worker did not release the export cleanly.",
    "leases_expired": "Export leases that their worker did not renew in time.",
    "slices_crashed": "Slices that ended with an unexpected error.",
    "records_set_aside": "Times that an export waited because its record could not be read.",
    "deliveries_set_aside": "Webhook attempts that an error of the sender prevented.",
    "deliveries_damaged": "Webhook deliveries given up because their record is damaged.",
    "events_set_aside": "Times that an event waited because it or its record could not be read.",
    "events_dropped": "Events that no webhook reported because they could not be read.",
    "stalls": "Times that an export paused to wait for an upstream or S3.",
    "levels_risen": "Times that an export was raised one priority level because it waited long.",
    "rows": "Rows in the files of finished exports.",
    "file_bytes": "Bytes of the files of finished exports.",
    "credits_reserved": "Credits taken from keys, for exports and for immediate charges.",
    "credits_charged": "Credits charged for records.",
    "credits_given_back": "Credits that exports had reserved and did not use.",
    "webhooks_created": "Webhook deliveries created for events.",
    "webhooks_delivered": "Webhook deliveries that the receiver answered with 2xx.",
    "webhooks_failed": "Failed webhook attempts after which another attempt was scheduled.",
    "webhooks_dead": "Webhook deliveries that were given up.",
    "delivery_leases_expired": "Webhook attempts whose worker did not report in time.",
    "files_cleaned": "Files deleted after their retention.",
    "uploads_cleaned": "Multipart uploads aborted because their export had ended or was gone.",
    "strays_cleaned": "Deleted objects that belonged to no export.",
}
"""Maps the names of the store's counters to their help texts."""


@router.get("/metrics")
def show(request: Request) -> Response:
    """Answers with all metrics, which are the same in every process: the store keeps the counts."""
    store = service_of(request).store
    return Response(
        render(store.counters(), store.queue_counts()),
        headers={"Content-Type": CONTENT_TYPE},
    )


def render(counters: Mapping[str, int], queue: QueueCounts) -> str:
    """Returns all metrics in the text format of Prometheus, version 0.0.4.

    Each name begins with `exporter_`; the name of a counter ends with `_total`. Counters start with
    the store's first export and survive restarts of every process. All processes report the same
    values, so aggregate counters and gauges by the maximum over processes, never by the sum.
    """
    return "".join(f"{line}\n" for line in _lines(counters, queue))


def _lines(counters: Mapping[str, int], queue: QueueCounts) -> Iterator[str]:
    for name, meaning in COUNTERS.items():
        yield from _family(f"exporter_{name}_total", "counter", meaning)
        yield f"exporter_{name}_total {counters.get(name, 0)}"
    yield from _family(
        "exporter_ready_exports", "gauge", "Exports ready for a worker, by priority level."
    )
    for level, exports in enumerate(queue.ready):
        yield f'exporter_ready_exports{{level="{level}"}} {exports}'
    gauges = {
        "running_leases": ("Leases of exports that workers process.", queue.running),
        "waiting_exports": ("Exports that wait for an upstream or S3.", queue.waiting),
        "wake_ups": ("Wake-ups that no worker has received yet.", queue.wakes),
        "kept_files": ("Files that are not deleted yet.", queue.kept_files),
        "deleted_exports": ("Deleted exports whose objects are not removed yet.", queue.deleted),
    }
    for name, (meaning, value) in gauges.items():
        yield from _family(f"exporter_{name}", "gauge", meaning)
        yield f"exporter_{name} {value}"


def _family(name: str, kind: str, meaning: str) -> Iterator[str]:
    yield f"# HELP {name} {meaning}"
    yield f"# TYPE {name} {kind}"
