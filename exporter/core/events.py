"""Events of exports and of webhook endpoints: names and fields."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import NamedTuple

from exporter.core.exports import State

PROGRESS, FINISHED = "export.progress", "export.finished"
STATES: Mapping[str, State] = {
    "export.queued": State.QUEUED,
    "export.started": State.PROCESSING,
    PROGRESS: State.PROCESSING,
    FINISHED: State.FINISHED,
    "export.failed": State.FAILED,
    "export.canceled": State.CANCELED,
    "export.expired": State.FINISHED,
}
"""The state of the export at each event, by the name of the event.

`export.expired` means that the file of a finished export was deleted.
"""
TERMINAL_EVENTS = frozenset({FINISHED, "export.failed", "export.canceled"})
"""Events that end an export."""
FAILING, DISABLED = "endpoint.failing", "endpoint.disabled"
EXPORT_EVENTS = tuple(STATES)
EVENTS = (*EXPORT_EVENTS, FAILING, DISABLED)
"""Names of the events that a registered endpoint can subscribe to.

An `endpoint.*` event reports on one endpoint and is sent to the same user's other endpoints.
"""
TEST = "webhook.test"
"""Name of the test event; it is sent on request, even to an endpoint without subscriptions."""
DEFAULT_EVENTS = tuple(name for name in EVENTS if name != PROGRESS)
DEFAULT_EXPORT_EVENTS = tuple(name for name in EXPORT_EVENTS if name != PROGRESS)


class Event(NamedTuple):
    """An event of an export or an endpoint, with the values at the time of the event."""

    type: str
    """Name of the event, from EVENTS or TEST."""
    at: datetime
    """Time of the event."""
    sequence: int
    """Number of the event; grows by one with each event of the same export or endpoint."""
    progress: float
    """Progress of the export, 0.0 to 1.0."""
    rows: int
    """Number of rows that the export had read and stored durably at the time of the event."""
    subject_id: str
    """Id of the export or endpoint."""

    @property
    def message_id(self) -> str:
        """Value of the `webhook-id` header; the same for every attempt and every endpoint."""
        return f"msg_{self.subject_id}_{self.sequence}"

    @property
    def of_export(self) -> bool:
        """True if the subject is an export, False if it is an endpoint."""
        return self.type in STATES


def check_events(names: Iterable[str], known: tuple[str, ...] = EVENTS) -> tuple[str, ...]:
    """Returns the given names without duplicates, in the order of `known`.

    Raises ValueError if no name is given, or a name that is not in `known`.
    """
    wanted = set(names)
    unknown = sorted(wanted.difference(known))
    if unknown or not wanted:
        raise ValueError(
            f"event {', '.join(unknown) or 'missing'}: give some of {', '.join(known)}"
        )
    return tuple(name for name in known if name in wanted)
