"""A slice that crashes by a defect of ours, and what becomes of its export."""

from __future__ import annotations

import resource
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any
from unittest import mock

import pytest
import structlog
from billiard.pool import EX_RECYCLE
from structlog.testing import capture_logs

from exporter.config import Config
from exporter.core.exports import State
from exporter.errors import StoreUnavailable
from exporter.formats import registry
from exporter.run.run_slice import Ending
from exporter.service.exports import ExportService
from exporter.settings import Settings
from exporter.sources.hirebase import HirebaseConfig
from tests.harness import Bench, postings
from workers import memory, tasks

ATTEMPTS = 3


class Defective:
    """A source whose pages end in an error that nobody foresaw."""

    def __init__(self, bench: Bench, error: Callable[[], BaseException] | None) -> None:
        self._bench, self.error = bench, error

    def fetch(self, query: dict[str, Any], cursor: Any) -> Any:
        if self.error is not None:
            raise self.error()
        return self._bench.source.fetch(query, cursor)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._bench.source, name)


class Shop:
    """A worker in this process, over fakes."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.bench = Bench(postings(30))
        self.source = Defective(self.bench, lambda: KeyError("a defect of ours"))
        self.engine = ExportService(
            settings=Settings(max_attempts=ATTEMPTS),
            config=Config(sources={"memory": HirebaseConfig(base_url="http://127.0.0.1:1")}),
            store=self.bench.store,
            storage=self.bench.storage,
            clock=self.bench.clock,
        )
        self.engine.sources.opened["memory"] = self.source  # type: ignore[assignment]
        patch.setattr(tasks, "service", lambda: self.engine)

    def run(self) -> tuple[list[Ending], float]:
        """Work until the export has ended; the slices' endings, and the seconds that passed."""
        began = self.bench.clock.monotonic()
        endings: list[Ending] = []
        while not self.bench.export.terminal:
            assert len(endings) < 50
            ending = tasks.work()
            if ending is not None:
                endings.append(ending)
            self.bench.clock.advance(0.5)
            self.bench.memory_store.sweep()
        return endings, self.bench.clock.monotonic() - began


@pytest.fixture
def shop(monkeypatch: pytest.MonkeyPatch) -> Shop:
    return Shop(monkeypatch)


def test_an_unexpected_error_is_logged_with_its_traceback_and_the_worker_goes_on(
    shop: Shop,
) -> None:
    # Given
    structlog.reset_defaults()
    # When
    with capture_logs() as logs:
        ending = tasks.work()
    # Then
    assert ending is Ending.LOST
    [line] = [line for line in logs if line["event"] == "slice.crashed"]
    assert line["log_level"] == "error"
    assert line["exc_info"].__traceback__ is not None
    assert "a defect of ours" in repr(line["exc_info"])


def test_an_export_that_crashes_each_time_fails_after_its_attempts_and_not_after_their_leases(
    shop: Shop,
) -> None:
    # When
    endings, seconds = shop.run()
    # Then
    assert endings == [*[Ending.LOST] * ATTEMPTS, Ending.FAILED]
    export = shop.bench.export
    assert export.state is State.FAILED
    assert export.error is not None
    assert f"gave up: {ATTEMPTS} workers in a row were lost" in export.error
    assert shop.bench.bucket() == []
    assert seconds < shop.engine.settings.lease_seconds.total_seconds()


def test_tries_after_a_crash_are_spread_so_that_a_defect_may_pass(shop: Shop) -> None:
    # Given: it passes after some seconds, with more than one try in between
    began = shop.bench.clock.monotonic()
    gaps: list[float] = []

    def passing() -> BaseException:
        gaps.append(shop.bench.clock.monotonic() - began)
        if len(gaps) == 2:
            shop.source.error = None
        return RuntimeError("can't start new thread")

    shop.source.error = passing
    # When
    endings, _ = shop.run()
    # Then
    assert shop.bench.export.state is State.FINISHED
    assert endings == [Ending.LOST, Ending.LOST, Ending.FINISHED]
    assert gaps[1] - gaps[0] >= 1


