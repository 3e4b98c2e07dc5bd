"""Webhooks: endpoints, deliveries, signatures, and the workers' send loop."""

from __future__ import annotations
