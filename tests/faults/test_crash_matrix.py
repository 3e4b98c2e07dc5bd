"""A crash at every seam of an export over a real Redis and a real S3, then another worker."""

from __future__ import annotations

import random
import string
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from functools import partial
from typing import Any, cast

import msgspec
import pytest

from exporter.clock import FakeClock
from exporter.core.checkpoints import Cursor, Row
from exporter.core.exports import Export, State
from exporter.formats import registry
from exporter.local.redis import RedisServer
from exporter.maintenance import cleaning
from exporter.run.run_slice import Limits, run_slice
from exporter.sources.base import Page, Source
from exporter.sources.memory import MemorySource
from exporter.storage.base import FileHeaders, Storage
from exporter.storage.keys import prefix
from exporter.storage.s3.storage import S3Storage
from exporter.store.base import ExportStore
from exporter.store.redis.store import RedisStore
from tests.conftest import S3
from tests.faults.history import decompress
from tests.harness import COLUMNS, LIMITS, Crash, Seams, _Watched
from tests.specs import spec
from tests.store_rules import StoreRules

# A process that dies closes no socket.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")
DATABASE = 11
"""Of the test run's Redis; flushed by each test."""
PAGES = 30
ROWS = [
    b'{"_id":"%04d","title":"Engineer, \\"%d\\"\\n%s","n":%d.10}' % (n, n, b"remote " * 5_000, n)
    for n in range(PAGES * 6)
]
"""Of 35 KB, so that the file of 6.3 MB needs two parts: S3 takes none below 5 MiB."""
SECONDS_A_PAGE = 4.0
"""On the fake clock: eight pages a slice, less than a part, so that slices leave tails."""
REAL_LIMITS = msgspec.structs.replace(LIMITS, part_size=5 * 1024 * 1024)
STORE_CALLS = ("renew", "commit", "release", "end", "cut", "partitions", "rejoin")
STORAGE_CALLS = (
    *("begin", "put_part", "copy_part", "complete", "seal", "put_small", "read", "stream", "abort"),
    *("head", "delete", "objects", "open_uploads", "begin_checked"),
)


