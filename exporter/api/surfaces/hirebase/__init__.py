"""The Hirebase contract: exports are tasks; searches and lookups are forwarded to the source."""

from __future__ import annotations

from exporter.api.error_shapes import DETAIL
from exporter.api.surface import Surface
from exporter.api.surfaces.hirebase import expired, searches, tasks, usage

SURFACE = Surface(
    name="hirebase",
    tag="hirebase",
    description="The Hirebase contract: an export is a task. Its official client works here.",
    prefixes=("/v2",),
    errors=DETAIL,
    operations=(
        *tasks.OPERATIONS,
        *expired.OPERATIONS,
        *searches.OPERATIONS,
        *usage.OPERATIONS,
    ),
    extras="name",
    default_source="board",
)
