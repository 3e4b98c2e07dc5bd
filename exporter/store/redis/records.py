"""Decoding of export records from Redis hashes; times are microseconds since the epoch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TypeVar

import msgspec

from exporter.core import nesting, public_text
from exporter.core.checkpoints import Checkpoint
from exporter.core.exports import (
    Dialect,
    Export,
    Partition,
    Phase,
    Result,
    Spec,
    State,
    WrongAnswers,
)
from exporter.store.base import Unreadable

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MAX_NESTING = 100
"""Levels of objects and lists in a stored JSON text, above which the record is not decoded.

Decoders and encoders of JSON recurse and fail at about 1,000 levels, or earlier if they are called
by other recursive code. Version 0.1.0 stored searches of any depth.
"""

SHOWN_FIELDS = (
    "spec", "state", "phase", "created_at", "updated_at", "progress", "started_at", "completed_at",
    "worker_id", "error", "attempts", "stalls", "stalled_since", "retry_at", "cancel", "result",
    "file_expires_at", "rows", "partitions", "user", "deleted", "whole",
)  # fmt: skip
"""All fields of a record that a caller may see or that hide it: not its checkpoints."""
_SHOWN_NAMES = tuple(name.encode() for name in SHOWN_FIELDS)

_Value = TypeVar("_Value")
_Decode = Callable[[bytes], _Value]


def read(answer: Sequence[bytes] | Mapping[bytes, bytes], export_id: str = "") -> Export:
    """Returns the export with these fields. Raises Unreadable, whatever the fields contain.

    A script returns the fields as a flat list of names and values. With `export_id`, the fields
    must be those of the export or partition with that id; `Unreadable.shown` has that id, too.
    """
    fields = answer if isinstance(answer, Mapping) else pairs(answer)
    try:
        return _decode(fields, export_id)
    except Exception as error:
        reason = (
            f"this version of the exporter cannot read the export's record ({error!r}): another"
            " version wrote it, or it is damaged. Run the newest version on all workers and the"
            " API, and create the export again"
        )
        raise Unreadable(reason, _DamagedRecord(fields).show(export_id)) from error


def _error(value: bytes) -> str:
    """Returns the text of an error as its owner may see it.

    Version 0.1.0 stored texts with the hosts of the upstream, S3 and Redis; texts of libraries,
    which name them too, are still stored whole for the operator.
    """
    return public_text.without_addresses(value.decode())


def show(answer: Sequence[bytes] | Mapping[bytes, bytes], export_id: str) -> Export:
    """Returns the export with these fields; of an unreadable record, what can be shown."""
    try:
        return read(answer, export_id)
    except Unreadable as error:
        return error.shown


def _decode(fields: Mapping[bytes, bytes], export_id: str) -> Export:
    # Written out: a call for each field would be half of what a poll pays for its record.
    get = fields.get
    export = Export(
        spec=_spec(fields[b"spec"]),
        state=_state(fields[b"state"]),
        phase=_phase(fields[b"phase"]),
        created_at=moment(fields[b"created_at"]),
        updated_at=moment(fields[b"updated_at"]),
        progress=float(get(b"progress") or 0),
        started_at=moment(value) if (value := get(b"started_at")) else None,
        completed_at=moment(value) if (value := get(b"completed_at")) else None,
        worker_id=value.decode() if (value := get(b"worker_id")) else None,
        error=_error(value) if (value := get(b"error")) else None,
        attempts=int(get(b"attempts") or 0),
        stalls=int(get(b"stalls") or 0),
        stalled_since=moment(value) if (value := get(b"stalled_since")) else None,
        wrong_answers=_wrong_answers(value) if (value := get(b"wrong_answers")) else None,
        retry_at=moment(value) if (value := get(b"retry_at")) else None,
        cancel_requested=b"cancel" in fields,
        checkpoint=_checkpoint(value) if (value := get(b"checkpoint")) else None,
        closing=_result(value) if (value := get(b"closing")) else None,
        result=_result(value) if (value := get(b"result")) else None,
        file_expires_at=moment(value) if (value := get(b"file_expires_at")) else None,
        rows=int(get(b"rows") or 0),
        partition=_partition(value) if (value := get(b"partition")) else None,
        partitions=int(value) if (value := get(b"partitions")) else None,
    )
    if export_id and export.id != export_id:
        raise ValueError(f"its fields are those of {export.id!r}")
    return export


class _DamagedRecord:
    """Fields of a record, of which those that are not valid are left out."""

    def __init__(self, fields: Mapping[bytes, bytes]) -> None:
        self._fields = fields

    def show(self, export_id: str) -> Export:
        text = self.field(b"user", bytes.decode) or ""
        nowhere = Spec(
            id=export_id,
            user_id=text,
            surface="unknown",
            source="unknown",
            query={},
            query_sha256="",
            request={},
            format="unknown",
            dialect=Dialect(),
            file_name="",
        )
        field = self.field
        return Export(
            spec=field(b"spec", _spec) or nowhere,
            state=field(b"state", _state) or State.FAILED,
            phase=field(b"phase", _phase) or Phase.DONE,
            created_at=field(b"created_at", moment) or EPOCH,
            updated_at=field(b"updated_at", moment) or EPOCH,
            progress=0.0,
            completed_at=field(b"completed_at", moment),
            error=field(b"error", _error),
            retry_at=field(b"retry_at", moment),
            cancel_requested=b"cancel" in self._fields,
            file_expires_at=field(b"file_expires_at", moment),
            readable=False,
        )

    def field(self, name: bytes, decode: _Decode[_Value]) -> _Value | None:
        value = self._fields.get(name)
        try:
            return decode(value) if value else None
        except Exception:  # noqa: BLE001 - whatever is wrong with a field, it is left out
            return None


def _json(kind: type[_Value]) -> _Decode[_Value]:
    decode = msgspec.json.Decoder(kind).decode

    def bounded(text: bytes) -> _Value:
        if nesting.is_deeper(text, MAX_NESTING):
            raise ValueError(f"{kind.__name__} is nested deeper than {MAX_NESTING} levels")
        return decode(text)

    return bounded


_STATES = {state.encode(): state for state in State}
_PHASES = {phase.encode(): phase for phase in Phase}


def _state(value: bytes) -> State:
    return _STATES.get(value) or State(value.decode())


def _phase(value: bytes) -> Phase:
    return _PHASES.get(value) or Phase(value.decode())


_spec = _json(Spec)
_checkpoint = _json(Checkpoint)
_result = _json(Result)
_partition = _json(Partition)
_wrong_answers = _json(WrongAnswers)


def pairs(answer: Sequence[bytes]) -> Mapping[bytes, bytes]:
    """Returns the fields of a hash as a mapping, from a flat list of names and values."""
    return dict(zip(answer[::2], answer[1::2], strict=True))


def shown(values: Sequence[bytes | None]) -> dict[bytes, bytes]:
    """Returns the fields of a record as a mapping, from the values of SHOWN_FIELDS."""
    return {
        name: value for name, value in zip(_SHOWN_NAMES, values, strict=True) if value is not None
    }


def moment(micros: bytes) -> datetime:
    """Returns the time that Redis stores as microseconds since the epoch."""
    return EPOCH + timedelta(0, 0, int(micros))


def moment_or_none(micros: bytes | None) -> datetime | None:
    """Returns the time stored as microseconds since the epoch; None for a missing field."""
    return moment(micros) if micros is not None else None


def micros(duration: timedelta) -> int:
    """Returns the length of a duration in microseconds."""
    return duration // timedelta(microseconds=1)


def micros_of(moment: datetime) -> int:
    """Returns a time as Redis stores it, in microseconds since the epoch."""
    return micros(moment - EPOCH)


def millis(duration: timedelta) -> int:
    """Returns the length of a duration in milliseconds, rounded down."""
    return duration // timedelta(milliseconds=1)
