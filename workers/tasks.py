"""The tasks: hear a doorbell, work one slice; clean the bucket now and then; send webhooks."""

from __future__ import annotations

import os
import random
import secrets
import sys
import threading
from datetime import timedelta
from functools import lru_cache

import structlog
from billiard.pool import EX_RECYCLE
from celery.signals import worker_process_init

from exporter import settings, wiring
from exporter.core.exports import State
from exporter.errors import ConfigurationError, StorageUnavailable, StoreUnavailable
from exporter.formats import registry as formats
from exporter.maintenance import cleaning
from exporter.run.run_slice import Ending, run_slice
from exporter.service.exports import ExportService
from exporter.store.base import Claim
from exporter.webhooks.delivering import Deliverer
from workers import draining, memory, pulse
from workers.app import BROKER_ERRORS, app
from workers.routing import WEBHOOKS

log = structlog.get_logger()

UPLOAD_GRACE = timedelta(hours=1)
"""An upload without a live export is left alone this long."""
UNKNOWN_SOURCE_WAIT = timedelta(seconds=30)
"""Between two looks whether some worker knows an export's source."""
THREAD_STACK = 1024 * 1024
"""Bytes for each thread of a process that sends webhooks."""
DELIVERING = timedelta(minutes=5)
"""How long one task sends webhooks while there are any, before it hands over to the next; up to
twice that."""
CRASH_WAIT = timedelta(seconds=1)
"""Until the next try after a slice crashed, doubled with each further one in a row: a defect that
passes by itself is not tried away within a second."""


@lru_cache(maxsize=1)
def service() -> ExportService:
    """This process's engine. Made in the child, never before the fork: sockets are not shared."""
    return wiring.export_service()


@lru_cache(maxsize=1)
def deliverer() -> Deliverer:
    """This process's sender of webhooks, made as the engine is."""
    # Its threads only wait; with the usual 8 MiB each, they alone would reach the memory ceiling.
    threading.stack_size(THREAD_STACK)
    return wiring.deliverer()


@lru_cache(maxsize=1)
def worker_id() -> str:
    """`worker-<8 characters>-<n>`, the form that the vendor's tasks show."""
    return f"worker-{secrets.token_hex(4)}-{os.getpid()}"


@worker_process_init.connect
def _begin(**_: object) -> None:
    """What a child does before its first slice."""
    service.cache_clear()
    deliverer.cache_clear()
    worker_id.cache_clear()
    pulse.begin()
    memory.steady()
    memory.bound(settings.load().worker_memory)


def warm(**_: object) -> None:
    """What a child that does exports begins beside its first slice."""
    wiring.warm_up(service().storage)


@app.task(name="exporter.tick")
def tick() -> str | None:
    """Work one slice of the best ready export, if there is one; then ring again.

    The message names no export: the claim decides, so order and fairness are exact whatever
    order the broker delivers in. Ringing again keeps as many doorbells as there are busy
    workers until nothing is ready.
    """
    try:
        with pulse.busy():
            ending = work()
    except MemoryError:
        # What the slice held may not all be free again: the next one gets a new process. The
        # error itself must not reach Celery, which raises it once more in the main process.
        _ring_again()
        sys.exit(EX_RECYCLE)
    if ending is not None:
        _ring_again()
    return ending


def _ring_again() -> None:
    if draining.asked():
        return
    try:
        tick.apply_async()
    except BROKER_ERRORS as error:
        log.warning("doorbell.broker_silent", reason=str(error))


def work() -> Ending | None:
    """Claim and work one slice; None if nothing was ready or the store is silent.

    A slice that crashes by a defect of ours ends as LOST: its export's attempt is counted and it
    is ready again soon. MemoryError is raised after that, for this process has to end.
    """
    own = service()
    claimed_at = own.clock.monotonic()
    pulse.claiming()
    try:
        claim = own.store.claim(
            worker_id(),
            lease=own.settings.lease_seconds,
            tenant_slots=own.settings.tenant_slots,
        )
    except StoreUnavailable as error:
        log.warning("claim.failed", reason=str(error))
        return None
    if claim is None:
        return None
    with structlog.contextvars.bound_contextvars(
        export_id=claim.export.id, fence=claim.fence, worker_id=worker_id()
    ):
        log.info("slice.started", state=claim.export.state, clean=claim.clean)
        try:
            return _slice(own, claim, claimed_at)
        except MemoryError as error:
            memory.ease()
            _crashed(own, claim, error)
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, it is logged and counted
            _crashed(own, claim, error)
            return Ending.LOST


