"""Answers of the service, as frozen values that keep the fields of later versions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Self

import msgspec


class Model(msgspec.Struct, frozen=True, kw_only=True):
    """An object of an answer. A field that an older service does not send has its default."""

    NESTED: ClassVar[Mapping[str, type[Model]]] = {}
    """Classes of the fields that are objects themselves."""
    extra: dict[str, Any] = {}
    """Fields that this version of the client does not know."""

    @classmethod
    def read(cls, data: Mapping[str, Any]) -> Self:
        """Returns the object with this JSON. Raises ValueError if a field has another type."""
        known: dict[str, Any] = {}
        extra: dict[str, Any] = {}
        for name, value in data.items():
            (known if name in cls.__struct_fields__ and name != "extra" else extra)[name] = value
        nested = {
            name: model.read(known.pop(name))
            for name, model in cls.NESTED.items()
            if isinstance(known.get(name), Mapping)
        }
        found = msgspec.convert({**known, "extra": extra}, cls)
        return msgspec.structs.replace(found, **nested) if nested else found

    def to_dict(self) -> dict[str, Any]:
        """Returns the object as JSON values, with the fields that this version does not know."""
        values = {name: getattr(self, name) for name in self.__struct_fields__ if name != "extra"}
        for name in self.NESTED:
            if values[name] is not None:
                values[name] = values[name].to_dict()
        return values | self.extra


class Completeness(Model, frozen=True, kw_only=True):
    """The proof that a file is complete: rows announced, rows written, and how the end is known."""

    outcome: str
    """`complete`, `partial`, `truncated` or `empty`."""
    end_reason: str
    exported: int
    expected: int | None = None
    duplicates_removed: int = 0
    skipped: int = 0
    total_at_start: int | None = None
    total_at_end: int | None = None


class File(Model, frozen=True, kw_only=True):
    """The file of a finished export."""

    NESTED = {"completeness": Completeness}
    file_size: int
    """Bytes."""
    record_count: int
    """Rows."""
    file_name: str
    download_url: str | None = None
    """Works with a plain GET until `expiry_time`; None after the file was deleted."""
    expiry_time: str | None = None
    completeness: Completeness | None = None
    unmapped_fields: dict[str, int] = {}
    """Fields that have no column, each with its number of rows."""
    absent_columns: list[str] = []
    """Columns that no row has."""


class Export(Model, frozen=True, kw_only=True):
    """An export. Times are RFC 3339 in UTC."""

    NESTED = {"result": File}
    id: str
    name: str = ""
    """The caller's name of the export."""
    metadata: dict[str, str] = {}
    """The caller's own texts."""
    state: str
    """`queued`, `processing`, `finished`, `failed` or `canceled`."""
    phase: str = ""
    """The current activity, such as `reading` or `waiting`."""
    progress: float = 0.0
    """0.0 to 1.0."""
    record_count: int = 0
    """Rows written so far."""
    source: str = ""
    query: dict[str, Any] | None = None
    format: str = ""
    compression: str = "none"
    columns: list[str] = []
    limit: int | None = None
    priority: int = 0
    user_id: str = ""
    created_by: str | None = None
    """Id of the API key that created the export."""
    retry_of: str | None = None
    """Id of the export that this one repeats."""
    created_at: str = ""
    updated_at: str = ""
    started_at: str | None = None
    completed_at: str | None = None
    queue_position: int | None = None
    """Ready exports ahead of a ready one; None in lists, and when unknown."""
    rows_per_second: float | None = None
    eta_seconds: int | None = None
    """Seconds to the end at the speed so far; None when unknown."""
    retry_at: str | None = None
    retry_in_seconds: int | None = None
    waiting_for: str | None = None
    """Reason of the wait, while `phase` is `waiting`."""
    cancel_requested: bool = False
    error: str | None = None
    """Reason of the failure."""
    result: File | None = None
    """The file; None until finished."""

    @property
    def has_ended(self) -> bool:
        """True if the state never changes again."""
        return self.state in ("finished", "failed", "canceled")


class Activity(Model, frozen=True, kw_only=True):
    """Something that happened to an export."""

    at: str
    what: str
    """queued, started, slice, takeover, waiting, published, failed, canceled or another word."""
    by: str = ""
    """Id of the API key or of the worker that did it."""
    detail: str = ""
    until: str | None = None
    """Time at which a wait ends."""


class Filter(Model, frozen=True, kw_only=True):
    """A filter of a source."""

    name: str
    kind: str = ""
    """The type of its value, such as `text`, `texts` or `flag`."""
    description: str = ""
    choices: list[str] = []
    """The possible values; empty if there are others."""


class Source(Model, frozen=True, kw_only=True):
    """A source of the service. A list of sources leaves filters and columns out."""

    name: str
    type: str = ""
    allowed: bool = True
    """False if the plan of the key does not include its exports."""
    filters: list[Filter] = []
    columns: list[str] = []
    """All columns that an export may choose."""
    default_columns: list[str] = []
    """Columns of a CSV file without chosen columns."""

    @classmethod
    def read(cls, data: Mapping[str, Any]) -> Self:
        """Returns the source with this JSON. Raises ValueError if a field has another type."""
        found = super().read({name: one for name, one in data.items() if name != "filters"})
        filters = [Filter.read(one) for one in data.get("filters", ())]
        return msgspec.structs.replace(found, filters=filters)

    def to_dict(self) -> dict[str, Any]:
        """Returns the source as JSON values, with the fields that this version does not know."""
        return {**super().to_dict(), "filters": [one.to_dict() for one in self.filters]}


class Preview(Model, frozen=True, kw_only=True):
    """The first rows of a query."""

    rows: list[dict[str, Any]]
    total: int | None = None
    """Rows that match; None if the source does not say."""


class Listener(Model, frozen=True, kw_only=True):
    """An endpoint whose webhooks are taken instead of sent."""

    id: str
    secret: str
    """Verifies the webhooks; see `exporter.client.webhooks`."""
    events: list[str] = []
    ttl: int = 60
    """Seconds without a take after which it is deleted with what waits for it."""


class TakenWebhook(Model, frozen=True, kw_only=True):
    """A webhook that was taken; it is due again unless its outcome is reported in time."""

    id: str
    lease: str
    """Names this attempt in the report."""
    type: str
    headers: dict[str, str]
    """The signature and what it covers."""
    body: str
    """To be sent unchanged."""
    export_id: str | None = None
    tries: int = 0
    """Attempts before this one."""


class Delivery(Model, frozen=True, kw_only=True):
    """The delivery of one webhook to one endpoint."""

    id: str
    state: str
    """`pending`, `delivering`, `delivered` or `dead`."""
    tries: int = 0
    next_at: str | None = None
    """Time of the next attempt."""
    gave_up: str | None = None
    """Why no other attempt follows."""


class FirstRows(Model, frozen=True, kw_only=True):
    """The first rows of an export."""

    rows: list[dict[str, Any]]
    """Values of a CSV export are text."""
    is_partial: bool = False
    """True until the export is finished: more rows follow, and the file may differ."""


class Webhook(Model, frozen=True, kw_only=True):
    """An authentic webhook."""

    type: str
    """Name of the event, such as `export.finished`."""
    timestamp: str
    data: dict[str, Any]
