"""Events of exports and endpoints: their names, and what one carries."""

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
"""The state that an export was in when the event happened. `expired`: its file was deleted."""
OVER = frozenset({FINISHED, "export.failed", "export.canceled"})
FAILING, DISABLED = "endpoint.failing", "endpoint.disabled"
EXPORT_EVENTS = tuple(STATES)
EVENTS = (*EXPORT_EVENTS, FAILING, DISABLED)
"""What a registered endpoint can hear; those of endpoints tell of the user's other ones."""
TEST = "webhook.test"
"""Sent when somebody asks for it, whatever the endpoint wants to hear."""
DEFAULT_EVENTS = tuple(name for name in EVENTS if name != PROGRESS)
DEFAULT_EXPORT_EVENTS = tuple(name for name in EXPORT_EVENTS if name != PROGRESS)


class Event(NamedTuple):
    """Something that happened to an export or an endpoint, as it was when it happened."""

    type: str
    at: datetime
    sequence: int
    """Grows by one with each event of one export, or endpoint."""
    progress: float
    rows: int
    subject_id: str
    """Of the export or the endpoint."""

    @property
    def message_id(self) -> str:
        """What `webhook-id` says, at each try and to each endpoint."""
        return f"msg_{self.subject_id}_{self.sequence}"

    @property
    def of_export(self) -> bool:
        return self.type in STATES


def check_events(names: Iterable[str], known: tuple[str, ...] = EVENTS) -> tuple[str, ...]:
    """The names in the order of `known`, each once. Raises ValueError for none and for others."""
    wanted = set(names)
    unknown = sorted(wanted.difference(known))
    if unknown or not wanted:
        raise ValueError(
            f"event {', '.join(unknown) or 'missing'}: give some of {', '.join(known)}"
        )
    return tuple(name for name in known if name in wanted)
