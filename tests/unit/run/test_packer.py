"""Tests of compression, volumes and id lists: complete after any crash, readable by any reader."""

from __future__ import annotations

import gzip
import json
import subprocess
import zlib
from base64 import b64encode
from collections.abc import Callable
from hashlib import shake_256

import msgspec
import pytest

from exporter.core.checkpoints import Volume
from exporter.core.exports import EndReason, Outcome, State
from exporter.errors import SourceUnavailable
from tests import fast
from tests.harness import Bench, Crash, postings


def noisy(count: int) -> list[bytes]:
    """Rows that hardly compress, so that small files have several parts."""
    return [
        b'{"_id":"%06d","title":"%s","n":%d}' % (n, b64encode(shake_256(b"%d" % n).digest(600)), n)
        for n in range(count)
    ]


def volumes(bench: Bench) -> list[bytes]:
    """Returns the ranges of the file that are complete files by themselves."""
    assert bench.export.result is not None
    whole = bench.file()
    return [whole[v.offset : v.offset + v.size] for v in bench.export.result.volumes]


def ids_of(text: bytes) -> list[str]:
    return [json.loads(line)["_id"] for line in text.splitlines()]


WANTED = [f"{n:06d}" for n in range(0, 140, 2)]
"""Of 100 rows, 20 of these ids are unknown."""

