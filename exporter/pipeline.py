"""run_slice(): the one loop that turns pages into parts, and the only writer of checkpoints.

The order is the promise: upload the part, then commit the checkpoint that names it. A crash
between the two costs one part of work; the other order would cost rows.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from enum import StrEnum

import msgspec
import structlog

from exporter import exports, packing, parts
from exporter.checkpoints import Checkpoint, Packed, Volume
from exporter.clock import Clock
from exporter.errors import (
    LeaseLost,
    SourceError,
    SourceUnavailable,
    SourceUntrue,
    StorageError,
    StorageUnavailable,
    UploadGone,
)
from exporter.exports import Result, State
from exporter.formats.base import Format
from exporter.holding import Holding
from exporter.packing import Packing
from exporter.parts import File, part_size
from exporter.reading import Reading
from exporter.sources.base import Page, Source
from exporter.storage.base import Storage, guarded
from exporter.store.base import Claim, ExportStore, Verdict

log = structlog.get_logger()

FIRST_WAIT = 2.0
LONGEST_WAIT = 60.0
"""Seconds: the first wait for an upstream or S3, and what doubling stops at."""
UNTRUE_WAITS = 3
"""Waits in a row for a page that cannot be true before the export fails."""


class Ending(StrEnum):
    """How a slice ended."""

    FINISHED = "finished"
    FAILED = "failed"
    CANCELED = "canceled"
    HANDED_OVER = "handed_over"
    """More to do: the budget was used up, or this worker shuts down."""
    WAITING = "waiting"
    """The upstream or S3 needs time; the export comes back by itself."""
    LOST = "lost"
    """Another worker owns the export, or may: nothing more was written."""


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """The numbers that a slice works by; see `settings.Settings` for their meaning."""

    part_size: int
    slice: timedelta
    lease: timedelta
    patience: timedelta
    deadline: timedelta
    max_attempts: int
    keep_file: timedelta
    keep_record: timedelta


def run_slice(
    claim: Claim,
    *,
    source: Source,
    encoder: Format,
    storage: Storage,
    store: ExportStore,
    clock: Clock,
    limits: Limits,
    claimed_at: float,
    draining: Callable[[], bool] = lambda: False,
) -> Ending:
    """Work on a claimed export until its end, the slice's budget, a cancel or a lost lease.

    `claimed_at` is the monotonic time before the claim was sent: a worker that was stopped right
    after it must not believe that its lease is fresh.

    Whatever happens inside, the file that is published in the end has the same bytes. Errors of
    upstream, S3 and store end as a state of the export; only a defect of our own is raised.
    """
    held = Holding(claim, store, clock, lease=limits.lease, claimed_at=claimed_at)
    run = _Slice(held, source, encoder, storage, clock, limits, draining)
    with held.kept(), guarded(held.check):
        try:
            return run.work()
        except LeaseLost as error:
            log.warning("slice.lost", reason=str(error))
            return Ending.LOST


class _Slice:
    """The position in the file: what is durable (`saved`) and what is only in hand."""

    def __init__(
        self,
        held: Holding,
        source: Source,
        encoder: Format,
        storage: Storage,
        clock: Clock,
        limits: Limits,
        draining: Callable[[], bool],
    ) -> None:
        self.held = held
        self.export = held.export
        self.spec = held.export.spec
        self.source = source
        self.encoder = encoder
        self.clock = clock
        self.limits = limits
        self.draining = draining
        self.ends_at = clock.monotonic() + limits.slice.total_seconds()
        content_type = encoder.content_type
        if self.spec.compression != "none":
            content_type = packing.CONTENT_TYPES[self.spec.compression]
        self.file = File(storage, self.spec.id, held.fence, self.spec.file_name, content_type)
        self.saved = self.export.checkpoint or self._beginning()
        self.advanced = False
        self.reading = Reading(
            self.spec,
            self.saved,
            identity=source.identity,
            tolerated_drift=source.tolerated_drift,
        )
        self.tally = self.saved.tally.copy()
        self.packing = self._packing(bytearray())

    # -- the loop ------------------------------------------------------------------------------

    def work(self) -> Ending:
        try:
            try:
                return self._go_on()
            except UploadGone as error:
                return self._begin_anew(str(error))
            except SourceUnavailable as error:
                return self._wait(str(error), error.retry_after)
            except SourceError as error:
                seen = f" (after {self.at.fetched} rows)" if self.at.fetched else ""
                return self._fail(f"{error}{seen}")
        except StorageUnavailable as error:
            # A write may still be on its way to S3, so this hand-over is not a clean one.
            return self._pause(str(error), clean=False)
        except StorageError as error:
            return self._fail(str(error))

    def _go_on(self) -> Ending:
        if self.export.cancel_requested:
            return self._cancel()
        if self.export.attempts >= self.limits.max_attempts:
            return self._fail(
                f"gave up: {self.export.attempts} workers in a row were lost while working on "
                "this export, without progress between them"
            )
        if self.export.closing is not None and self._is_published(self.export.closing):
            return self._finish(self.export.closing)
        if self.held.now() > self._deadline():
            return self._fail(f"not finished within {self.limits.deadline} of its creation")
        if not self.held.clean:
            self._take_over()
        return self._read()

    def _read(self) -> Ending:
        self.packing = self._packing(self.file.read_tail(self.saved))
        while not self.reading.ended:
            if self.draining() or self.clock.monotonic() >= self.ends_at:
                return self._hand_over()
            page = self._fetch()
            self.packing.add(self.reading.take(page), self.tally)
            if self._part_is_full() and not self.reading.ended:
                verdict = self._commit(self._with_part())
            else:
                verdict = self.held.beat(self._progress())
            if verdict is Verdict.CANCEL:
                return self._cancel()
        return self._publish()

    def _fetch(self) -> Page:
        try:
            return self.source.fetch(self.spec.query, self.at.cursor)
        except SourceUntrue as error:
            stalls = 0 if self.advanced else self.export.stalls
            if stalls >= UNTRUE_WAITS:
                raise
            # A proxy that shows its maintenance page lies for a while; a source that lies for good
            # does so again. What was read until here is kept either way.
            raise SourceUnavailable(str(error)) from error

    @property
    def at(self) -> Checkpoint:
        return self.reading.at

    def _part_is_full(self) -> bool:
        least = part_size(self.limits.part_size, len(self.at.parts))
        return len(self.packing.buffer) >= least

    def _with_part(self) -> Checkpoint:
        at = self.file.add_part(self._in_hand(), self.packing.buffer)
        self.packing.taken()
        return at

    def _commit(self, checkpoint: Checkpoint, closing: Result | None = None) -> Verdict:
        """Make the position durable. After this, a crash costs nothing of what it names."""
        stale = self.saved.tail
        verdict = self.held.commit(checkpoint, progress=self._progress(), closing=closing)
        self.advanced = self.advanced or checkpoint.pages > self.saved.pages
        self.saved = self.reading.at = checkpoint
        if stale is not None and stale != checkpoint.tail:
            self.file.drop(stale.key)
        return verdict

    def _progress(self) -> float:
        return exports.progress(self.at.rows, self.at.total_at_end, self.spec.limit)

    # -- endings -------------------------------------------------------------------------------

    def _publish(self) -> Ending:
        unknown_ids = self.packing.close(self.reading.unknown)
        if self.at.upload_id is None:
            # The pages in hand are in no checkpoint: a successor that does not find the file
            # reads them again.
            result = self._result(self.file.key, len(self.packing.buffer), unknown_ids)
            if self._commit(self.saved, closing=result) is Verdict.CANCEL:
                return self._cancel()
            self.file.publish_small(self.packing.buffer)
        else:
            at = self._with_part() if self.packing.buffer else self._in_hand()
            assert at.key is not None
            result = self._result(at.key, at.uploaded, unknown_ids)
            if self._commit(at, closing=result) is Verdict.CANCEL:
                return self._cancel()
            self.file.complete(at)
        if not self.file.holds(result.key, result.file_size):
            raise StorageError(
                f"{result.key} was stored, but the store does not show its {result.file_size} bytes"
            )
        return self._finish(result)

    def _is_published(self, closing: Result) -> bool:
        """Whether a predecessor got as far as the file, although nobody heard the answer."""
        if self.saved.upload_id is not None and self.saved.end_reason is not None:
            self.file.complete(self.saved)
        return self.file.holds(closing.key, closing.file_size)

    def _finish(self, result: Result) -> Ending:
        # Before the end, while the lease still holds: nobody comes back to a finished export.
        once = self.export.checkpoint is None and self.held.clean
        if not once or self.spec.ids is not None:
            self._tidy(keep=result.key)
        self.held.end(
            State.FINISHED,
            result=result,
            keep_file=self._keep_file(),
            keep_record=self.limits.keep_record,
        )
        log.info("export.finished", rows=result.record_count, bytes=result.file_size)
        return Ending.FINISHED

    def _fail(self, error: str, *, reachable: bool = True) -> Ending:
        if reachable:
            self._discard()
        self.held.end(State.FAILED, error=error, keep_record=self.limits.keep_record)
        log.warning("export.failed", reason=error)
        return Ending.FAILED

    def _cancel(self) -> Ending:
        self._discard()
        self.held.end(State.CANCELED, keep_record=self.limits.keep_record)
        log.info("export.canceled", rows=self.at.rows)
        return Ending.CANCELED

    def _hand_over(self) -> Ending:
        if self._save_hand() is Verdict.CANCEL:
            return self._cancel()
        return self._release(Ending.HANDED_OVER, clean=True)

    def _wait(self, reason: str, retry_after: float | None) -> Ending:
        """Let go of the worker until the upstream may answer again, keeping what was read."""
        if self._save_hand() is Verdict.CANCEL:
            return self._cancel()
        return self._pause(reason, clean=True, retry_after=retry_after)

    def _pause(self, reason: str, *, clean: bool, retry_after: float | None = None) -> Ending:
        stalls = 0 if self.advanced else self.export.stalls
        since = None if self.advanced else self.export.stalled_since
        seconds = max(min(FIRST_WAIT * 2 ** min(stalls, 10), LONGEST_WAIT), retry_after or 0)
        wait = timedelta(seconds=seconds)
        if since is not None and self.held.now() - since > self.limits.patience:
            error = f"gave up after waiting since {since:%Y-%m-%d %H:%M:%S}Z: {reason}"
        elif self.held.now() + wait > self._deadline():
            error = f"not finished within {self.limits.deadline} of its creation: {reason}"
        else:
            return self._release(Ending.WAITING, clean=clean, retry_in=wait, reason=reason)
        # While S3 is silent nothing can be cleaned up: the cleaning of the bucket does it later.
        return self._fail(error, reachable=clean)

    def _deadline(self) -> datetime:
        return self.export.created_at + self.limits.deadline

    def _release(
        self,
        ending: Ending,
        *,
        clean: bool,
        retry_in: timedelta | None = None,
        reason: str | None = None,
    ) -> Ending:
        self.held.release(clean=clean, retry_in=retry_in, reason=reason)
        log.info("slice.released", ending=ending, rows=self.saved.rows, reason=reason)
        return ending

    # -- starting points -----------------------------------------------------------------------

    def _beginning(self) -> Checkpoint:
        return Checkpoint(cursor=self.source.start(self.spec.limit, self.spec.offset))

    def _take_over(self) -> None:
        taken = self.file.take_over(self.saved)
        if taken is None:
            raise UploadGone(f"the parts at {self.saved.key} are gone from the store")
        if taken != self.saved:
            sealed = self.saved.key
            self._commit(taken)
            if sealed is not None and taken.parts:
                self.file.drop(sealed)
            log.info("slice.took_over", rows=self.saved.rows, attempt=self.export.attempts)

    def _begin_anew(self, reason: str) -> Ending:
        """The upload vanished under us although the lease is ours: read everything again.

        A bucket's own rules may abort an upload that stayed open for days.
        """
        log.warning("export.begins_anew", reason=reason, rows=self.saved.rows)
        self.held.confirm()
        self.file.discard(keep=parts.input_key(self.spec.id))
        self._commit(self._beginning())
        return self._pause(reason, clean=True)

    def _discard(self) -> None:
        """Empty the bucket of this export, once the store has confirmed that it is ours."""
        self.held.confirm()
        self.file.discard()

    def _save_hand(self) -> Verdict:
        """Make the pages in hand durable, if there are any beyond the checkpoint."""
        if self.at.pages == self.saved.pages:
            return self.held.beat(self._progress())
        in_hand = self._in_hand()
        return self._commit(self.file.keep_tail(in_hand, self.packing.buffer))

    def _in_hand(self) -> Checkpoint:
        """The position behind the last page taken, as a checkpoint; settles the buffer."""
        return self.reading.checkpoint().evolve(
            tally=self.tally.copy(), packed=self.packing.settle()
        )

    def _tidy(self, keep: str) -> None:
        try:
            self.file.discard(keep=keep)
        except StorageUnavailable:
            raise  # the export waits, and is found published when S3 answers again
        except StorageError as error:
            # The file is published: what is left over is the cleaning's.
            log.warning("export.untidy", reason=str(error))

    def _packing(self, buffer: bytearray) -> Packing:
        at = self.saved.packed
        if at == Packed() and self.saved.rows:
            # Version 0.1.0 knew no volumes, and its exports may be under way during a deploy.
            at = Packed(is_open=True, rows=self.saved.rows)
        return Packing(
            self.encoder,
            at,
            compression=self.spec.compression,
            rows_per_volume=self.spec.rows_per_file,
            stored=self.saved.uploaded,
            buffer=buffer,
        )

    def _keep_file(self) -> timedelta:
        own = self.spec.keep_seconds
        return self.limits.keep_file if own is None else timedelta(seconds=own)

    def _result(self, key: str, size: int, unknown_ids: Volume | None) -> Result:
        cut = self.spec.rows_per_file is not None
        return Result(
            key=key,
            file_size=size,
            record_count=self.at.rows,
            completeness=self.reading.completeness(),
            tally=self.tally.copy(),
            pages=self.at.pages,
            volumes=self.packing.volumes if cut else (),
            unknown_ids=unknown_ids,
        )
