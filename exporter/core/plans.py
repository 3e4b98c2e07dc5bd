"""What a key may do: the features, the urgency and the share of the workers that were agreed."""

from __future__ import annotations

import msgspec

from exporter.errors import ExporterError

FEATURES: dict[str, str] = {
    "export": "exporting a search into a file",
    "search": "searching without an export",
    "expired": "finding postings that have expired",
    "bulk": "collecting postings in bulk, by filter or by ids",
    "pipeline": "exporting one's own rows",
}
"""What a plan can hold or leave out, by the name that `exporter keys` takes."""


class NotInPlan(ExporterError):
    """The key's plan does not hold what was asked; the text says what, and what it does hold."""


class CreditsSpent(ExporterError):
    """The key has too few credits left for what was asked; nothing was taken."""

    def __init__(self, needed: int, left: int) -> None:
        super().__init__(
            f"this needs {needed} credits, one a record, and {left} are left:"
            " ask for fewer records, or have the key topped up"
        )
        self.needed = needed
        self.left = left


class Plan(msgspec.Struct, frozen=True):
    """The bounds of one key."""

    key_id: str | None
    """Whose account pays; None for a caller without a key, who pays nothing."""
    features: frozenset[str] | None = None
    """Names of FEATURES; None: all of them, those of later versions included."""
    priority_ceiling: int = 9
    """The most urgent priority that its exports may have."""
    concurrency: int = 0
    """Slices of the key's user at once, from which on its exports wait in line; 0: any number."""
    metered: bool = False
    """Whether a balance of credits bounds it."""

    def check(self, feature: str) -> None:
        """Return if the plan holds this one of FEATURES; raises NotInPlan."""
        if self.features is None or feature in self.features:
            return
        held = ", ".join(sorted(self.features)) or "nothing"
        raise NotInPlan(
            f"the plan of this key does not hold {feature!r} ({FEATURES[feature]});"
            f" it holds: {held}"
        )

    def check_priority(self, priority: int) -> None:
        """Return if exports of the plan may be that urgent; raises NotInPlan."""
        if priority > self.priority_ceiling:
            raise NotInPlan(
                f"priority {priority} is above what the plan of this key holds:"
                f" give at most {self.priority_ceiling}"
            )


UNLIMITED = Plan(key_id=None)
"""All features, any priority, nothing to pay: what a key has unless it was told otherwise."""


class Balance(msgspec.Struct, frozen=True):
    """Where a key stands."""

    left: int | None
    """Credits that may be spent now; None: any number."""
    used: int
    """Records delivered and paid for, since the key was made; counted without a balance, too."""
    reserved: int = 0
    """Taken for exports that have not ended; they give back what they do not write."""
