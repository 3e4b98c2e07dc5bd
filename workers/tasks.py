"""The tasks: hear a doorbell, work one slice; clean the bucket now and then."""

from __future__ import annotations

import os
import secrets
from datetime import timedelta
from functools import lru_cache

import structlog
from celery.signals import worker_process_init
from kombu.exceptions import OperationalError

from exporter import cleaning, wiring
from exporter.engine import Engine
from exporter.errors import ConfigurationError, StorageUnavailable, StoreUnavailable
from exporter.exports import State
from exporter.formats import registry as formats
from exporter.pipeline import Ending, run_slice
from exporter.store.base import Claim
from workers import draining
from workers.app import app

log = structlog.get_logger()

UPLOAD_GRACE = timedelta(hours=1)
"""An upload without a live export is left alone this long."""
UNKNOWN_SOURCE_WAIT = timedelta(seconds=30)
"""Between two looks whether some worker knows an export's source."""


@lru_cache(maxsize=1)
def engine() -> Engine:
    """This process's engine. Made in the child, never before the fork: sockets are not shared."""
    return wiring.engine()


@lru_cache(maxsize=1)
def worker_id() -> str:
    """`worker-<8 characters>-<n>`, the form that the vendor's tasks show."""
    return f"worker-{secrets.token_hex(4)}-{os.getpid()}"


@worker_process_init.connect
def _forget_parent(**_: object) -> None:
    engine.cache_clear()
    worker_id.cache_clear()


@app.task(name="exporter.tick")
def tick() -> str | None:
    """Work one slice of the best ready export, if there is one; then ring again.

    The message names no export: the claim decides, so order and fairness are exact whatever
    order the broker delivers in. Ringing again keeps as many doorbells as there are busy
    workers until nothing is ready.
    """
    ending = work()
    if ending is not None and not draining.asked():
        _ring_again()
    return ending


def _ring_again() -> None:
    try:
        tick.apply_async()
    except (OperationalError, OSError) as error:
        log.warning("doorbell.broker_silent", reason=str(error))


def work() -> Ending | None:
    """Claim and work one slice; None if nothing was ready or the store is silent."""
    own = engine()
    settings = own.settings
    claimed_at = own.clock.monotonic()
    try:
        claim = own.store.claim(
            worker_id(), lease=settings.lease_seconds, tenant_slots=settings.tenant_slots
        )
    except StoreUnavailable as error:
        log.warning("claim.failed", reason=str(error))
        return None
    if claim is None:
        return None
    spec = claim.export.spec
    with structlog.contextvars.bound_contextvars(
        export_id=spec.id, fence=claim.fence, worker_id=worker_id()
    ):
        log.info("slice.started", state=claim.export.state, clean=claim.clean)
        try:
            source = own.source(spec.source)
        except ConfigurationError as error:
            return _without_source(own, claim, str(error))
        return run_slice(
            claim,
            source=source,
            encoder=formats.make(spec.format, spec.dialect, spec.columns),
            storage=own.storage,
            store=own.store,
            clock=own.clock,
            limits=wiring.limits(settings),
            claimed_at=claimed_at,
            draining=draining.asked,
        )


def _without_source(own: Engine, claim: Claim, reason: str) -> Ending:
    """Let the export wait for a worker that knows its source; in the end, fail it.

    A new configuration reaches workers one by one. Were this an error of the task, the export
    would be claimed, and its lease run out, for ever.
    """
    log.error("source.unknown", reason=reason)
    export, settings = claim.export, own.settings
    since = export.stalled_since
    ended: tuple[State, Ending] | None = None
    if export.cancel_requested:
        ended = State.CANCELED, Ending.CANCELED
    elif since is not None and own.clock.now() - since > settings.patience:
        ended = State.FAILED, Ending.FAILED
    try:
        if ended is None:
            held = own.store.release(
                export.id,
                claim.fence,
                clean=claim.clean,
                retry_in=UNKNOWN_SOURCE_WAIT,
                reason=reason,
            )
            return Ending.WAITING if held else Ending.LOST
        state, ending = ended
        # What it left in the bucket is cleaned up like that of any export that lives no more.
        held = own.store.end(
            export.id,
            claim.fence,
            state,
            error=reason if state is State.FAILED else None,
            keep_record=settings.record_retention,
        )
    except StoreUnavailable as error:
        log.warning("store.silent", reason=str(error))
        return Ending.LOST
    return ending if held else Ending.LOST


@app.task(name="exporter.clean")
def clean() -> None:
    """Delete files past their retention and uploads without an export."""
    own = engine()
    try:
        cleaning.clean(own.store, own.storage, own.clock, grace=UPLOAD_GRACE)
    except (StoreUnavailable, StorageUnavailable) as error:
        log.warning("cleaning.postponed", reason=str(error))
