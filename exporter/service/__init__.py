"""The use cases of the surfaces: create, retry, estimate, find, cancel, delete and link exports."""

from __future__ import annotations
