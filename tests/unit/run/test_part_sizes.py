"""Tests of the sizes of parts: all but the last are equal, and there are never too many.

The store of the bench refuses other parts, as Cloudflare R2 does.
"""

from __future__ import annotations

from base64 import b64encode
from hashlib import shake_256

import pytest

from exporter.core.checkpoints import Part
from exporter.core.exports import State
from exporter.run.run_slice import Ending
from exporter.storage.s3 import multipart
from tests import fast
from tests.harness import LIMITS, Bench, Crash, postings

ROWS = postings(600)
NOISY = [
    b'{"_id":"%06d","title":"%s","n":%d}' % (n, b64encode(shake_256(b"%d" % n).digest(1_200)), n)
    for n in range(600)
]
"""Rows that hardly compress."""


def calm_file(**options: object) -> bytes:
    bench = Bench(ROWS, **options)  # type: ignore[arg-type]
    bench.run()
    return bench.file()


class Parts:
    """Records the size of every part that a bench stores."""

    def __init__(self, bench: Bench) -> None:
        self.sizes: list[int] = []
        self._real = bench.storage.put_part
        bench.storage.put_part = self._put  # type: ignore[method-assign]

    def _put(
        self, key: str, upload_id: str, number: int, data: bytes | bytearray, checksum: str = ""
    ) -> Part:
        self.sizes.append(len(data))
        return self._real(key, upload_id, number, data, checksum)


@pytest.mark.parametrize("compression", ["none", "gzip", "zstd"])
def test_all_parts_but_the_last_have_the_configured_size(compression: str) -> None:
    # Given
    bench = Bench(NOISY, compression=compression)
    parts = Parts(bench)
    # When
    bench.run()
    # Then
    assert len(parts.sizes) > 10
    assert set(parts.sizes[:-1]) == {LIMITS.part_size}
    assert 0 < parts.sizes[-1] <= LIMITS.part_size
    assert sum(parts.sizes) == len(bench.file())


def test_a_page_of_many_parts_is_stored_as_parts_of_one_size_too() -> None:
    # Given
    bench = Bench(ROWS, page_size=300)
    parts = Parts(bench)
    # When
    bench.run()
    # Then
    assert len(parts.sizes) > 10
    assert set(parts.sizes[:-1]) == {LIMITS.part_size}
    assert bench.file() == calm_file()


def test_a_file_that_will_be_large_has_larger_parts_from_the_first_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Given: the announced rows make a file of 25,000 bytes
    monkeypatch.setattr(multipart, "EXPECTED_PARTS", 5)
    bench = Bench(ROWS)
    parts = Parts(bench)
    # When
    bench.run()
    # Then
    assert len(set(parts.sizes[:-1])) == 1
    assert 4_500 < parts.sizes[0] < 5_500
    assert bench.file() == calm_file()


@pytest.mark.parametrize("die_after", [False, True], ids=["before", "after"])
def test_a_file_that_outgrows_its_parts_goes_on_with_larger_ones_wherever_a_worker_dies(
    monkeypatch: pytest.MonkeyPatch, die_after: bool
) -> None:
    # Given: a source that does not announce how many rows it has
    expected = calm_file(announces=False)
    monkeypatch.setattr(multipart, "FULL_UPLOAD_PARTS", 5)
    monkeypatch.setattr(multipart, "MAX_PARTS", 7)
    monkeypatch.setattr(multipart, "MAX_GROWTH", 4)
    calm = Bench(ROWS, announces=False)
    parts = Parts(calm)
    assert calm.run() == [Ending.HANDED_OVER, Ending.FINISHED]
    assert calm.file() == expected
    assert set(parts.sizes[:-1]) == {2_000, 8_000}
    for at in fast.sample(range(len(calm.seams.calls))):
        # When
        bench = Bench(ROWS, announces=False)
        bench.seams.die_at, bench.seams.die_after = at, die_after
        with pytest.raises(Crash):
            bench.run()
        bench.bury()
        bench.run()
        # Then
        where = f"{at}, {calm.seams.calls[at]}"
        assert bench.file() == expected, where
        assert bench.export.result is not None
        assert bench.bucket() == [bench.export.result.key], where


def test_a_file_of_more_parts_than_a_store_accepts_fails_and_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Given
    monkeypatch.setattr(multipart, "MAX_PARTS", 5)
    bench = Bench(ROWS)
    # When
    bench.run()
    # Then
    assert bench.export.state is State.FAILED
    assert bench.export.error is not None
    assert "more than 5 parts of 2000 bytes" in bench.export.error
    assert "EXPORTER_PART_SIZE" in bench.export.error
    assert bench.bucket() == []


def test_a_dead_worker_costs_less_than_one_part_of_what_was_committed() -> None:
    # Given: a worker that dies after it has stored ten parts
    bench = Bench(ROWS)
    tenth = [at for at, call in enumerate(_calls()) if call == "commit"][9]
    bench.seams.die_at, bench.seams.die_after = tenth, True
    with pytest.raises(Crash):
        bench.run()
    died = bench.export.checkpoint
    assert died is not None
    # When
    bench.bury()
    claim = bench.claim()
    assert claim is not None
    assert claim.export.checkpoint is not None
    # Then: the position lies within the last part, or at its end
    stored = sum(part.size for part in died.stored_parts)
    assert stored == 10 * LIMITS.part_size
    assert 0 < died.overhang < LIMITS.part_size
    assert died.uploaded == stored - died.overhang
    bench.slice(claim)
    assert bench.file() == calm_file()


def _calls() -> list[str]:
    bench = Bench(ROWS)
    bench.run()
    return bench.seams.calls
