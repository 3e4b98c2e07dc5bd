"""The worker's task in this process, over a real Redis, a real S3 and real upstreams."""

from __future__ import annotations

import csv
import io
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis
from celery import Celery

from exporter import settings
from exporter.board import app as board_app
from exporter.board import hostile, synthetic
from exporter.board.profiles import Profile
from exporter.core.exports import Export, Outcome, State
from exporter.local import ports
from exporter.local.redis import RedisServer
from exporter.run import limits
from exporter.run.run_slice import Ending
from exporter.service.drafts import NewExport
from exporter.service.exports import ExportService
from exporter.store.redis.store import RedisStore
from tests.conftest import S3
from tests.integration.api_server import Server
from tests.upstreams import Asked, reply, serving
from tests.waiting import until
from workers import doorbell, draining, tasks
from workers.app import app as celery_app
from workers.routing import QUEUE

DATABASE = 9
"""Of the test run's Redis."""
KEY = "sk_live_worker_1"
ROWS = 230
EVERYTHING = {"include_expired": "true"}


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    database = tmp_path_factory.mktemp("board") / "board.sqlite"
    synthetic.synthesize(database, ROWS, profile=Profile.HOSTILE)
    server = Server()
    server.app = board_app.create_app(database, [KEY])
    with server.running():
        yield server.url


class Fleet:
    """One worker, set up by its environment as a real one is."""

    def __init__(self, patch: pytest.MonkeyPatch, directory: Path) -> None:
        self._patch = patch
        self._toml = directory / "exporter.toml"
        self.configure({})

    def configure(self, sources: dict[str, str], **variables: str) -> None:
        """Start anew with these sources, by name and address, and these settings."""
        tables = [
            f'[sources.{name}]\ntype = "hirebase"\nbase_url = "{url}"\napi_key = "{KEY}"\n'
            for name, url in sources.items()
        ]
        self._toml.write_text("\n".join(tables))
        self._patch.setenv("EXPORTER_CONFIG", str(self._toml))
        for name, value in variables.items():
            self._patch.setenv(f"EXPORTER_{name}", value)
        self.close()

    def close(self) -> None:
        """Forget the engine and what it read from the environment."""
        if tasks.service.cache_info().currsize:
            for source in tasks.service().sources.opened.values():
                source.close()
        settings.load.cache_clear()
        tasks.service.cache_clear()

    @property
    def engine(self) -> ExportService:
        return tasks.service()

    def create(self, source: str, format: str = "csv", **more: Any) -> str:  # noqa: A002
        """A new export of that source's postings; its id."""
        new = NewExport(
            user_id="ann",
            surface="native",
            source=source,
            search=EVERYTHING,
            format=format,
            **more,
        )
        return self.engine.create(new).id

    def record(self, export_id: str) -> Export:
        export = self.engine.store.get(export_id)
        assert export is not None
        return export

    def run(self, export_id: str) -> Export:
        """Work until that export has ended."""
        deadline = time.monotonic() + 30
        while not self.record(export_id).terminal:
            assert time.monotonic() < deadline, self.record(export_id)
            if tasks.work() is None:
                time.sleep(0.05)
        return self.record(export_id)

    def download(self, export: Export) -> bytes:
        link = self.engine.link(export)
        assert link is not None
        return httpx.get(link[0]).raise_for_status().content

    def left(self, export_id: str) -> list[str]:
        """What the bucket holds of an export, open uploads included."""
        storage, prefix = self.engine.storage, f"exports/{export_id}/"
        return [one.key for one in storage.objects(prefix)] + [
            one.key for one in storage.unfinished(prefix)
        ]


@pytest.fixture
def fleet(
    monkeypatch: pytest.MonkeyPatch, redis_server: RedisServer, s3_keys: S3, tmp_path: Path
) -> Iterator[Fleet]:
    url = redis_server.url.removesuffix("/0") + f"/{DATABASE}"
    with redis.Redis.from_url(url) as client:
        client.flushdb()
    monkeypatch.setenv("EXPORTER_REDIS_URL", url)
    monkeypatch.setenv("EXPORTER_S3_ENDPOINT_URL", s3_keys.endpoint_url)
    monkeypatch.setenv("EXPORTER_S3_BUCKET", s3_keys.bucket)
    one = Fleet(monkeypatch, tmp_path)
    yield one
    one.close()


def test_a_csv_holds_every_posting_of_the_board(fleet: Fleet, board: str) -> None:
    # Given
    fleet.configure({"board": board})
    kept = {posting.id: json.loads(posting.json) for posting in hostile.generate(ROWS)}
    # When
    export = fleet.run(fleet.create("board"))
    # Then
    assert export.result is not None, export.error
    assert export.result.completeness.outcome is Outcome.COMPLETE
    rows = list(csv.DictReader(io.StringIO(fleet.download(export).decode(), newline="")))
    assert sorted(row["_id"] for row in rows) == sorted(kept)
    for row in rows:
        assert row["job_title"] == kept[row["_id"]]["job_title"]
        assert row["description"] == (kept[row["_id"]].get("description") or "")


