"""The OpenAPI document and the page that shows it."""

from __future__ import annotations
