"""The endpoints of the API: one module for each contract, or for each part of a contract."""

from __future__ import annotations
