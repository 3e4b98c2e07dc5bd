"""The API against its own OpenAPI document: what Schemathesis makes of the one, sent to the other.

All that the API needs is real but its store: a board, a table, Redis. Every run sends the same.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import redis
import schemathesis
from msgspec.structs import replace
from schemathesis import Case, CheckContext, HookContext, Response, engine
from schemathesis.config import SchemathesisConfig
from schemathesis.engine import events

from exporter.api.app import create_app
from exporter.api.events import streams
from exporter.api.surfaces.native import polls
from exporter.board import hostile, synthetic
from exporter.board.profiles import Profile
from exporter.clock import FakeClock
from exporter.config import Config
from exporter.core.exports import State
from exporter.formats import registry
from exporter.local import sample
from exporter.local.redis import RedisServer
from exporter.run.run_slice import run_slice
from exporter.service.drafts import NewExport
from exporter.service.exports import ExportService
from exporter.settings import Settings
from exporter.sources.coresignal import CoresignalConfig
from exporter.sources.hirebase import HirebaseConfig
from exporter.sources.sql.config import SqlConfig
from exporter.storage.memory import MemoryStorage
from exporter.storage.s3.limits import MIN_PART_BYTES
from exporter.store.memory.store import MemoryStore
from exporter.store.redis.api_keys import KeyRing
from exporter.webhooks.addresses import Guard
from tests import boards
from tests.harness import LIMITS
from tests.integration.api_server import KEYS_DATABASE, LEASE, PUBLIC_URL, UNBOUNDED_RATES, Server

ROWS = 60


class Target(NamedTuple):
    """An API with something behind each of its operations."""

    url: str
    document: dict[str, Any]
    key: str
    ids: list[str]
    """Exports of the key's user: of each surface and in each state."""
    finished: str
    """One of them, with a file."""
    postings: list[str]
    """Ids of postings that the board has."""


@pytest.fixture
def target(
    server: Server,
    redis_server: RedisServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Target]:
    monkeypatch.setattr(polls, "MAX_WAIT_SECONDS", 0)
    monkeypatch.setattr(streams, "MAX_LIFE_SECONDS", 0.2)
    board, table = tmp_path / "board.sqlite", tmp_path / "jobs.sqlite"
    synthetic.synthesize(board, ROWS, profile=Profile.HOSTILE)
    sample.create(table, "ann")
    clock = FakeClock()
    with (
        boards.serving(board) as url,
        redis.Redis.from_url(redis_server.url.replace("/0", f"/{KEYS_DATABASE}")) as client,
    ):
        client.flushdb()
        keys = KeyRing(client)
        upstream: Any = {"api_key": boards.KEY, "page_size": 100}
        service = ExportService(
            settings=Settings(
                public_url=PUBLIC_URL,
                **UNBOUNDED_RATES,
            ),
            config=Config(
                sources={
                    "board": HirebaseConfig(base_url=url, **upstream),
                    "coresignal": CoresignalConfig(base_url=f"{url}/cdapi", **upstream),
                    "pipeline": SqlConfig(url=f"sqlite:///{table}"),
                }
            ),
            store=MemoryStore(clock),
            storage=MemoryStorage(clock),
            clock=clock,
        )
        app = server.app = create_app(service, keys)
        # No name server of the outside is asked for what Schemathesis thinks of.
        app.state.guard = Guard(resolver=lambda host, port: ["93.184.215.14"])
        ids = [made(service, clock, *one) for one in TO_MAKE]
        yield Target(
            server.url,
            app.openapi(),
            keys.create("ann"),
            ids,
            ids[[surface for surface, *_ in TO_MAKE].index("coresignal-v2")],
            [posting.id for posting in hostile.generate(3)],
        )
        for name in service.config.sources:
            service.source(name).close()