KINDS: dict[str, Callable[[float], Bench]] = {
    "one": lambda s: Bench(noisy(200), compression="gzip", seconds_a_page=s),
    "volumes": lambda s: Bench(noisy(90), compression="gzip", rows_per_file=37, seconds_a_page=s),
    "ids": lambda s: Bench(
        noisy(100),
        format="json",
        compression="gzip",
        rows_per_file=20,
        ids=WANTED,
        seconds_a_page=s,
    ),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("die_after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("seconds_a_page", [0.3, 14.0], ids=["fast", "with-tails"])
def test_a_crash_at_any_seam_then_another_run_yields_the_content_of_a_calm_run(
    kind: str, die_after: bool, seconds_a_page: float
) -> None:
    # Given: the number of calls over the seams of a run without a crash
    calm = KINDS[kind](seconds_a_page)
    calm.run()
    whole = gzip.decompress(calm.file())
    parts = [gzip.decompress(volume) for volume in volumes(calm)]
    calls, begun = calm.seams.calls, len(KINDS[kind](0).seams.calls)
    assert {"put_part", "complete"} <= set(calls)
    for at in fast.sample(range(begun, len(calls))):
        # When: the process dies at that call, and other workers continue
        bench = KINDS[kind](seconds_a_page)
        bench.seams.die_at, bench.seams.die_after = at, die_after
        with pytest.raises(Crash):
            bench.run()
        bench.bury()
        bench.run()
        # Then
        where = f"{'after' if die_after else 'before'} call {at}, {calls[at]}"
        assert gzip.decompress(bench.file()) == whole, where
        assert [gzip.decompress(volume) for volume in volumes(bench)] == parts, where
        assert bench.export.result is not None
        assert bench.bucket() == [bench.export.result.key], where


def test_a_compressed_file_of_many_slices_is_one_member() -> None:
    # Given: a page takes so long that each slice gets two of them
    bench = Bench(noisy(150), format="json", compression="gzip", seconds_a_page=14.0)
    # When
    bench.run()
    # Then: a reader that stops after the first member has all
    member = zlib.decompressobj(wbits=31)
    assert member.decompress(bench.file()) == b"\n".join(noisy(150)) + b"\n"
    assert member.eof
    assert member.unused_data == b""


@pytest.mark.external
def test_gunzip_reads_a_file_and_finds_no_fault() -> None:
    # Given
    bench = Bench(noisy(150), compression="gzip", seconds_a_page=14.0)
    bench.run()
    # When
    done = subprocess.run(["gunzip", "-c"], input=bench.file(), capture_output=True, check=True)
    # Then
    assert done.stdout.count(b"\r\n") == 151
    assert done.stderr == b""


@pytest.mark.parametrize(
    ("count", "sizes"), [(0, [0]), (1, [1]), (20, [20]), (21, [20, 1]), (60, [20, 20, 20])]
)
def test_a_volume_holds_so_many_rows_and_the_last_the_rest(count: int, sizes: list[int]) -> None:
    # Given
    bench = Bench(postings(count), format="json", compression="gzip", rows_per_file=20)
    # When
    bench.run()
    # Then
    texts = [gzip.decompress(volume) for volume in volumes(bench)]
    assert [text.count(b"\n") for text in texts] == sizes
    assert ids_of(b"".join(texts)) == [f"{n:06d}" for n in range(count)]
    assert bench.export.result is not None
    ends = [volume.offset + volume.size for volume in bench.export.result.volumes]
    assert [volume.offset for volume in bench.export.result.volumes] == [0, *ends[:-1]]
    assert ends[-1] == bench.export.result.file_size


def test_each_volume_of_a_csv_has_the_header() -> None:
    # Given
    bench = Bench(postings(45), compression="gzip", rows_per_file=20)
    # When
    bench.run()
    # Then
    for volume in volumes(bench):
        assert gzip.decompress(volume).startswith(b"_id,title,n\r\n")


def test_listed_ids_come_in_their_order_and_unknown_ones_are_listed_apart() -> None:
    # Given
    wanted = ["000007", "999999", "000003", "nobody", "000000"]
    bench = Bench(postings(10), format="json", compression="gzip", rows_per_file=2, ids=wanted)
    # When
    bench.run()
    # Then
    texts = [gzip.decompress(volume) for volume in volumes(bench)]
    assert [ids_of(text) for text in texts] == [["000007", "000003"], ["000000"]]
    result = bench.export.result
    assert result is not None
    last = result.unknown_ids
    assert isinstance(last, Volume)
    side = gzip.decompress(bench.file()[last.offset : last.offset + last.size])
    assert side == b"999999\nnobody\n"
    assert last.rows == 2
    proof = result.completeness
    assert (proof.outcome, proof.end_reason) == (Outcome.PARTIAL, EndReason.TOTAL_REACHED)
    assert (proof.expected, proof.exported, proof.skipped) == (5, 3, 2)
    assert bench.bucket() == [result.key]


def test_a_list_of_known_ids_is_complete() -> None:
    # Given
    ids = [f"{n:06d}" for n in range(25)]
    bench = Bench(postings(30), format="json", compression="gzip", ids=ids)
    # When
    bench.run()
    # Then
    assert bench.export.result is not None
    assert bench.export.result.completeness.outcome is Outcome.COMPLETE
    assert bench.export.result.unknown_ids is None
    assert bench.listed.fetched == 3


@pytest.mark.parametrize("ending", ["failed", "canceled"])
def test_the_list_of_ids_goes_with_its_export(ending: str) -> None:
    # Given
    bench = Bench(noisy(100), format="json", compression="gzip", ids=WANTED, seconds_a_page=14.0)
    bench.slice()
    assert any(key.endswith("/input") for key in bench.bucket())
    # When
    if ending == "failed":
        bench.clock.advance(bench.limits.deadline.total_seconds())
    else:
        bench.memory_store.request_cancel("e1", keep_record=bench.limits.keep_record)
    bench.run()
    # Then
    assert bench.export.state == ending
    assert bench.bucket() == []


def test_an_upload_that_vanished_does_not_take_the_list_of_ids_along() -> None:
    # Given: the bucket's own rules aborted an upload that a dead worker left
    calm, bench = KINDS["ids"](0.3), KINDS["ids"](5.0)
    calm.run()
    bench.slice()
    assert bench.export.checkpoint is not None
    assert bench.export.checkpoint.upload_id is not None
    claim = bench.claim()
    assert claim is not None
    for upload in list(bench.storage.open_uploads("")):
        bench.storage.abort(upload.key, upload.upload_id)
    bench.bury()
    # When
    bench.run()
    # Then
    assert bench.export.state is State.FINISHED, bench.export.error
    assert gzip.decompress(bench.file()) == gzip.decompress(calm.file())


def test_a_lookup_that_has_to_wait_costs_no_id() -> None:
    # Given
    ids = [f"{n:06d}" for n in range(40)]
    bench = Bench(postings(40), format="json", compression="gzip", ids=ids)
    real, failures = bench.listed.lookup, iter([False, True, False, True])

    def shaky(wanted: list[str], query: dict[str, object]) -> object:
        if next(failures, False):
            raise SourceUnavailable("503")
        return real(wanted, query)

    bench.listed.lookup = shaky  # type: ignore[method-assign, assignment]
    # When
    bench.run()
    # Then
    assert ids_of(gzip.decompress(bench.file())) == ids


@pytest.mark.parametrize("format_", ["csv", "json", "json_envelope"])
def test_a_worker_of_the_version_before_reads_all_fields_of_a_checkpoint(format_: str) -> None:
    # Given
    bench = Bench(noisy(100), format=format_, compression="gzip", seconds_a_page=14.0)
    # When
    bench.slice()
    # Then: that version knows no state of a format
    assert bench.export.checkpoint is not None
    fields = msgspec.to_builtins(bench.export.checkpoint.packed)
    assert set(fields) == {"is_open", "rows", "crc", "length"}


def test_an_export_of_the_version_before_volumes_goes_on_without_a_second_header() -> None:
    # Given: a checkpoint as that version wrote it
    bench = Bench(postings(150), seconds_a_page=14.0)
    calm = Bench(postings(150))
    calm.run()
    bench.slice()
    record = bench.memory_store._records["e1"]
    assert record.export.checkpoint is not None
    old = msgspec.structs.replace(
        record.export.checkpoint, packed=type(record.export.checkpoint.packed)()
    )
    record.export = msgspec.structs.replace(record.export, checkpoint=old)
    # When
    bench.run()
    # Then
    assert bench.file() == calm.file()
