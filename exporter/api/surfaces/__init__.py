"""The endpoints of the API, with a module for each contract or group of endpoints."""

from __future__ import annotations
