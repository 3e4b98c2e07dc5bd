"""Celery tasks: run one slice of an export, clean the bucket every hour, and send webhooks."""

from __future__ import annotations

import os
import random
import secrets
import sys
import threading
import time
from datetime import timedelta
from functools import lru_cache, partial
from typing import Any

import structlog
from billiard.pool import EX_RECYCLE
from celery import Task
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
from workers.routing import WEBHOOK_QUEUE

log = structlog.get_logger()

UPLOAD_GRACE = timedelta(hours=1)
"""Age below which the cleanup never aborts a multipart upload, even without a live export."""
OTHER_WORKER_WAIT = timedelta(seconds=30)
"""Pause of an export after a worker that does not know its source or format has released it."""
THREAD_STACK_BYTES = 1024 * 1024
"""Stack size of each thread of a child process that sends webhooks."""
MIN_DELIVER_BUDGET = timedelta(minutes=5)
"""Shortest time for which one task sends webhooks before the next task continues.

Each task gets a random time between this and twice this. It ends earlier if nothing is due.
"""
MAX_TICK = settings.SLICE_GRACE / 2
"""Time after which one run of the task `tick` starts no further slice.

It is well below the task's time limit.
"""
MIN_CRASH_DELAY = timedelta(seconds=1)
"""Delay before the next attempt after a slice crashed, doubled with each consecutive crash.

The backoff keeps a temporary defect from using up all attempts within a second. The delay is at
most the duration of a lease.
"""


@lru_cache(maxsize=1)
def service() -> ExportService:
    """Returns the export service of this process, created at the first call.

    The first call must come after the fork, because processes must not share sockets.
    """
    return wiring.export_service()


@lru_cache(maxsize=1)
def deliverer() -> Deliverer:
    """Returns the webhook deliverer of this process, created at the first call.

    The first call must come after the fork, because processes must not share sockets.
    """
    # The threads need little stack; with the default of 8 MiB each, they could reach the ceiling.
    threading.stack_size(THREAD_STACK_BYTES)
    return wiring.deliverer()


@lru_cache(maxsize=1)
def worker_id() -> str:
    """Returns the id of this process in the format of the vendor's tasks.

    The format is `worker-<8 random characters>-<process id>`.
    """
    return f"worker-{secrets.token_hex(4)}-{os.getpid()}"


@worker_process_init.connect
def _init_child(**_: object) -> None:
    """Prepares a child process before its first task."""
    service.cache_clear()
    deliverer.cache_clear()
    worker_id.cache_clear()
    pulse.reset_slot()
    memory.tune_allocator()
    memory.set_ceiling(settings.load().worker_memory)


def warm(**_: object) -> None:
    """Starts the slow set-up of the S3 client in the background, in a child that runs exports.

    The set-up then runs while the first slice reads from its source.
    """
    wiring.warm_up(service().storage)


@app.task(name="exporter.tick")
def tick() -> str | None:
    """Runs one slice of the best ready export, and then wakes the next worker by a message.

    Returns how the last slice ended; None, without a message, if no export was ready. The message
    that starts this task names no export: the claim chooses it, so that order and fairness do not
    depend on the order in which the broker delivers messages. Sending the next message keeps one
    message per busy worker in circulation until nothing is ready. While the broker takes no
    message, because it is full or does not answer, this task runs the next slice itself for up to
    MAX_TICK.
    """
    stop_at = time.monotonic() + MAX_TICK.total_seconds()
    try:
        with pulse.busy():
            ending = work()
            while ending is not None and not _send_doorbell(tick) and time.monotonic() < stop_at:
                ending = work()
    except MemoryError:
        # Memory of the slice may still be in use, so the next slice gets a new process. The error
        # must not reach Celery, which would raise it again in the main process.
        _send_doorbell(tick)
        sys.exit(EX_RECYCLE)
    return ending


def _send_doorbell(task: Task[Any, Any]) -> bool:
    """Sends the message that starts the task again, and returns True if the broker takes it.

    While this worker shuts down, returns True without a message: other workers claim what is ready.
    Returns False if the broker is full or does not answer.
    """
    if draining.requested():
        return True
    try:
        task.apply_async()
    except BROKER_ERRORS as error:
        log.warning("doorbell.broker_silent", reason=str(error))
        return False
    return True


def work() -> Ending | None:
    """Claims an export, runs one slice of it, and returns how the slice ended.

    Returns None if no export was ready or the store did not answer. An unexpected exception ends
    the slice as LOST: the attempt is counted, and the export becomes ready again soon. A
    MemoryError is handled in the same way and then raised, because this process must end.
    """
    own = service()
    claimed_at = own.clock.monotonic()
    pulse.record_claim()
    try:
        claim = own.store.claim(
            worker_id(),
            lease=own.settings.lease_seconds,
            tenant_slots=own.settings.tenant_slots,
        )
    except StoreUnavailable as error:
        log.warning("claim.failed", reason=str(error))
        return None
    except Exception:
        log.exception("claim.crashed")
        return None
    if claim is None:
        return None
    with structlog.contextvars.bound_contextvars(
        export_id=claim.export.id, fence=claim.fence, worker_id=worker_id()
    ):
        log.info("slice.started", state=claim.export.state, clean=claim.clean)
        try:
            return _run_claimed(own, claim, claimed_at)
        except MemoryError as error:
            memory.lift_ceiling()
            _handle_crash(own, claim, error)
            raise
        except Exception as error:  # noqa: BLE001 - every defect is logged and counted
            _handle_crash(own, claim, error)
            return Ending.LOST


