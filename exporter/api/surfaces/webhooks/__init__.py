"""Webhooks about exports: their endpoints, their deliveries, and sending again."""

from __future__ import annotations
