"""Test bench for one export: a fake at every seam, a fake clock, and crashes at a chosen call."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from datetime import timedelta
from functools import partial
from typing import Any, TypeVar

import pytest

from exporter.clock import Clock, FakeClock
from exporter.core import threads
from exporter.core.checkpoints import Row
from exporter.core.exports import Dialect, Export
from exporter.formats import registry
from exporter.run.run_slice import Ending, Limits, run_slice
from exporter.service import id_lists
from exporter.sources.base import Page, Source
from exporter.sources.id_list import IdList
from exporter.sources.memory import MemorySource
from exporter.storage.memory import MemoryStorage
from exporter.store.base import Claim, ExportStore
from exporter.store.memory.store import MemoryStore
from tests.specs import spec

T = TypeVar("T")

LIMITS = Limits(
    part_size=2_000,
    slice=timedelta(seconds=30),
    lease=timedelta(seconds=30),
    patience=timedelta(hours=6),
    deadline=timedelta(days=7),
    max_attempts=5,
    # No uploads in threads: every run makes the same calls in the same order.
    parts_ahead=0,
    keep_file=timedelta(days=7),
    keep_record=timedelta(days=30),
)
COLUMNS = ("_id", "title", "n")


def equal_sizes(clock: Clock) -> MemoryStorage:
    """Returns a store that takes parts of any size, and none of different sizes."""
    return MemoryStorage(clock, part_size_min=1)


def all_sizes(clock: Clock) -> MemoryStorage:
    """Returns a store that takes parts of different sizes, as most do."""
    return MemoryStorage(clock, part_size_min=1, all_sizes=True)


class Crash(BaseException):
    """Death of the process. No handler of the exporter may catch it, as none survives a kill -9."""


def run_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes all work of threads happen at once in the calling thread."""

    def start(call: Callable[[], T], name: str) -> Future[T]:
        outcome: Future[T] = Future()
        try:
            outcome.set_result(call())
        except BaseException as error:  # noqa: BLE001 - raised by `Future.result`
            outcome.set_exception(error)
        return outcome

    monkeypatch.setattr(threads, "start", start)


