"""Tests of parts uploaded in threads: order of commits, bounds, abandoned uploads."""

from __future__ import annotations

import contextlib
import gzip
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from datetime import timedelta
from hashlib import shake_256

import msgspec
import pytest
import zstandard

from exporter.core import threads
from exporter.core.checkpoints import Checkpoint, FileState
from exporter.core.exports import State
from exporter.errors import StorageUnavailable
from exporter.run import uploads
from exporter.run.run_slice import Ending, Limits
from exporter.storage.base import FileHeaders
from tests import fast
from tests.harness import LIMITS, Bench, Crash, postings
from tests.waiting import until

AHEAD = 2
ALONE = msgspec.structs.replace(LIMITS, part_size=12_000)
THREADED = msgspec.structs.replace(ALONE, parts_ahead=AHEAD)
ROWS = [
    b'{"_id":"%06d","title":"%s","n":%d}' % (n, b64encode(shake_256(b"%d" % n).digest(900)), n)
    for n in range(400)
]
"""Rows that hardly compress. Each page is a part; compressed, every few pages."""


class Slow:
    """Delays parts of a bench until each is released."""

    def __init__(self, bench: Bench, held: Callable[[int], bool]) -> None:
        self.begun: list[int] = []
        self.events: dict[int, threading.Event] = {}
        self.at_once = self.most_at_once = 0
        self._lock = threading.Lock()
        self._held = held
        self._real = bench.storage.put_part
        bench.storage.put_part = self.put  # type: ignore[method-assign, assignment]

    def put(self, key: str, upload_id: str, number: int, data: bytearray, checksum: str) -> object:
        with self._lock:
            self.begun.append(number)
            event = self.events.setdefault(number, threading.Event())
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            if self._held(number):
                assert event.wait(30)
            return self._real(key, upload_id, number, data, checksum)
        finally:
            with self._lock:
                self.at_once -= 1

    def let_go(self) -> None:
        self._held = lambda _: False
        for event in list(self.events.values()):
            event.set()


@contextlib.contextmanager
def working(bench: Bench) -> Iterator[list[Ending]]:
    """Runs the bench in a thread beside the block, which must bring the export to its end."""
    endings: list[Ending] = []
    worker = threading.Thread(target=lambda: endings.extend(bench.run()))
    worker.start()
    yield endings
    worker.join(30)
    assert not worker.is_alive()


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "POLL_SECONDS", 0.01)


def unpacked(data: bytes, compression: str) -> bytes:
    if compression == "zstd":
        return zstandard.ZstdDecompressor().stream_reader(data, read_across_frames=True).read()
    return gzip.decompress(data) if compression == "gzip" else data


@pytest.mark.parametrize("compression", ["none", "gzip", "zstd"])
def test_a_file_made_with_threads_has_the_bytes_of_one_made_without(compression: str) -> None:
    # Given
    alone = Bench(ROWS, compression=compression, limits=ALONE)
    beside = Bench(ROWS, compression=compression, limits=THREADED, read_ahead=4)
    # When
    alone.run()
    beside.run()
    # Then
    assert {"put_part", "complete"} <= set(beside.seams.calls)
    assert beside.file() == alone.file()
    assert unpacked(beside.file(), compression).count(b"\r\n") == 1 + len(ROWS)


@pytest.mark.external
def test_the_encoder_goes_on_while_parts_are_under_way_and_stops_at_the_bound() -> None:
    # Given: a store that keeps every part waiting
    bench = Bench(ROWS, limits=THREADED)
    slow = Slow(bench, lambda _: True)
    with working(bench):
        # When
        until(lambda: len(slow.begun) == AHEAD + 1)
        pages = bench.listed.fetched
        time.sleep(0.1)
        # Then: the encoder waits until there is room for its next part
        assert sorted(slow.begun) == [1, 2, 3]
        assert bench.listed.fetched == pages < 40
        assert bench.export.checkpoint is None
        slow.let_go()
    assert bench.export.state is State.FINISHED
    assert slow.most_at_once == AHEAD + 1


