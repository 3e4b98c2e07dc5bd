"""The pipeline contract: the caller's own jobs as one file in the response itself."""

from __future__ import annotations

from exporter.api.surface import Surface
from exporter.api.surfaces.pipeline import export
from exporter.api.surfaces.pipeline.errors import FLAT

SURFACE = Surface(
    name="pipeline",
    tag="pipeline",
    description="The pipeline contract: the caller's own rows, streamed in the answer.",
    prefixes=("/api",),
    errors=FLAT,
    operations=export.OPERATIONS,
    extras="pass",
    feature="pipeline",
    default_source="pipeline",
)
