"""Checks of the four processes of the service."""

from __future__ import annotations

from http import HTTPStatus

from exporter.cli.doctor import http_probe
from exporter.cli.doctor.checks import Problem
from exporter.cli.doctor.redis_checks import RECORDS, connected
from exporter.settings import Settings
from exporter.store.redis import keys
from exporter.store.redis.keys import KeyNames

API = "EXPORTER_PUBLIC_URL"


def api(settings: Settings) -> str:
    """The address of the API for callers leads to an API whose dependencies work."""
    url = f"{settings.public_url.rstrip('/')}/health"
    answer = http_probe.get(
        url, API, "start the API with `exporter api`, or give the address that callers use"
    )
    try:
        verdicts = answer.json()
    except ValueError:
        verdicts = None
    if not isinstance(verdicts, dict) or "redis" not in verdicts:
        raise Problem(
            f"{http_probe.place(url)} answers HTTP {answer.status_code}, but not as this API",
            variable=API,
            remedy="give the address that callers use",
        )
    if answer.status_code != HTTPStatus.OK:
        failed = ", ".join(f"{name} {verdicts[name]}" for name in ("redis", "s3"))
        raise Problem(
            f"{http_probe.place(url)} answers, but reports: {failed}",
            remedy="read the log of the API, and compare its environment with this one",
        )
    return f"answers at {settings.public_url}"


def workers(settings: Settings) -> str:
    """At least one worker is alive."""
    return _alive(settings, keys.WORKERS, "worker", "no export is written", "exporter worker")


def senders(settings: Settings) -> str:
    """At least one sender of webhooks is alive."""
    return _alive(settings, keys.SENDERS, "sender", "no webhook is sent", "exporter webhooks")


def beat(settings: Settings) -> str:
    """A scheduler is alive."""
    return _alive(settings, keys.BEATS, "scheduler", "the bucket is not cleaned", "exporter beat")


def _alive(settings: Settings, presence: str, what: str, effect: str, command: str) -> str:
    with connected(settings.redis_url, RECORDS) as client:
        names = KeyNames(settings.redis_prefix)
        alive = sum(1 for _ in client.scan_iter(names(presence, "*"), count=1000))
    if not alive:
        raise Problem(f"no {what} is alive, so {effect}", remedy=f"start one with `{command}`")
    return f"{alive} alive"
