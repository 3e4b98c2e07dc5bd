"""Webhooks about exports: their endpoints, their deliveries, and sending again."""

from __future__ import annotations

from exporter.api.error_shapes import PROBLEM
from exporter.api.surface import Surface
from exporter.api.surfaces.webhooks import deliveries, endpoints, listeners, resends

SURFACE = Surface(
    name="webhooks",
    tag="webhooks",
    description="Receivers of signed events (Standard Webhooks) about exports, and their"
    " deliveries.",
    prefixes=("/v1/webhook-endpoints", "/v1/webhook-deliveries"),
    errors=PROBLEM,
    operations=(
        *endpoints.OPERATIONS,
        *deliveries.OPERATIONS,
        *resends.OPERATIONS,
        *listeners.OPERATIONS,
    ),
)
