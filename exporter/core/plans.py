"""Plans of API keys: allowed features, highest priority, concurrent slices, and credits."""

from __future__ import annotations

import msgspec

from exporter.core.rates import Rate
from exporter.errors import ExporterError

FEATURES: dict[str, str] = {
    "export": "exporting a search into a file",
    "search": "searching without an export",
    "expired": "finding postings that have expired",
    "bulk": "collecting postings in bulk, by filter or by ids",
    "pipeline": "exporting one's own rows",
}
"""Descriptions of the features that a plan may include, by their name in `exporter keys`."""


FREE_FEATURES = frozenset({"expired"})
"""Features whose records cost no credits, whichever contract they are exported on."""


class NotInPlan(ExporterError):
    """The plan of the key does not allow the request; the text lists what the plan includes."""


class CreditsSpent(ExporterError):
    """The key has too few credits left for the request; no credit was deducted."""

    def __init__(self, needed: int, left: int) -> None:
        super().__init__(
            f"this needs {needed} credits, one per record, and {left} are left:"
            " ask for fewer records, or have the key topped up"
        )
        self.needed = needed
        self.left = left


class Plan(msgspec.Struct, frozen=True):
    """The permissions and limits of one API key."""

    key_id: str | None
    """Id of the key whose account is charged; None: a caller without a key, charged nothing."""
    features: frozenset[str] | None = None
    """Names from FEATURES; None: all features, including features of later versions."""
    priority_ceiling: int = 9
    """The highest priority that exports of the key may have."""
    concurrency: int = 0
    """Maximum number of slices of the key's user that run at the same time; 0: no limit.

    Further exports wait in the queue.
    """
    limits: dict[str, int | Rate] = {}
    """Limits that differ from the settings, by `Limit.name`; see `core.limits`."""
    metered: bool = False
    """Whether the key has a balance of credits, which limits the records of its exports."""

    def check(self, feature: str, *or_else: str) -> None:
        """Raises NotInPlan unless the plan includes `feature` or another one of the given features.

        All of them are names from FEATURES.
        """
        if self.features is None or not self.features.isdisjoint((feature, *or_else)):
            return
        included = ", ".join(sorted(self.features)) or "nothing"
        raise NotInPlan(
            f"the plan of this key does not include {feature!r} ({FEATURES[feature]});"
            f" it includes: {included}"
        )

    def charges(self, feature: str) -> bool:
        """True if the records of an export that needs `feature` cost credits."""
        return self.metered and feature not in FREE_FEATURES

    def check_priority(self, priority: int) -> None:
        """Raises NotInPlan if `priority` is above the plan's highest priority."""
        if priority > self.priority_ceiling:
            raise NotInPlan(
                f"priority {priority} is above what the plan of this key allows:"
                f" give at most {self.priority_ceiling}"
            )


UNLIMITED = Plan(key_id=None)
"""The default plan of a key: all features, every priority, no charge."""


class Balance(msgspec.Struct, frozen=True):
    """The credit account of one key."""

    left: int | None
    """Credits that may be spent now; None: unlimited."""
    used: int
    """Records delivered and charged since the key was created; also counted without a balance."""
    reserved: int = 0
    """Credits reserved for exports that have not ended; each end refunds the unused credits."""