def test_parts_that_are_large_go_up_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    # Given
    monkeypatch.setattr(uploads, "MAX_UPLOADING_BYTES", 1_000)
    bench = Bench(ROWS, limits=THREADED)
    slow = Slow(bench, lambda _: False)
    # When
    bench.run()
    # Then
    assert len(slow.begun) > 5
    assert slow.most_at_once == 1


def test_the_parts_of_one_large_page_leave_no_more_memory_than_can_be_used() -> None:
    # Given
    bench = Bench(ROWS)
    headers = FileHeaders("text/csv", "jobs.csv")
    file = bench.storage.open_file("e1/", "1-a", headers, FileState(), piece_bytes=1_000)
    spare: list[bytearray] = []
    uploader = uploads.PieceUploader(file, ahead=AHEAD, check=lambda: None, spare=spare)
    # When: a page makes twelve parts, before the first is written into memory of one before
    for number in range(12):
        uploader.send(
            bytearray(1_000), uploads.Position(Checkpoint(cursor=0), 1_000 * (number + 1))
        )
        while uploader.next_stored(lambda: True, all_=True):
            pass
    # Then
    assert len(spare) == AHEAD


@pytest.mark.external
def test_a_part_is_named_only_after_every_part_before_it_is_stored() -> None:
    # Given: the second part is there before the first
    bench = Bench(ROWS, limits=THREADED)
    slow = Slow(bench, lambda number: number == 1)
    commits: list[int] = []
    real = bench.memory_store.commit

    def commit(id_: str, fence: str, at: Checkpoint, **more: object) -> object:
        commits.append(len(at.parts))
        return real(id_, fence, at, **more)  # type: ignore[arg-type]

    bench.memory_store.commit = commit  # type: ignore[method-assign, assignment]
    with working(bench):
        # When
        until(lambda: {2, 3} <= set(slow.begun) and slow.at_once == 1)
        time.sleep(0.05)
        # Then
        assert commits == []
        slow.let_go()
    assert len(commits) > 20
    assert commits == sorted(set(commits))
    calm = Bench(ROWS)
    calm.run()
    assert bench.file() == calm.file()


def test_a_part_left_behind_by_a_worker_that_shuts_down_can_not_hurt_the_file() -> None:
    # Given: the third part hangs, and the worker shuts down
    bench, calm = Bench(ROWS, limits=THREADED), Bench(ROWS)
    calm.run()
    slow = Slow(bench, lambda number: number == 3)

    def draining() -> bool:
        bench.clock.advance(0.1)
        return 3 in slow.begun

    bench.draining = draining
    # When
    began = time.monotonic()
    ending = bench.slice()
    # Then: it ends soon, and its release is not clean, because a write may still arrive
    assert ending is Ending.HANDED_OVER
    assert time.monotonic() - began < 5
    claim = bench.claim()
    assert claim is not None
    assert not claim.clean
    # When: the part reaches the store in the middle of the next worker's slice
    bench.draining = lambda: False
    real = bench.storage.copy_part

    def copy_part(*args: object) -> object:
        slow.let_go()
        until(lambda: slow.at_once == 0)
        return real(*args)  # type: ignore[arg-type]

    bench.storage.copy_part = copy_part  # type: ignore[method-assign, assignment]
    bench.slice(claim)
    bench.run()
    # Then
    assert bench.file() == calm.file()
    assert bench.bucket() == [bench.export.result.key] if bench.export.result else False


def test_a_cancel_waits_for_the_parts_under_way_and_leaves_nothing() -> None:
    # Given
    bench = Bench(ROWS, limits=THREADED, seconds_a_page=0.3)
    slow = Slow(bench, lambda number: number == 2)
    real = bench.listed.fetch

    def cancels(query: dict[str, object], cursor: int) -> object:
        if cursor == 30:
            until(lambda: 2 in slow.begun)
            bench.memory_store.request_cancel("e1", keep_record=timedelta(days=1))
            threading.Timer(0.1, slow.let_go).start()
        return real(query, cursor)

    bench.listed.fetch = cancels  # type: ignore[method-assign, assignment]
    # When
    endings = bench.run()
    # Then
    assert endings == [Ending.CANCELED]
    assert slow.at_once == 0
    assert bench.bucket() == []