class Seams:
    """Counts every call over a seam; dies before or after the chosen call takes effect."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.die_at: int | tuple[str, int] | None = None
        """Number of the call, or its name and its number among those of that name; the first is 0.

        The second is for runs whose threads make some calls a little sooner or later.
        """
        self.die_after = False
        self.is_dead = False
        """True after the crash: no thread of a dead process makes another call."""
        self._lock = threading.Lock()
        self._own = threading.local()

    def before(self, name: str, _key: str = "") -> None:
        if self.is_dead:
            raise Crash(f"dead before {name}")
        # Another thread may make a call before this one returns.
        with self._lock:
            self._own.call = (len(self.calls), (name, self.calls.count(name)))
            self.calls.append(name)
        if self.die_at in self._own.call and not self.die_after:
            self.is_dead = True
            raise Crash(f"before {name}")

    def after(self, name: str, _key: str = "") -> None:
        if self.die_after and self.die_at in getattr(self._own, "call", ()):
            self.is_dead = True
            raise Crash(f"after {name}")


class _Watched:
    """Passes calls on and reports them to the seams.

    A method of `composed` runs on the watched object, so that the calls it makes are reported.
    """

    composed: tuple[str, ...] = ()

    def __init__(self, inner: Any, seams: Seams, names: Sequence[str]) -> None:
        self._inner, self._seams, self._names = inner, seams, names

    def __getattr__(self, name: str) -> Any:
        if name in self.composed:
            return partial(getattr(type(self._inner), name), self)
        real = getattr(self._inner, name)
        if name not in self._names:
            return real

        def call(*args: Any, **kwargs: Any) -> Any:
            self._seams.before(name)
            answer = real(*args, **kwargs)
            self._seams.after(name)
            return answer

        return call


class Bench:
    """Export over fakes. `slice()` is the work of one worker; `run()` is the work of a fleet."""

    def __init__(
        self,
        rows: Sequence[Row],
        *,
        format: str = "csv",  # noqa: A002
        page_size: int = 10,
        limit: int | None = None,
        limits: Limits = LIMITS,
        seconds_a_page: float = 0.0,
        announces: bool = True,
        compression: str = "none",
        rows_per_file: int | None = None,
        ids: Sequence[str] | None = None,
        read_ahead: int = 0,
        columns: Sequence[str] | None = None,
        dialect: Dialect | None = None,
        storage: Callable[[Clock], Any] = equal_sizes,
    ) -> None:
        self.clock = FakeClock()
        self.seams = Seams()
        self.memory_store = MemoryStore(self.clock)
        self.storage: MemoryStorage = storage(self.clock)
        self.storage.before, self.storage.after = self.seams.before, self.seams.after
        self.store: ExportStore = _Watched(
            self.memory_store,
            self.seams,
            ("renew", "commit", "release", "end", "cut", "partitions", "rejoin"),
        )
        self.listed = MemorySource(
            rows,
            page_size=page_size,
            columns=COLUMNS,
            announces=announces,
            read_ahead=read_ahead,
        )
        self.listed.is_cut = True
        self.source: Source = _Watched(_Slow(self), self.seams, ("fetch", "lookup"))
        self.seconds_a_page = seconds_a_page
        self.limits = limits
        self.draining: Callable[[], bool] = lambda: False
        self.spec = spec(
            format=format,
            dialect=dialect or Dialect(),
            columns=tuple(columns or (COLUMNS if registry.FORMATS[format].needs_columns else ())),
            limit=limit,
            ids=None if ids is None else len(ids),
            compression=compression,
            rows_per_file=rows_per_file,
        )
        self.listed_ids = ids
        if ids is not None:
            id_lists.write(self.storage, self.spec.id, ids)
        self.memory_store.create(self.spec)

    def claim(self) -> Claim | None:
        return self.memory_store.claim("worker-1", lease=self.limits.lease)

    def slice(self, claim: Claim | None = None) -> Ending | None:
        claimed_at = self.clock.monotonic()
        claim = claim or self.claim()
        if claim is None:
            return None
        return run_slice(
            claim,
            source=self.source if self.listed_ids is None else IdList(self.source, self._ids),
            encoder=registry.make(self.spec.format, self.spec.dialect, self.spec.column_names),
            storage=self.storage,
            store=self.store,
            clock=self.clock,
            limits=self.limits,
            claimed_at=claimed_at,
            draining=self.draining,
        )

    def _ids(self) -> Sequence[str]:
        return id_lists.read(self.storage, self.spec.id)

    def run(self, slices: int = 200) -> list[Ending]:
        """Runs slices until the export is terminal; time passes and the sweep runs between them."""
        endings: list[Ending] = []
        while not self.export.terminal:
            assert len(endings) < slices, f"no end in sight: {endings[-5:]}"
            ending = self.slice()
            if ending is not None:
                endings.append(ending)
            self.clock.advance(1)
            self.memory_store.sweep()
        return endings

    def bury(self) -> None:
        """Lets the lease of a dead worker expire; the sweep makes the export ready again.

        The next workers read rows in the other way, with or without the compiled library: a fleet
        may have both.
        """
        self.seams.die_at, self.seams.is_dead = None, False
        self.listed.is_cut = not self.listed.is_cut
        self.clock.advance(self.limits.lease.total_seconds() + 1)
        self.memory_store.sweep()

    @property
    def export(self) -> Export:
        export = self.memory_store.get(self.spec.id)
        assert export is not None
        return export

    def file(self) -> bytes:
        """Returns the published bytes, fetched as a user would; fails unless finished."""
        result = self.export.result
        assert result is not None, f"{self.export.state}: {self.export.error}"
        status, _, body = self.storage.fetch(self.storage.presign(result.key, 60))
        assert status == 200
        assert len(body) == result.file_size
        return body

    def bucket(self) -> list[str]:
        """Returns all keys in the bucket: objects, and open uploads with the prefix `open:`."""
        return [info.key for info in self.storage.objects("")] + [
            f"open:{file.key}" for file in self.storage.unfinished("")
        ]


class _Slow:
    def __init__(self, bench: Bench) -> None:
        self._bench = bench

    def fetch(self, query: dict[str, Any], cursor: Any) -> Page:
        self._bench.clock.advance(self._bench.seconds_a_page)
        return self._bench.listed.fetch(query, cursor)

    def lookup(self, ids: Sequence[str], query: Mapping[str, Any]) -> Mapping[str, Row]:
        self._bench.clock.advance(self._bench.seconds_a_page)
        return self._bench.listed.lookup(ids, query)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._bench.listed, name)


def postings(count: int) -> list[bytes]:
    """Returns rows that differ, with commas, quotes and line breaks inside."""
    return [
        b'{"_id":"%06d","title":"Engineer, \\"%d\\"\\nremote","n":%d.10}' % (n, n, n)
        for n in range(count)
    ]
