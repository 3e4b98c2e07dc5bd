"""The surfaces that the API serves.

To add a surface, write a module or a package in this folder that ends with a value `SURFACE` of
`exporter.api.surface`, and add the value to `SURFACES`. The operations are then served and
documented, their examples and errors are checked by tests/unit/api, errors have the surface's shape
on all paths under its prefixes, and what its operations do not know is refused or named.

A handler begins with `deeds.reader` or `deeds.writer`, which check the API key and its rate; on the
event loop, with those of `auth` and with `deeds.count_call`. It raises `Refusal` to answer with an
error. A surface with a default source needs a field in
`config.Surfaces`, too.
"""

from __future__ import annotations

from collections.abc import Sequence

from exporter.api import health
from exporter.api.surface import Surface
from exporter.api.surfaces import coresignal, hirebase, native, pipeline, webhooks

SURFACES: Sequence[Surface] = (
    native.SURFACE,
    hirebase.SURFACE,
    coresignal.SURFACE,
    pipeline.SURFACE,
    webhooks.SURFACE,
    health.SURFACE,
)
"""All surfaces, in the order of the OpenAPI document."""