def _uneven() -> list[bytes]:
    """Rows of which four partitions of 60 are, even compressed: one to be copied; one too small
    for that; one that is joined with it; and a small one, which ends the file."""
    chances, signs = random.Random(1), string.ascii_letters + string.digits + " !#$%&()*+-/:;<=>?@"
    return [
        b'{"_id":"%04d","title":"%s","n":%d.10}'
        % (n, "".join(chances.choices(signs, k=KB[n // 60] * 1_000)).encode(), n)
        for n in range(240)
    ]


KB = (112, 4, 112, 3)
UNEVEN = _uneven()
CUT_LIMITS = msgspec.structs.replace(REAL_LIMITS, partition_rows=60, partitions=4)


class _WatchedS3(_Watched):
    composed = ("open_file", "delete_all", "unfinished", "discard")


class _SlowSource(MemorySource):
    clock: FakeClock
    seconds_a_page: float

    def fetch(self, query: Mapping[str, Any], cursor: Cursor) -> Page:
        self.clock.advance(self.seconds_a_page)
        return super().fetch(query, cursor)


class Bench:
    """One export whose seams are watched; each slice is a worker of its own."""

    def __init__(
        self,
        store: RedisStore,
        storage: S3Storage,
        format: str,  # noqa: A002
        *,
        rows: Sequence[Row] = ROWS,
        limits: Limits = REAL_LIMITS,
        compression: str = "none",
        seconds_a_page: float = SECONDS_A_PAGE,
    ) -> None:
        self.seams = Seams()
        self.limits = limits
        self.clock = FakeClock()
        self.real_store, self.real_storage = store, storage
        storage._takes_all_sizes = None  # each asks anew, as its process would
        self.store: ExportStore = _Watched(store, self.seams, STORE_CALLS)
        self.storage: Storage = _WatchedS3(storage, self.seams, STORAGE_CALLS)
        slow = _SlowSource(
            rows,
            page_size=6,
            columns=COLUMNS,
            read_ahead=2 if limits.partition_rows else 0,
        )
        slow.clock, slow.seconds_a_page, slow.is_cut = self.clock, seconds_a_page, True
        self.listed = slow
        self.source: Source = _Watched(slow, self.seams, ("fetch",))
        self.spec = spec(
            id=str(uuid.uuid4()),
            format=format,
            columns=COLUMNS if format == "csv" else (),
            compression=compression,
        )
        store.create(self.spec)

    def run(self) -> None:
        """Slices until the export has ended."""
        slices = 0
        while not self.export.terminal:
            slices += 1
            assert slices < 50, self.export
            claimed_at = self.clock.monotonic()
            claim = self.real_store.claim("worker-1", lease=self.limits.lease)
            assert claim is not None, self.export
            run_slice(
                claim,
                source=self.source,
                encoder=registry.make(self.spec.format, self.spec.dialect, self.spec.column_names),
                storage=self.storage,
                store=self.store,
                clock=self.clock,
                limits=self.limits,
                claimed_at=claimed_at,
            )

    def bury(self) -> None:
        """The worker is dead: its lease is over, and a sweep finds what it had.

        The next workers read rows in the other way, with or without the compiled library.
        """
        self.seams.die_at, self.seams.is_dead = None, False
        self.listed.is_cut = not self.listed.is_cut
        client = self.real_store.client
        for member in cast("list[bytes]", client.zrange("{exporter}:leases", 0, -1)):
            client.zadd("{exporter}:leases", {member: 1}, xx=True)
        self.real_store.sweep()

    @property
    def export(self) -> Export:
        export = self.real_store.get(self.spec.id)
        assert export is not None
        return export

    def file(self) -> bytes:
        export = self.export
        assert export.result is not None, f"{export.state}: {export.error}"
        return self.real_storage.read(export.result.key)

    def die(self, at: int | tuple[str, int], *, after: bool = False) -> None:
        """Run until the process dies at that call, before or after it was made.

        See `Seams.die_at`.
        """
        self.seams.die_at, self.seams.die_after = at, after
        self.listed.is_cut = after
        try:
            self.run()
        except Crash:
            self.bury()
        else:
            # The number of renewals depends on how long the calls take.
            assert isinstance(at, tuple)
            name, number = at
            assert name == "renew"
            assert self.seams.calls.count(name) <= number
        self.seams.die_at = None

    def check(self, rows: int, where: object) -> None:
        """Fail unless the file is alone in the bucket, and the record tells so many rows."""
        result = self.export.result
        assert result is not None, where
        assert self.bucket() == [result.key], where
        assert result.record_count == rows, where

    def content(self) -> bytes:
        """The file, unpacked."""
        return b"".join(decompress([self.file()], self.spec.compression))

    def bucket(self) -> list[str]:
        """What the export has in the bucket: objects, and open uploads marked so."""
        own = prefix(self.spec.id)
        return [info.key for info in self.real_storage.objects(own)] + [
            f"open:{upload.key}" for upload in self.real_storage.open_uploads(own)
        ]

    def clear(self) -> None:
        """Give the room back."""
        self.real_storage.delete([info.key for info in self.real_storage.objects("exports/")])


@pytest.fixture
def store(redis_server: RedisServer) -> Iterator[RedisStore]:
    own = RedisStore.connect(f"{redis_server.url.removesuffix('/0')}/{DATABASE}")
    own.client.flushdb()
    yield own
    own.client.close()


@pytest.fixture
def profile() -> str:
    """The rules of Cloudflare R2, which wants parts of one length."""
    return "r2"


@pytest.fixture
def storage(s3_keys: S3, profile: str) -> Iterator[S3Storage]:
    """The real S3 with the rules of another store."""
    with StoreRules(profile, s3_keys.endpoint_url, s3_keys.access_key, s3_keys.secret_key) as store:
        yield S3Storage(
            s3_keys.bucket,
            endpoint_url=store.url,
            public_endpoint_url=None,
            region="us-east-1",
            clock=FakeClock(),
        )
    assert store.refused_work == []
    assert profile == "r2" or not store.refused


def nth(calls: Sequence[str], at: int) -> tuple[str, int]:
    """Returns the call as `Seams.die_at` names it in runs with threads."""
    return calls[at], calls[:at].count(calls[at])


def _deaths(calls: list[str], format: str) -> list[int]:  # noqa: A002
    """The first call of each kind for one format, the last for the other.

    All of them, in both, are a matter of seconds over fakes; over real servers, of many minutes.
    """
    found = list(enumerate(calls))
    return sorted(
        {call: at for at, call in (reversed(found) if format == "csv" else found)}.values()
    )


@pytest.mark.parametrize("format", ["csv", pytest.param("json", marks=pytest.mark.soak)])
@pytest.mark.parametrize("die_after", [False, True], ids=["before", "after"])
def test_a_crash_at_any_seam_of_real_servers_then_another_run_yields_the_bytes_of_a_calm_run(
    store: RedisStore,
    storage: S3Storage,
    format: str,  # noqa: A002
    die_after: bool,
) -> None:
    # Given: the calls that a calm run makes over its seams
    calm = Bench(store, storage, format)
    calm.run()
    expected, calls = calm.file(), calm.seams.calls
    calm.clear()
    assert len(expected) > REAL_LIMITS.part_size
    assert {"put_part", "complete", "put_small", "read", "delete", "release"} <= set(calls)
    for at in _deaths(calls, format):
        # When: the process dies at that call, and others go on
        bench = Bench(store, storage, format)
        bench.die(at, after=die_after)
        bench.run()
        # Then
        where = f"{'after' if die_after else 'before'} call {at}, {calls[at]}"
        assert bench.file() == expected, where
        bench.check(len(ROWS), where)
        bench.clear()


def test_a_second_crash_in_the_middle_of_taking_over_costs_nothing_either(
    store: RedisStore, storage: S3Storage
) -> None:
    longer = [*ROWS, *(row.replace(b'"_id":"0', b'"_id":"1') for row in ROWS[:170])]
    # Given: a worker that died before its third and last part; its checkpoint is a position
    # before the end of the second
    bench_of = partial(Bench, store, storage, "json", rows=longer, seconds_a_page=0.1)
    calm = bench_of()
    calm.run()
    expected = calm.file()
    late = max(at for at, call in enumerate(calm.seams.calls) if call == "put_part")
    calm.clear()
    died_at: set[str] = set()
    for second in range(1, 8):
        bench = bench_of()
        bench.seams.die_at = late
        with pytest.raises(Crash):
            bench.run()
        # When: its successor dies too, a call later each time
        bench.bury()
        bench.seams.calls.clear()
        bench.seams.die_at = second
        bench.seams.die_after = bool(second % 2)
        with pytest.raises(Crash):
            bench.run()
        died_at.add(bench.seams.calls[-1])
        bench.bury()
        bench.run()
        # Then
        assert bench.file() == expected, second
        bench.check(len(ROWS) + 170, second)
        bench.clear()
    assert {"seal", "begin", "copy_part", "stream", "put_small", "commit"} <= died_at


def _cut_deaths(calls: list[str], _format: str) -> list[int]:
    """The cut, and the first call of each kind that matters while the partitions become one: until
    then they are read as any export is."""
    begins, looks = calls.index("partitions"), {"renew", "head", "objects", "open_uploads"}
    later = [(call, at) for at, call in enumerate(calls) if at >= begins and call not in looks]
    composing = dict(reversed(later))
    return [calls.index("cut"), *sorted(composing.values())]


def _copy_deaths(calls: list[str], format: str) -> list[int]:  # noqa: A002
    """The first calls that make, commit and publish the composed file."""
    made = ("copy_part", "commit", "complete")
    return [at for at in _cut_deaths(calls, format) if calls[at] in made]


@pytest.mark.parametrize(
    ("profile", "format", "compression", "die_after", "places"),
    [
        ("r2", "json", "gzip", False, _cut_deaths),
        ("ceph", "csv", "none", True, _copy_deaths),
        pytest.param("r2", "csv", "none", False, _deaths, marks=pytest.mark.soak),
        pytest.param("r2", "csv", "none", True, _deaths, marks=pytest.mark.soak),
        pytest.param("r2", "json", "gzip", False, _deaths, marks=pytest.mark.soak),
        pytest.param("r2", "json", "gzip", True, _deaths, marks=pytest.mark.soak),
        pytest.param("ceph", "csv", "none", False, _deaths, marks=pytest.mark.soak),
        pytest.param("ceph", "json", "gzip", True, _deaths, marks=pytest.mark.soak),
        pytest.param("ceph", "csv", "none", True, _cut_deaths, marks=pytest.mark.soak),
        pytest.param("r2", "csv", "zstd", True, _cut_deaths, marks=pytest.mark.soak),
    ],
)
@pytest.mark.timeout(900)
def test_a_crash_at_any_seam_of_an_export_cut_over_real_servers_yields_the_rows_of_one_reader(
    store: RedisStore,
    storage: S3Storage,
    format: str,  # noqa: A002
    compression: str,
    die_after: bool,
    places: Callable[[list[str], str], list[int]],
) -> None:
    # Given: what one reader writes, and the calls of a calm run with partitions
    cut = partial(
        Bench, store, storage, format, rows=UNEVEN, compression=compression, limits=CUT_LIMITS
    )
    alone = cut(limits=REAL_LIMITS)
    alone.run()
    expected = alone.content()
    alone.clear()
    calm = cut()
    calm.run()
    calls = calm.seams.calls
    assert calm.content() == expected
    calm.clear()
    assert {"cut", "partitions", "copy_part", "stream", "put_small", "read"} <= set(calls)
    for at in places(calls, format):
        # When: the process dies at that call, and others go on
        bench = cut()
        bench.die(nth(calls, at), after=die_after)
        bench.run()
        # Then
        where = f"{'after' if die_after else 'before'} call {at}, {calls[at]}"
        assert bench.content() == expected, where
        bench.check(len(UNEVEN), where)
        bench.clear()


@pytest.mark.parametrize(
    ("profile", "every"),
    [
        ("r2", 16),
        pytest.param("r2", 1, marks=pytest.mark.soak),
        pytest.param("ceph", 1, marks=pytest.mark.soak),
    ],
)
@pytest.mark.timeout(900)
def test_a_second_crash_in_the_middle_of_composing_costs_nothing_either(
    store: RedisStore, storage: S3Storage, every: int
) -> None:
    # Given: a worker that died when it had made the first part of the partitions, and the calls of
    # a successor
    def died() -> Bench:
        bench = Bench(store, storage, "csv", rows=UNEVEN, limits=CUT_LIMITS)
        bench.die(("stream", 0))
        bench.seams.calls.clear()
        return bench

    calm = Bench(store, storage, "csv", rows=UNEVEN, limits=CUT_LIMITS)
    calm.run()
    expected = calm.file()
    calm.clear()
    alone = died()
    alone.run()
    calls = alone.seams.calls
    alone.clear()
    assert {"complete", "copy_part", "partitions", "stream", "put_part"} <= set(calls)
    for second in range(0, len(calls), every):
        bench = died()
        # When: the successor dies too, a call later each time
        bench.die(nth(calls, second), after=bool(second % 2))
        bench.run()
        # Then
        where = f"{second}, {calls[second]}"
        assert bench.file() == expected, where
        bench.check(len(UNEVEN), where)
        bench.clear()


def test_a_write_that_reaches_s3_after_the_end_is_cleaned_away_and_the_file_is_not(
    store: RedisStore, storage: S3Storage
) -> None:
    # Given: a finished export, and requests of a worker that was stopped long before
    bench = Bench(store, storage, "csv")
    bench.run()
    headers = FileHeaders("text/csv", "late")
    storage.put_small(f"{prefix(bench.spec.id)}1-stopped/tail-3", b"late", headers)
    storage.begin(f"{prefix(bench.spec.id)}1-stopped/jobs.csv", headers)
    # When
    cleaned = cleaning.clean(store, storage, FakeClock(), grace=timedelta(days=-36500))
    # Then
    assert (cleaned.files, cleaned.uploads, cleaned.strays) == (0, 1, 1)
    assert bench.export.state is State.FINISHED
    assert bench.export.result is not None
    assert bench.bucket() == [bench.export.result.key]
    bench.clear()
