"""The native contract: exports from any source, with all details of each export."""

from __future__ import annotations

from exporter.api.error_shapes import PROBLEM
from exporter.api.surface import Surface
from exporter.api.surfaces.native import estimate, events, exports, previews, sources, system

SURFACE = Surface(
    name="native",
    tag="exports",
    description="The native contract: any source, and all details of an export.",
    prefixes=("/v1",),
    errors=PROBLEM,
    operations=(
        *exports.OPERATIONS,
        *events.OPERATIONS,
        *previews.OPERATIONS,
        *estimate.OPERATIONS,
        *sources.OPERATIONS,
        *system.OPERATIONS,
    ),
)