@pytest.mark.parametrize("limits", [LIMITS, THREADED], ids=["one thread", "threads"])
def test_an_s3_that_is_away_makes_the_export_wait_and_costs_no_row(limits: Limits) -> None:
    # Given: S3 is away for ten minutes from the third part on
    bench, calm = Bench(ROWS, limits=limits, seconds_a_page=0.3), Bench(ROWS)
    calm.run()
    parts = 0

    def away(name: str, _key: str = "") -> None:
        nonlocal parts
        parts += name == "put_part"
        if parts >= 3 and bench.clock.monotonic() < 600:
            raise StorageUnavailable("connection refused")

    bench.storage.before = away
    # When
    endings = bench.run(slices=10_000)
    # Then
    assert Ending.WAITING in endings
    assert bench.file() == calm.file()
    assert len(bench.bucket()) == 1


def test_a_worker_that_lost_its_lease_leaves_its_parts_and_changes_nothing() -> None:
    # Given: parts hang until another worker took over and finished
    bench, calm = Bench(ROWS, limits=THREADED), Bench(ROWS)
    calm.run()
    slow = Slow(bench, lambda number: number > 1)
    real, slept = bench.listed.fetch, False

    def sleeps(query: dict[str, object], cursor: int) -> object:
        nonlocal slept
        if cursor == 30 and not slept:
            slept = True
            until(lambda: 2 in slow.begun)
            slow._held = lambda _: False
            bench.bury()
            assert bench.run()[-1] is Ending.FINISHED
            slow.let_go()
            until(lambda: slow.at_once == 0)
        return real(query, cursor)

    bench.listed.fetch = sleeps  # type: ignore[method-assign, assignment]
    # When
    ending = bench.slice()
    # Then
    assert ending is Ending.LOST
    assert bench.file() == calm.file()
    assert len(bench.bucket()) == 1


@pytest.mark.parametrize(("compression", "die_after"), [("none", True), ("zstd", False)])
def test_a_crash_at_any_moment_of_a_slice_with_threads_costs_no_row(
    compression: str, die_after: bool
) -> None:
    # Given: slices that take ten pages, with tails, or all of it
    def threaded() -> Bench:
        return Bench(
            ROWS[:200],
            compression=compression,
            limits=msgspec.structs.replace(THREADED, part_size=30_000),
            read_ahead=3,
            seconds_a_page=3.0,
        )

    calm = threaded()
    calm.run()
    whole = unpacked(calm.file(), compression)
    calls = len(calm.seams.calls)
    assert {"put_part", "complete", "read", "release"} <= set(calm.seams.calls)
    crashes, places = 0, fast.sample(range(calls))
    for at in places:
        # When
        bench = threaded()
        bench.seams.die_at, bench.seams.die_after = at, die_after
        try:
            bench.run()
        except Crash:
            crashes += 1
            bench.bury()
            bench.run()
        # After a run with fewer calls the crash would hit the assertions below.
        bench.seams.die_at = None
        # Then
        assert unpacked(bench.file(), compression) == whole, at
        assert bench.export.result is not None
        assert bench.bucket() == [bench.export.result.key], at
        assert bench.export.result.record_count == 200, at
    # The order of calls from threads varies, and so does their number, a little.
    assert crashes > len(places) * 0.8


def test_a_compressed_volume_without_a_byte_is_a_file_that_readers_take() -> None:
    # Given
    bench = Bench([], format="json", compression="zstd")
    # When
    bench.run()
    # Then
    assert unpacked(bench.file(), "zstd") == b""
    assert bench.file() != b""


def test_volumes_of_zstd_are_files_of_their_own() -> None:
    # Given
    bench = Bench(
        postings(45), format="json", compression="zstd", rows_per_file=20, seconds_a_page=14.0
    )
    # When
    bench.run()
    # Then
    assert bench.export.result is not None
    cuts = [(v.offset, v.offset + v.size) for v in bench.export.result.volumes]
    texts = [unpacked(bench.file()[begin:end], "zstd") for begin, end in cuts]
    assert [text.count(b"\n") for text in texts] == [20, 20, 5]
    assert cuts[-1][1] == bench.export.result.file_size
