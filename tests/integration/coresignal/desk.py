"""Data requests of the Coresignal contract: how the tests create, work off and check them."""

from __future__ import annotations

from typing import Any

import httpx
from msgspec.structs import replace

from exporter.core.exports import Export, State
from exporter.formats import registry
from exporter.run.run_slice import run_slice
from exporter.sources.memory import MemorySource
from exporter.storage.s3.limits import MIN_PART_BYTES
from tests.harness import LIMITS
from tests.integration.api_server import LEASE, Service

V1 = "/v1/professional_network/job/bulk_collect"
V2 = "/v2/data_requests/job_base"


def holding(api: Service, rows: int) -> None:
    """Let the source have so many postings, with the ids 1, 2, 3 …"""
    postings = [b'{"_id":"%d","title":"Welder \\u2028 %d"}' % (n, n) for n in range(1, rows + 1)]
    api.engine.sources.opened["coresignal"] = MemorySource(
        postings, page_size=1_000, columns=("_id", "title")
    )


def create(api: Service, root: str = V2, **body: Any) -> httpx.Response:
    return api.http.post(f"{root}/filter", json={"filters": {"title": "Welder"}, **body})


def work(api: Service, export_id: str) -> Export:
    """Do what a worker does with this export, until it has ended."""
    while True:
        claimed_at = api.clock.monotonic()
        claim = api.engine.store.claim("worker-test-1", lease=LEASE)
        assert claim is not None
        spec = claim.export.spec
        run_slice(
            claim,
            source=api.engine.reader(claim.export),
            encoder=registry.make(spec.format, spec.dialect, spec.column_names),
            storage=api.storage,
            store=api.engine.store,
            clock=api.clock,
            limits=replace(LIMITS, part_size=MIN_PART_BYTES),
            claimed_at=claimed_at,
        )
        export = api.engine.store.get(export_id)
        assert export is not None
        if export.terminal:
            return export
        api.clock.advance(61)
        api.engine.store.sweep()


def collected(api: Service, answer: httpx.Response, place: str = "/v2/data_requests") -> str:
    """Where the files of a data request stand, once a worker is through with it."""
    assert answer.status_code == 201, answer.text
    export_id = answer.json()["request_id"]
    assert work(api, export_id).state is State.FINISHED
    return f"{place}/{export_id}/files"


def check_flat(answer: httpx.Response, status: int, text: str = "") -> str:
    """The error's text, after checking that it is of the contract's shape."""
    assert answer.status_code == status, answer.text
    assert answer.headers["Content-Type"] == "application/json"
    body = answer.json()
    assert list(body) == ["detail"]
    assert isinstance(body["detail"], str)
    assert text in body["detail"]
    return str(body["detail"])


def is_empty(api: Service) -> bool:
    return not api.engine.store.list("ann", limit=1).exports and not list(api.storage.objects(""))
