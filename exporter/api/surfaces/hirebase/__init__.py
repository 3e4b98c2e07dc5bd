"""The Hirebase contract: exports are tasks; searches and lookups are forwarded to the source."""

from __future__ import annotations
