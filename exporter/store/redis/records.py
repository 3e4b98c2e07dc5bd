"""Decoding of export records from Redis hashes; times are microseconds since the epoch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta

import msgspec

from exporter.core.checkpoints import Checkpoint
from exporter.core.exports import Export, Partition, Phase, Result, Spec, State
from exporter.errors import ExporterError

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_spec = msgspec.json.Decoder(Spec)
_checkpoint = msgspec.json.Decoder(Checkpoint)
_result = msgspec.json.Decoder(Result)
_partition = msgspec.json.Decoder(Partition)


class Unreadable(ExporterError):
    """This version cannot decode the record; a worker of another version may be able to."""


def read(answer: Sequence[bytes] | Mapping[bytes, bytes]) -> Export:
    """Returns the export whose Redis hash has these fields.

    `answer` is a mapping, or the flat list of names and values that a script returns. Raises
    Unreadable if this version cannot decode the record.
    """
    if not isinstance(answer, Mapping):
        answer = pairs(answer)
    try:
        return _read(answer)
    except (msgspec.MsgspecError, ValueError, LookupError) as error:
        raise Unreadable(
            f"this version of the exporter cannot read the export's record ({error!r}): another"
            " version wrote it, or it is damaged. Run the newest version on all workers and the"
            " API, and create the export again"
        ) from error


def _read(answer: Mapping[bytes, bytes]) -> Export:
    fields = {name.decode(): value for name, value in answer.items()}
    checkpoint, closing, result = map(fields.get, ("checkpoint", "closing", "result"))
    partition, partitions = map(fields.get, ("partition", "partitions"))
    return Export(
        spec=_spec.decode(fields["spec"]),
        state=State(fields["state"].decode()),
        phase=Phase(fields["phase"].decode()),
        progress=float(fields.get("progress", 0)),
        created_at=moment(fields["created_at"]),
        updated_at=moment(fields["updated_at"]),
        started_at=moment_or_none(fields.get("started_at")),
        completed_at=moment_or_none(fields.get("completed_at")),
        worker_id=_text_or_none(fields.get("worker_id")),
        error=_text_or_none(fields.get("error")),
        attempts=int(fields.get("attempts", 0)),
        stalls=int(fields.get("stalls", 0)),
        stalled_since=moment_or_none(fields.get("stalled_since")),
        retry_at=moment_or_none(fields.get("retry_at")),
        cancel_requested="cancel" in fields,
        checkpoint=_checkpoint.decode(checkpoint) if checkpoint else None,
        closing=_result.decode(closing) if closing else None,
        result=_result.decode(result) if result else None,
        file_expires_at=moment_or_none(fields.get("file_expires_at")),
        rows=int(fields.get("rows", 0)),
        partition=_partition.decode(partition) if partition else None,
        partitions=int(partitions) if partitions else None,
    )


def pairs(answer: Sequence[bytes]) -> Mapping[bytes, bytes]:
    """Returns the fields of a hash as a mapping, from a flat list of names and values."""
    return dict(zip(answer[::2], answer[1::2], strict=True))


def moment(micros: bytes) -> datetime:
    """Returns the time that Redis stores as microseconds since the epoch."""
    return EPOCH + timedelta(microseconds=int(micros))


def moment_or_none(micros: bytes | None) -> datetime | None:
    """Returns the time stored as microseconds since the epoch; None for a missing field."""
    return moment(micros) if micros is not None else None


def _text_or_none(value: bytes | None) -> str | None:
    return value.decode() if value is not None else None


def micros(duration: timedelta) -> int:
    """Returns the length of a duration in microseconds."""
    return duration // timedelta(microseconds=1)


def millis(duration: timedelta) -> int:
    """Returns the length of a duration in milliseconds, rounded down."""
    return duration // timedelta(milliseconds=1)