TO_MAKE = (
    ("native", "board", State.FINISHED),
    ("native", "board", State.CANCELED),
    ("native", "board", State.FAILED),
    ("hirebase", "board", State.FINISHED),
    ("hirebase", "board", State.PROCESSING),
    ("coresignal", "coresignal", State.FINISHED),
    ("coresignal", "coresignal", State.FAILED),
    ("coresignal-v2", "coresignal", State.FINISHED),
    # The others are claimed, and a claim takes whichever waits.
    ("hirebase", "board", State.QUEUED),
    ("coresignal-v2", "coresignal", State.QUEUED),
)


def made(service: ExportService, clock: FakeClock, surface: str, source: str, state: State) -> str:
    """The id of an export of ann's in that state."""
    bulk = source == "coresignal"
    new = NewExport(
        user_id="ann",
        surface=surface,
        source=source,
        search={},
        format="json",
        compression="gzip" if bulk else "none",
        rows_per_file=10_000 if bulk else None,
    )
    export = service.create(new)
    if state is State.QUEUED:
        return export.id
    if state is State.CANCELED:
        service.cancel("ann", export.id)
        return export.id
    claimed_at = clock.monotonic()
    claim = service.store.claim("worker-test-1", lease=LEASE)
    assert claim is not None
    assert claim.export.id == export.id
    if state is State.FAILED:
        service.store.end(
            export.id,
            claim.fence,
            State.FAILED,
            error="the source refused the key",
            keep_file=service.settings.retention,
            keep_record=service.settings.record_retention,
        )
    elif state is State.FINISHED:
        spec = claim.export.spec
        run_slice(
            claim,
            source=service.reader(claim.export),
            encoder=registry.make(spec.format, spec.dialect, spec.column_names),
            storage=service.storage,
            store=service.store,
            clock=clock,
            limits=replace(LIMITS, part_size=MIN_PART_BYTES),
            claimed_at=claimed_at,
        )
    found = service.store.get(export.id)
    assert found is not None
    assert found.state is state, found.error
    return export.id


DEPENDENT = {
    "a cursor is right if it was given out": (
        "listExports",
        "streamExports",
        "listTasks",
        "listWebhookDeliveriesOfEndpoint",
        "listWebhookDeliveriesOfExport",
        "listDeadWebhookDeliveries",
    ),
    "events have names": ("createWebhookEndpoint",),
    "missed deliveries are kept for some days": ("recoverWebhooks",),
    "JSON Schema takes 7.0 for an integer": ("rotateWebhookSecret",),
    "filters depend on each other, on the source and on what it has": (
        "createExport",
        "estimateExport",
        "previewSource",
        "createTask",
        "searchJobs",
        "estimateJobs",
        "collectByFilters",
        "collectByFiltersV1",
    ),
    "a range ends after it begins": ("exportRows",),
    "a moment lies within our calendar": ("listExpiredJobs", "createExpiredTask"),
    "an Elasticsearch query has a language of its own": ("collectByQuery",),
    "ids are numbers, each given once": ("collectByIds", "collectByIdFile", "collectByIdFileV1"),
    "an export that failed has no files": (
        "listFiles",
        "listFilesV1",
        "downloadFile",
        "downloadFileV1",
    ),
}
"""Operations that refuse some requests for what no schema can say. The examples of their own
bodies they take all the same."""


ALIKE = (
    *("searchJobs", "createTask", "estimateJobs", "estimateExport", "previewSource"),
    "collectByFiltersV1",
)
"""Operations with the filters of another one. Those are half of all that can be varied, so they are
varied in one place unless there is time."""