def _slice(own: ExportService, claim: Claim, claimed_at: float) -> Ending:
    spec = claim.export.spec
    if claim.export.attempts >= 2 * own.settings.max_attempts:
        # It was to be failed and its bucket emptied, and workers were lost even at that.
        return _end(
            own,
            claim,
            State.FAILED,
            f"gave up: {claim.export.attempts} workers in a row were lost while working on this "
            "export, without progress between them; its parts may be left in the bucket",
        )
    try:
        source = own.reader(claim.export)
    except ConfigurationError as error:
        return _without_source(own, claim, str(error))
    return run_slice(
        claim,
        source=source,
        encoder=formats.make(spec.format, spec.dialect, spec.columns),
        storage=own.storage,
        store=own.store,
        clock=own.clock,
        limits=wiring.limits(own.settings),
        claimed_at=claimed_at,
        draining=draining.asked,
    )


def _crashed(own: ExportService, claim: Claim, error: Exception) -> None:
    """Log the error, and let the lease run out soon instead of at its end.

    To the store that is a dead worker: the sweep counts the attempt, and whoever claims next
    seals what this one may still have on its way.
    """
    wait = min(own.settings.lease_seconds, CRASH_WAIT * 2 ** min(claim.export.attempts, 16))
    log.error(
        "slice.crashed",
        attempt=claim.export.attempts + 1,
        retry_in=wait.total_seconds(),
        exc_info=error,
    )
    try:
        own.store.renew(claim.export.id, claim.fence, lease=wait)
    except StoreUnavailable as silent:
        log.warning("store.silent", reason=str(silent))


def _without_source(own: ExportService, claim: Claim, reason: str) -> Ending:
    """Let the export wait for a worker that knows its source; in the end, fail it.

    A new configuration reaches workers one by one. Were this an error of the task, the export
    would be claimed, and its lease run out, for ever.
    """
    log.error("source.unknown", reason=reason)
    export, since = claim.export, claim.export.stalled_since
    if export.cancel_requested:
        return _end(own, claim, State.CANCELED, None)
    # The claim set updated_at, so both are times of the store; this machine's clock may be wrong.
    if since is not None and export.updated_at - since > own.settings.patience:
        return _end(own, claim, State.FAILED, reason)
    try:
        held = own.store.release(
            export.id, claim.fence, clean=claim.clean, retry_in=UNKNOWN_SOURCE_WAIT, reason=reason
        )
    except StoreUnavailable as error:
        log.warning("store.silent", reason=str(error))
        return Ending.LOST
    return Ending.WAITING if held else Ending.LOST


def _end(own: ExportService, claim: Claim, state: State, error: str | None) -> Ending:
    """End an export that no slice can end. What it left in the bucket is cleaned up later."""
    try:
        held = own.store.end(
            claim.export.id,
            claim.fence,
            state,
            error=error,
            keep_record=own.settings.record_retention,
        )
    except StoreUnavailable as silent:
        log.warning("store.silent", reason=str(silent))
        return Ending.LOST
    return Ending(state) if held else Ending.LOST


@app.task(name="exporter.clean")
def clean() -> None:
    """Delete files past their retention and uploads without an export."""
    own = service()
    try:
        cleaning.clean(
            own.store,
            own.storage,
            own.clock,
            grace=UPLOAD_GRACE,
            retention=own.settings.retention,
        )
    except (StoreUnavailable, StorageUnavailable) as error:
        log.warning("cleaning.postponed", reason=str(error))


@app.task(name="exporter.deliver", queue=WEBHOOKS)
def deliver() -> None:
    """Send the webhooks that are due, until there is none.

    A worker runs two of these, which share out what is due. One whose time is over rings for its
    successor before it waits for the tries that it has under way.
    """
    pulse.claiming()
    try:
        with pulse.busy():
            deliverer().run(
                budget=DELIVERING * random.uniform(1, 2),  # noqa: S311 - so that two end apart
                is_draining=draining.asked,
                hand_over=_ring_for_webhooks,
            )
    except StoreUnavailable as error:
        log.warning("delivering.interrupted", reason=str(error))


def _ring_for_webhooks() -> None:
    if draining.asked():
        return
    try:
        deliver.apply_async()
    except BROKER_ERRORS as error:
        log.warning("doorbell.broker_silent", reason=str(error))