def test_a_crash_counts_as_a_lost_worker_whose_upload_may_still_be_written_to(shop: Shop) -> None:
    # Given
    tasks.work()
    # When
    shop.bench.clock.advance(2)
    shop.bench.memory_store.sweep()
    claim = shop.bench.claim()
    # Then
    assert claim is not None
    assert not claim.clean
    assert claim.export.attempts == 1


def test_an_error_while_giving_up_does_not_keep_an_export_for_ever(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given: emptying its bucket, too, ends in a defect
    def broken(prefix: str) -> Any:
        raise TypeError("a defect in the listing")

    monkeypatch.setattr(shop.bench.storage, "open_uploads", broken)
    # When
    endings, _ = shop.run()
    # Then
    assert endings == [*[Ending.LOST] * 2 * ATTEMPTS, Ending.FAILED]
    assert shop.bench.export.error is not None
    assert "parts may be left in the bucket" in shop.bench.export.error


def test_a_store_that_is_silent_after_a_crash_leaves_the_export_to_its_lease(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given
    lease = shop.engine.settings.lease_seconds

    def silent(*args: Any, **kwargs: Any) -> Any:
        raise StoreUnavailable("Redis did not answer")

    with monkeypatch.context() as patch:
        patch.setattr(shop.bench.memory_store, "renew", silent)
        # When
        ending = tasks.work()
    # Then
    assert ending is Ending.LOST
    shop.bench.clock.advance(lease.total_seconds() - 1)
    assert shop.bench.memory_store.sweep().expired == 0
    shop.bench.clock.advance(2)
    assert shop.bench.memory_store.sweep().expired == 1


@pytest.fixture
def data_limit() -> Iterator[None]:
    kept = resource.getrlimit(resource.RLIMIT_DATA)
    yield
    resource.setrlimit(resource.RLIMIT_DATA, kept)


def test_a_slice_without_memory_is_counted_rings_again_and_ends_its_process_in_order(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, data_limit: None
) -> None:
    # Given
    memory.set_ceiling(64 * 1024**3)
    rung: list[bool] = []
    monkeypatch.setattr(tasks, "_send_doorbell", lambda task: rung.append(True))
    shop.source.error = MemoryError
    # When: Celery would raise a MemoryError again in the main process, and that would end it
    with pytest.raises(SystemExit) as end:
        tasks.tick()
    # Then
    assert end.value.code == EX_RECYCLE
    assert rung == [True]
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    assert soft == hard
    shop.bench.clock.advance(2)
    shop.bench.memory_store.sweep()
    assert shop.bench.export.attempts == 1


def test_waiting_for_a_source_is_measured_by_the_clock_of_the_store(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given: a worker without the source, whose wall clock is a day ahead
    del shop.engine.sources.opened["memory"]
    shop.engine.config.sources.clear()
    assert tasks.work() is Ending.WAITING
    shop.bench.clock.advance(31)
    shop.bench.memory_store.sweep()
    now = shop.bench.clock.now
    shop.engine.clock = ahead = type("Ahead", (), {})()
    monkeypatch.setattr(ahead, "now", lambda: now() + timedelta(days=1), raising=False)
    monkeypatch.setattr(ahead, "monotonic", shop.bench.clock.monotonic, raising=False)
    # When / Then
    assert tasks.work() is Ending.WAITING


def test_an_export_in_a_format_of_a_later_version_waits_for_a_worker_that_knows_it(
    shop: Shop,
) -> None:
    # Given: the middle of a rolling upgrade
    shop.source.error = None
    with mock.patch.dict(registry.FORMATS):
        del registry.FORMATS["csv"]
        # When
        endings = [tasks.work()]
    shop.bench.clock.advance(31)
    shop.bench.memory_store.sweep()
    shop.run()
    # Then
    assert endings == [Ending.WAITING]
    assert (shop.bench.export.state, shop.bench.export.attempts) == (State.FINISHED, 0)