def config(target: Target, examples: int, *, whole: bool) -> SchemathesisConfig:
    """Every check of Schemathesis, on the same requests each time."""
    known = {"dictionary": "ids", "probability": 0.7}
    lenient = {"checks": {"positive_data_acceptance": {"enabled": False}}}
    skipped = {"coverage": {"enabled": False}}
    return SchemathesisConfig.from_dict(
        {
            "seed": 20260101,
            "base-url": target.url,
            "cache": {"enabled": False},
            "auth": {"openapi": {"header": {"api_key": target.key}}},
            "generation": {
                "deterministic": True,
                "database": "none",
                "max-examples": examples,
                "no-shrink": True,
            },
            "continue-on-failure": True,
            "operations": [
                {
                    "include-operation-id": [one for ids in DEPENDENT.values() for one in ids],
                    "phases": dict.fromkeys(("coverage", "fuzzing", "stateful"), lenient),
                },
                {"include-operation-id": list(ALIKE), "phases": {} if whole else skipped},
                {
                    "include-operation-id": ["downloadFile", "downloadFileV1"],
                    "parameters": {
                        "path.request_id": {"dictionary": "finished", "probability": 0.9},
                        "path.file_name": {"dictionary": "file", "probability": 0.9},
                    },
                },
            ],
            "dictionaries": {
                "ids": {"values": target.ids},
                "finished": {"values": [target.finished]},
                "file": {"values": [f"part-00000-{target.finished}-h000.json.gz"]},
                "postings": {"values": target.postings},
            },
            "parameters": {
                "path.export_id": known,
                "path.task_id": known,
                "path.request_id": known,
                "path.job_id": {"dictionary": "postings", "probability": 0.5},
            },
        }
    )


_numbers = itertools.count()


@schemathesis.hook
def before_call(ctx: HookContext, case: Case[Any], kwargs: dict[str, Any]) -> None:
    """A key that came with another request would hide what is said of this one: make it new, and
    as right or wrong as it was."""
    key = case.headers.get("Idempotency-Key", "") if case.headers else ""
    if 0 < len(key.strip('"')) < 200:
        quote = '"' if key.endswith('"') else ""
        case.headers["Idempotency-Key"] = f"{key.removesuffix(quote)}-{next(_numbers)}{quote}"


@schemathesis.check
def every_header_is_documented(ctx: CheckContext, response: Response, case: Case[Any]) -> None:
    """The ones that tell something of the operation; those of any HTTP answer go without saying."""
    of_http = ("date", "server", "cache-control", "vary", "transfer-encoding")
    of_content = ("content-type", "content-length", "content-encoding")
    told = case.operation.schema.raw_schema["paths"][case.operation.path]
    documented = told.get(case.method.lower(), {}).get("responses", {})
    known = {
        name.lower() for name in documented.get(str(response.status_code), {}).get("headers", ())
    }
    if known:
        assert not set(response.headers) - known.union(of_http, of_content)


def fuzz(target: Target, examples: int, *, whole: bool) -> tuple[set[str], list[str]]:
    """Which operations were called, and what was wrong with the answers."""
    schema = schemathesis.openapi.from_dict(
        target.document, config=config(target, examples, whole=whole)
    )
    called: set[str] = set()
    wrong: list[str] = []
    for event in engine.from_schema(schema).execute():
        if isinstance(event, events.ScenarioFinished):
            recorder = event.recorder
            for case_id, node in recorder.cases.items():
                called.add(node.value.operation.label)
                wrong += [
                    f"{node.value.operation.label}, {event.phase.value}: {check.name}:"
                    f" {check.failure_info.failure.message}\n{check.failure_info.code_sample}"
                    for check in recorder.checks.get(case_id, ())
                    if check.failure_info is not None
                ]
        elif isinstance(event, events.NonFatalError):
            wrong.append(f"{event.label}: {event.value!r}")
        elif isinstance(event, events.FatalError):
            raise event.exception
    return called, wrong


@pytest.mark.timeout(600)
def test_whatever_is_asked_is_answered_as_documented(target: Target) -> None:
    # When
    called, wrong = fuzz(target, examples=4, whole=False)

    # Then
    assert called == {
        f"{method.upper()} {path}"
        for path, methods in target.document["paths"].items()
        for method in methods
    }
    assert not wrong, "\n\n".join(wrong)


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_whatever_is_asked_for_long_is_answered_as_documented(target: Target) -> None:
    # When
    _, wrong = fuzz(target, examples=100, whole=True)

    # Then
    assert not wrong, "\n\n".join(wrong)