def _run_claimed(own: ExportService, claim: Claim, claimed_at: float) -> Ending:
    spec = claim.export.spec
    if claim.export.attempts >= 2 * own.settings.max_attempts:
        # Beyond `max_attempts` a slice only fails the export and cleans up; workers were lost even
        # then, so the export is failed here without a slice.
        return _end_export(
            own,
            claim,
            State.FAILED,
            f"gave up: {claim.export.attempts} workers in a row were lost while working on this "
            "export, without progress between them; its parts may be left in the bucket",
        )
    try:
        source = own.reader(claim.export)
        encoder = formats.make(spec.format, spec.dialect, spec.column_names)
    except ConfigurationError as error:
        return _wait_for_other_worker(own, claim, error)
    return run_slice(
        claim,
        source=source,
        encoder=encoder,
        storage=own.storage,
        store=own.store,
        clock=own.clock,
        limits=wiring.limits(own.settings),
        claimed_at=claimed_at,
        draining=draining.requested,
    )


def _handle_crash(own: ExportService, claim: Claim, error: Exception) -> None:
    """Logs the error of a slice, and shortens its lease so that it expires after the crash delay.

    The store then treats this worker as dead: the sweep counts the attempt, and the next worker
    completes the multipart upload early, so that late writes of this worker have no effect. If the
    owner has requested to cancel the export, it ends now instead.
    """
    wait = min(own.settings.lease_seconds, MIN_CRASH_DELAY * 2 ** min(claim.export.attempts, 16))
    log.error(
        "slice.crashed",
        attempt=claim.export.attempts + 1,
        retry_in=wait.total_seconds(),
        exc_info=error,
    )
    if claim.export.cancel_requested:
        _end_export(own, claim, State.CANCELED, None)
        return
    try:
        own.store.count("slices_crashed", 1)
        own.store.renew(claim.export.id, claim.fence, lease=wait)
    except StoreUnavailable as silent:
        log.warning("store.silent", reason=str(silent))


def _wait_for_other_worker(own: ExportService, claim: Claim, unknown: ConfigurationError) -> Ending:
    """Releases an export whose source or format is unknown here, so that another worker runs it.

    A new configuration or version reaches workers one by one. If no worker knows the source and the
    format for longer than the setting `patience`, the export fails. Raising an error instead would
    repeat claims and expired leases without limit.
    """
    reason = str(unknown)
    is_format = isinstance(unknown, formats.UnknownFormat)
    log.error("format.unknown" if is_format else "source.unknown", reason=reason)
    export, since = claim.export, claim.export.stalled_since
    if export.cancel_requested:
        return _end_export(own, claim, State.CANCELED, None)
    # The claim set updated_at, so both times are from the store; the local clock may be wrong.
    if since is not None and export.updated_at - since > own.settings.patience:
        return _end_export(own, claim, State.FAILED, reason)
    try:
        is_held = own.store.release(
            export.id, claim.fence, clean=claim.clean, retry_in=OTHER_WORKER_WAIT, reason=reason
        )
    except StoreUnavailable as error:
        log.warning("store.silent", reason=str(error))
        return Ending.LOST
    return Ending.WAITING if is_held else Ending.LOST


def _end_export(own: ExportService, claim: Claim, state: State, error: str | None) -> Ending:
    """Sets the final state of a claimed export without running a slice.

    Returns LOST if the lease was lost or the store did not answer. The hourly cleanup removes the
    export's objects from the bucket.
    """
    try:
        is_held = own.store.end(
            claim.export.id,
            claim.fence,
            state,
            error=error,
            keep_record=own.settings.record_retention,
            charged=0 if own.settings.charge_canceled else None,
        )
    except StoreUnavailable as silent:
        log.warning("store.silent", reason=str(silent))
        return Ending.LOST
    return Ending(state) if is_held else Ending.LOST


@app.task(name="exporter.clean")
def clean() -> None:
    """Deletes files past their retention, and aborts multipart uploads without a live export."""
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


@app.task(name="exporter.deliver", queue=WEBHOOK_QUEUE)
def deliver() -> None:
    """Sends due webhooks until nothing is due or the time budget is spent.

    A webhook worker runs two of these tasks at once, which share the due deliveries. A task whose
    budget is spent first sends the message that starts its successor, and then waits for its
    running attempts.
    """
    pulse.record_claim()
    try:
        with pulse.busy():
            deliverer().run(
                # Random, so that the two tasks do not end at the same time.
                budget=MIN_DELIVER_BUDGET * random.uniform(1, 2),  # noqa: S311
                is_draining=draining.requested,
                hand_over=partial(_send_doorbell, deliver),
            )
    except StoreUnavailable as error:
        log.warning("delivering.interrupted", reason=str(error))
