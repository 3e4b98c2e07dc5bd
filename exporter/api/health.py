"""Whether this process can serve: for load balancers and orchestrators, without a key."""

from __future__ import annotations

import time
from collections.abc import Callable
from importlib import metadata

import anyio
import structlog
from anyio import to_thread
from fastapi import APIRouter, Request
from starlette.responses import Response

from exporter.api import responses
from exporter.errors import ExporterError
from exporter.service.exports import ExportService

DEADLINE_SECONDS = 2.0
FRESH_SECONDS = 1.0

log: structlog.stdlib.BoundLogger = structlog.get_logger()
router = APIRouter(tags=["health"])


class Probe:
    """Asks one dependency, at most once at a time and once a second, whoever wants to know.

    It answers within `DEADLINE_SECONDS`, although the S3 client itself retries for longer: what
    hangs keeps the one thread that this probe may have, never one that serves requests.
    """

    def __init__(self, name: str, ask: Callable[[], object]) -> None:
        self._name = name
        self._ask = ask
        self._thread = anyio.CapacityLimiter(1)
        self._verdict, self._asked_at = "", float("-inf")

    async def verdict(self) -> str:
        """`ok`, or in a few words what is wrong; the log has the whole text."""
        if time.monotonic() - self._asked_at < FRESH_SECONDS:
            return self._verdict
        verdict = f"no answer within {DEADLINE_SECONDS:g} s"
        with anyio.move_on_after(DEADLINE_SECONDS):
            try:
                await to_thread.run_sync(self._ask, abandon_on_cancel=True, limiter=self._thread)
                verdict = "ok"
            except ExporterError as error:
                # The text may name hosts, and whoever asks has shown no key.
                log.warning("health.unavailable", dependency=self._name, error=str(error))
                verdict = "unavailable"
        self._verdict, self._asked_at = verdict, time.monotonic()
        return verdict


class Health:
    """The state of all that this process needs."""

    def __init__(self, service: ExportService) -> None:
        self._probes = {
            "redis": Probe("redis", lambda: service.store.get("health")),
            "s3": Probe("s3", lambda: service.storage.head("health")),
        }

    async def verdicts(self) -> dict[str, str]:
        """What each dependency's probe says, all asked at once."""
        found: dict[str, str] = {}

        async def ask(name: str, probe: Probe) -> None:
            found[name] = await probe.verdict()

        async with anyio.create_task_group() as group:
            for name, probe in self._probes.items():
                group.start_soon(ask, name, probe)
        return {name: found[name] for name in self._probes}


@router.get(
    "/health",
    summary="Whether Redis and S3 answer",
    responses={
        200: {
            "description": "Both answer.",
            "content": {
                "application/json": {"example": {"status": "ok", "redis": "ok", "s3": "ok"}}
            },
        },
        503: {
            "description": "At least one does not; its entry says so.",
            "content": {
                "application/json": {
                    "example": {"status": "unavailable", "redis": "ok", "s3": "unavailable"}
                }
            },
        },
    },
)
async def health(request: Request) -> Response:
    """200 if Redis and S3 answer, 503 naming the one that does not, always within seconds."""
    verdicts = await request.app.state.health.verdicts()
    well = all(verdict == "ok" for verdict in verdicts.values())
    return responses.reply(
        {"status": "ok" if well else "unavailable", **verdicts}, 200 if well else 503
    )


@router.get(
    "/v2/health",
    summary="Whether the service answers, for Hirebase's command line",
    responses={
        200: {
            "description": "All is well.",
            "content": {"application/json": {"example": {"status": "ok", "version": "1.0.0"}}},
        },
        503: {
            "description": "Redis or S3 does not answer.",
            "content": {
                "application/json": {"example": {"status": "unavailable", "version": "1.0.0"}}
            },
        },
    },
)
async def hirebase(request: Request) -> Response:
    """The same verdict as `/health`, in the words that the vendor's command line reads."""
    verdicts = await request.app.state.health.verdicts()
    well = all(verdict == "ok" for verdict in verdicts.values())
    told = {"status": "ok" if well else "unavailable", "version": metadata.version("exporter")}
    return responses.reply(told, 200 if well else 503)


@router.get("/health/live", summary="Whether the process lives")
async def live() -> Response:
    """200 as long as the process can answer at all: the one probe that may restart it."""
    return responses.reply({"status": "ok"})
