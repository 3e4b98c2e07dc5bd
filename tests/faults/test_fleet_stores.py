"""The main job, with workers killed, on stores with the rules of R2, B2 and virtual hosts."""

from __future__ import annotations

from pathlib import Path

import pytest

from exporter.storage.keys import prefix
from tests.conftest import S3
from tests.faults.fleet import PAGE_ROWS, Fleet, running, until
from tests.store_rules import StoreRules, resolve

pytestmark = [pytest.mark.stack, pytest.mark.timeout(240)]

FILLER = b"x" * 30_000
"""Of each row: a page has 0.6 MB, a part of 5 MiB has 9 pages."""
PAGES = {"serial": 39, "cut": 60}
"""Pages of the exports; those with two times PARTITION_ROWS rows are cut into partitions."""
PARTITION_ROWS = 400
RESOLVED = "from tests.store_rules import resolve; kept = resolve.localhost(); kept.__enter__()"


def _expected(name: str) -> bytes:
    return b"".join(
        b'{"_id":"%s-%d","description":"%s"}\n' % (name.encode(), n, FILLER)
        for n in range(PAGES[name] * PAGE_ROWS)
    )


def _has_parts(fleet: Fleet, export_id: str) -> bool:
    """True if a checkpoint of the export, or of one of its partitions, names stored parts."""
    records = [fleet.record(export_id), *fleet.store.partitions(export_id)]
    return any(one.checkpoint is not None and one.checkpoint.parts for one in records)


@pytest.mark.parametrize(
    "profile",
    [
        "r2",
        pytest.param("b2", marks=pytest.mark.soak),
        pytest.param("virtual", marks=pytest.mark.soak),
    ],
)
def test_serial_and_partitioned_exports_have_the_bytes_of_the_rows_though_workers_are_killed(
    s3_server: S3, tmp_path: Path, profile: str
) -> None:
    # Given: a store that refuses what the real one refuses, and two workers
    with (
        resolve.localhost(),
        StoreRules(
            profile, s3_server.endpoint_url, s3_server.access_key, s3_server.secret_key
        ) as store,
        running(
            tmp_path,
            s3_server._replace(
                endpoint_url=store.virtual_url if profile == "virtual" else store.url
            ),
            S3_ADDRESSING="virtual" if profile == "virtual" else "path",
            PARTITION_ROWS=str(PARTITION_ROWS),
            PART_SIZE="5MiB",
        ) as fleet,
    ):
        workers = [fleet.worker(patch=RESOLVED) for _ in range(2)]
        exports = {
            name: fleet.create(name, pages, filler=FILLER, delay=0.1)
            for name, pages in PAGES.items()
        }
        # When: each worker is killed once parts are stored, and another starts
        for name, export_id in exports.items():
            until(lambda one=export_id: _has_parts(fleet, one), 60, f"parts of {name}")  # type: ignore[misc]
            workers.pop(0).kill()
            workers.append(fleet.worker(patch=RESOLVED))
        until(lambda: fleet.ended(list(exports.values())), 120, "the end of both exports")
        # Then
        assert fleet.record(exports["cut"]).partitions == 3
        assert not fleet.record(exports["serial"]).partitions
        for name, export_id in exports.items():
            assert fleet.file(export_id) == _expected(name), name
            found = [one.key for one in fleet.storage.objects(prefix(export_id))]
            result = fleet.record(export_id).result
            assert result is not None
            assert found == [result.key]
            assert list(fleet.storage.unfinished(prefix(export_id))) == []
        # B2 knows neither conditions nor the checksum that is announced.
        known = {"NotImplemented", "InvalidArgument"} if profile == "b2" else set()
        announced = [one for one in store.refused_work if one[1] == "InvalidArgument"]
        assert {code for _, code in store.refused_work} <= known, store.refused
        assert {operation for operation, _ in announced} <= {"CreateMultipartUpload"}