def _exactly(line: bytes) -> tuple[str, list[tuple[str, str]]]:
    """A posting's id and its members in their order, numbers as they are written."""
    members = json.loads(line, parse_int=str, parse_float=str)
    return members["_id"], [(name, repr(value)) for name, value in members.items()]


def test_json_lines_hold_every_posting_digit_for_digit(fleet: Fleet, board: str) -> None:
    # Given
    fleet.configure({"board": board})
    # When
    export = fleet.run(fleet.create("board", "json"))
    # Then
    lines = fleet.download(export).split(b"\n")
    assert lines.pop() == b""
    kept = sorted(_exactly(posting.json) for posting in hostile.generate(ROWS))
    assert sorted(_exactly(line) for line in lines) == kept


def test_a_link_dies_when_it_says(fleet: Fleet, board: str) -> None:
    # Given
    fleet.configure({"board": board}, LINK_TTL="2s")
    export = fleet.run(fleet.create("board", limit=1))
    link = fleet.engine.link(export)
    assert link is not None
    url, dies = link
    # When / Then
    assert httpx.get(url).status_code == 200
    time.sleep(max(0.0, (dies - fleet.engine.clock.now()).total_seconds()) + 1.1)
    assert httpx.get(url).status_code == 403
    # Then: and the next poll gives a new one
    assert fleet.download(export)


REFUSALS: dict[str, tuple[bytes, str]] = {
    "a wrong key": (reply(401, {"detail": f"key {KEY} is unknown"}), "is unknown"),
    "no such path": (reply(404, {"detail": "Not Found"}), "answered 404"),
    "a wrong filter": (reply(422, {"detail": "job_titles: too long"}), "job_titles: too long"),
    "a web page": (reply(200, "<html>Welcome", content_type="text/html"), "Welcome"),
    "a used up plan": (reply(429, "no more", x_billing_code="limit_exceeded"), "no more"),
    "a short page": (reply(200, {"jobs": [], "total_count": 7}), "implies 7"),
}


@pytest.mark.parametrize(("answer", "said"), REFUSALS.values(), ids=REFUSALS)
def test_an_export_fails_with_what_its_upstream_said(
    fleet: Fleet, answer: bytes, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given
    monkeypatch.setattr(limits, "FIRST_WAIT_SECONDS", 0.1)
    with serving(answer) as upstream:
        fleet.configure({"broken": upstream.url})
        # When
        export = fleet.run(fleet.create("broken"))
    # Then
    assert export.state is State.FAILED
    assert export.error is not None
    assert said in export.error
    assert upstream.url not in export.error
    assert KEY not in export.error
    assert fleet.left(export.id) == []


def test_an_export_waits_for_an_upstream_that_is_down_and_then_finishes(fleet: Fleet) -> None:
    # Given
    good = reply(200, {"jobs": [{"_id": "1"}], "total_count": 1})
    end = reply(200, {"jobs": [], "total_count": 1})
    with serving(reply(429, "slow down", retry_after="3"), good, end) as upstream:
        fleet.configure({"busy": upstream.url})
        export_id = fleet.create("busy")
        # When
        ending = tasks.work()
        waiting = fleet.record(export_id)
        # Then: no worker is held
        assert ending is Ending.WAITING
        assert waiting.error is not None
        assert "slow down" in waiting.error
        assert tasks.work() is None
        # When
        export = fleet.run(export_id)
    # Then
    assert export.state is State.FINISHED
    assert len(upstream.asked) == 3


@pytest.fixture
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "OTHER_WORKER_WAIT", tasks.OTHER_WORKER_WAIT / 10_000)


def test_an_export_whose_source_this_worker_lacks_waits_for_one_that_has_it(
    fleet: Fleet, board: str, no_pause: None
) -> None:
    # Given: the API knows the source already
    fleet.configure({"board": board, "other": board})
    export_id = fleet.create("other", limit=3)
    fleet.configure({"board": board})
    # When
    ending = tasks.work()
    # Then
    assert ending is Ending.WAITING
    waiting = fleet.record(export_id)
    assert waiting.error == "source 'other' is not configured; configured: board"
    assert waiting.attempts == 0
    # When: the new configuration has reached the worker
    fleet.configure({"board": board, "other": board})
    export = fleet.run(export_id)
    # Then
    assert export.state is State.FINISHED


def test_an_export_whose_source_nobody_has_fails_when_patience_ends(
    fleet: Fleet, board: str, no_pause: None
) -> None:
    # Given
    fleet.configure({"other": board}, PATIENCE="0.1s")
    export_id = fleet.create("other")
    fleet.configure({"board": board})
    # When
    export = fleet.run(export_id)
    # Then
    assert export.state is State.FAILED
    assert export.error == "source 'other' is not configured; configured: board"


