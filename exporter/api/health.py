"""Health checks for load balancers and orchestrators, which need no API key."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from importlib import metadata

import anyio
import structlog
from anyio import to_thread
from fastapi import Request
from starlette.responses import Response

from exporter.api import responses
from exporter.api.error_shapes import DETAIL
from exporter.api.surface import Answer, Operation, Surface
from exporter.errors import ExporterError
from exporter.service.exports import ExportService

DEADLINE_SECONDS = 2.0
"""Longest wait for the answer of one dependency, in seconds."""
FRESH_SECONDS = 1.0
"""Age, in seconds, up to which the result of a check is returned again without a new check."""

log: structlog.stdlib.BoundLogger = structlog.get_logger()


class Probe:
    """Checks one dependency, such as Redis, and reuses the result for `FRESH_SECONDS`.

    A result is available within `DEADLINE_SECONDS`, although the S3 client itself retries for
    longer. At most one check runs at a time, in the only thread of this probe: a check that hangs
    never occupies a thread that serves requests.
    """

    def __init__(self, name: str, ask: Callable[[], object]) -> None:
        self._name = name
        self._ask = ask
        self._thread = anyio.CapacityLimiter(1)
        self._verdict, self._asked_at = "", float("-inf")

    async def verdict(self) -> str:
        """Returns `ok`, or a short text that says how the check failed.

        The text for callers names no hosts; the log has the whole error.
        """
        if time.monotonic() - self._asked_at < FRESH_SECONDS:
            return self._verdict
        verdict = f"no answer within {DEADLINE_SECONDS:g} s"
        with anyio.move_on_after(DEADLINE_SECONDS):
            try:
                await to_thread.run_sync(self._ask, abandon_on_cancel=True, limiter=self._thread)
                verdict = "ok"
            except ExporterError as error:
                # The text may name hosts, and the caller is not authenticated.
                log.warning("health.unavailable", dependency=self._name, error=str(error))
                verdict = "unavailable"
        self._verdict, self._asked_at = verdict, time.monotonic()
        return verdict


class Health:
    """Checks all dependencies of this process: Redis and S3."""

    def __init__(self, service: ExportService) -> None:
        self._probes = {
            "redis": Probe("redis", lambda: service.store.get("health")),
            "s3": Probe("s3", lambda: service.storage.head("health")),
        }

    async def verdicts(self) -> dict[str, str]:
        """Returns the verdict on each dependency by its name; the checks run concurrently."""
        verdicts = await asyncio.gather(*(probe.verdict() for probe in self._probes.values()))
        return dict(zip(self._probes, verdicts, strict=True))


async def health(request: Request) -> Response:
    """Answers 200 if Redis and S3 work, otherwise 503; the body has the result for each of them.

    The answer arrives within seconds, even if Redis or S3 hangs.
    """
    verdicts = await request.app.state.health.verdicts()
    return _reply(verdicts, verdicts)


async def hirebase(request: Request) -> Response:
    """Answers 200 or 503 like `/health`, with the body that Hirebase's command line expects."""
    verdicts = await request.app.state.health.verdicts()
    return _reply(verdicts, {"version": metadata.version("allrows")})


def _reply(verdicts: Mapping[str, str], facts: Mapping[str, str]) -> Response:
    healthy = all(verdict == "ok" for verdict in verdicts.values())
    status = "ok" if healthy else "unavailable"
    return responses.reply({"status": status, **facts}, 200 if healthy else 503)


async def live() -> Response:
    """Answers 200 as long as this process answers requests, even if Redis or S3 does not work.

    Use only this check to decide about restarts, because a restart does not repair Redis or S3.
    """
    return responses.reply({"status": "ok"})


def _verdict(description: str, example: Mapping[str, str] | None = None) -> Answer:
    schema = {"type": "object", "additionalProperties": {"type": "string"}}
    content = {"schema": schema, **({"example": example} if example else {})}
    return Answer(description, content={"application/json": content})


SURFACE = Surface(
    name="health",
    tag="health",
    description="Checks of the service. No API key is needed.",
    prefixes=("/health",),
    errors=DETAIL,
    operations=(
        Operation(
            "GET /health",
            health,
            "getHealth",
            "Check Redis and S3",
            {
                200: _verdict("Both answer.", {"status": "ok", "redis": "ok", "s3": "ok"}),
                503: _verdict(
                    "At least one does not answer; its entry says so.",
                    {"status": "unavailable", "redis": "ok", "s3": "unavailable"},
                ),
            },
            is_public=True,
        ),
        Operation(
            "GET /v2/health",
            hirebase,
            "getHirebaseHealth",
            "Check the service, for Hirebase's command line",
            {
                200: _verdict("Redis and S3 answer.", {"status": "ok", "version": "1.0.0"}),
                503: _verdict(
                    "Redis or S3 does not answer.", {"status": "unavailable", "version": "1.0.0"}
                ),
            },
            is_public=True,
        ),
        Operation(
            "GET /health/live",
            live,
            "getLiveness",
            "Check that the process is alive",
            {200: _verdict("The process answers.", {"status": "ok"})},
            is_public=True,
        ),
    ),
    extras="name",
)
