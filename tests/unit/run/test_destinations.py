"""Exports to every destination that needs no server: the file survives the death of its workers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from exporter.clock import Clock
from exporter.storage import registry
from tests import fast
from tests.contract.folder import INSIDE
from tests.harness import LIMITS, Bench, Crash, postings, run_in_order

ROWS = postings(250)
CUT = msgspec.structs.replace(LIMITS, partition_rows=60, partitions=4, part_size=1_500)
SLOW = msgspec.structs.replace(LIMITS, part_size=1_500)


def _bench(folder: Path, scheme: str, **options: Any) -> Bench:
    def connect(clock: Clock) -> Any:
        storage: Any = registry.connect(f"{scheme}:{folder}", None, clock)
        storage._part_size_min = 1  # of the memory
        return storage

    return Bench(ROWS, storage=connect, **options)


@pytest.mark.parametrize("scheme", INSIDE)
@pytest.mark.parametrize(
    "options",
    [{"limits": CUT, "read_ahead": 2}, {"limits": SLOW, "seconds_a_page": 4.0}],
    ids=["partitions", "slices with tails"],
)
def test_a_worker_that_dies_at_any_call_is_replaced_and_the_file_is_that_of_a_calm_run(
    tmp_path: Path, scheme: str, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given: what one calm worker writes, and the calls of this fleet, each time the same
    run_in_order(monkeypatch)
    alone = Bench(ROWS)
    alone.run()
    calm = _bench(tmp_path / "calm", scheme, **options)
    calm.run()
    assert calm.file() == alone.file()
    for at in fast.sample(range(0, len(calm.seams.calls), 3)):
        # When: the process dies at a call, and others go on
        bench = _bench(tmp_path / str(at), scheme, **options)
        bench.seams.die_at, bench.seams.die_after = at, bool(at % 2)
        bench.listed.is_cut = bool(at % 2)
        with pytest.raises(Crash):
            bench.run()
        bench.bury()
        bench.run()
        # Then
        where = f"{at}, {calm.seams.calls[at]}"
        assert bench.file() == alone.file(), where
        assert bench.export.result is not None
        assert bench.bucket() == [bench.export.result.key], where