def test_an_export_whose_source_nobody_has_can_be_canceled(
    fleet: Fleet, board: str, no_pause: None
) -> None:
    # Given
    fleet.configure({"other": board})
    export_id = fleet.create("other")
    fleet.configure({"board": board})
    tasks.work()
    # When
    fleet.engine.cancel("ann", export_id)
    export = fleet.run(export_id)
    # Then
    assert export.state is State.CANCELED


def test_a_worker_that_shuts_down_hands_over_and_the_next_goes_on(
    fleet: Fleet, board: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given
    fleet.configure({"board": board})
    export_id = fleet.create("board")
    monkeypatch.setattr(draining._flag, "value", 1)
    # When
    ending = tasks.work()
    # Then
    assert ending is Ending.HANDED_OVER
    # When
    monkeypatch.setattr(draining._flag, "value", 0)
    export = fleet.run(export_id)
    # Then
    assert export.result is not None
    assert export.result.record_count == ROWS
    assert export.attempts == 0


def test_a_running_export_that_is_canceled_leaves_nothing_in_the_bucket(fleet: Fleet) -> None:
    # Given: pages of 3 MiB, so that a part of 5 MiB is uploaded after the second
    export_id = ""
    parts: list[str] = []
    answered: set[int] = set()

    def endless(asked: Asked) -> bytes:
        page, limit = asked.json["page"], asked.json["limit"]
        # Pages are requested in any order.
        if {1, 2, 3} <= answered and not parts:
            parts.extend(until(lambda: fleet.left(export_id)))
            fleet.engine.cancel("ann", export_id)
        answered.add(page)
        jobs = [{"_id": f"{page}-{n}", "description": "x" * 30_000} for n in range(limit)]
        return reply(200, {"jobs": jobs, "total_count": 10**6, "page": page, "limit": limit})

    with serving(endless) as upstream:
        fleet.configure(
            {"endless": upstream.url},
            PART_SIZE="5MiB",
            SLICE_SECONDS="60s",
            PARTITION_ROWS="0",
        )
        export_id = fleet.create("endless")
        # When
        ending = tasks.work()
    # Then
    assert ending is Ending.CANCELED
    assert parts
    assert fleet.left(export_id) == []
    assert fleet.record(export_id).state is State.CANCELED
    assert len(upstream.asked) < 50


def test_with_nothing_ready_or_no_store_there_is_nothing_to_do(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    # When / Then
    assert tasks.work() is None
    # Given
    monkeypatch.setenv("EXPORTER_REDIS_URL", f"redis://127.0.0.1:{ports.find_free(1)[0]}/0")
    fleet.configure({})
    # When / Then
    assert tasks.work() is None


def _waits(broker: str) -> int:
    """Doorbells of any priority on that broker."""
    with redis.Redis.from_url(broker) as client:
        return sum(int(str(client.llen(key))) for key in client.keys(f"*:{QUEUE}*"))


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_the_relay_rings_again_after_its_broker_was_away(
    fleet: Fleet, board: str, tmp_path: Path
) -> None:
    # Given
    fleet.configure({"board": board})
    store = fleet.engine.store
    assert isinstance(store, RedisStore)
    with RedisServer(tmp_path, ports.find_free(1)[0]) as broker:
        celery = Celery("test", broker=broker.url)
        celery.conf.update(
            task_default_queue=QUEUE,
            task_publish_retry=False,
            broker_transport_options=celery_app.conf.broker_transport_options,
        )
        relay = doorbell.Relay(store, celery)
        relay.start()
        fleet.create("board")
        _until(lambda: _waits(broker.url) == 1)
        # When: an export is created while the broker is dead
        broker.kill()
        fleet.create("board")
        time.sleep(0.5)
        broker.start()
        fleet.create("board")
        # Then
        _until(lambda: _waits(broker.url) >= 2)
        assert relay.is_alive()
        relay.stop()
        relay.join(10)
        celery.close()
    assert not relay.is_alive()


def test_the_relay_adds_no_doorbell_when_enough_wait(
    fleet: Fleet, board: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given
    monkeypatch.setattr(doorbell, "MAX_WAITING_DOORBELLS", 3)
    fleet.configure({"board": board})
    store = fleet.engine.store
    assert isinstance(store, RedisStore)
    with RedisServer(tmp_path, ports.find_free(1)[0]) as broker:
        celery = Celery("test", broker=broker.url)
        celery.conf.update(
            task_default_queue=QUEUE,
            broker_transport_options=celery_app.conf.broker_transport_options,
        )
        relay = doorbell.Relay(store, celery)
        # When
        for priority in (0, 0, 9, 9, 5, 0):
            fleet.create("board", priority=priority)
        relay.start()
        _until(lambda: store.client.llen("{exporter}:wake") == 0)
        time.sleep(0.1)
        # Then
        assert _waits(broker.url) == 3
        relay.stop()
        relay.join(10)
        celery.close()
